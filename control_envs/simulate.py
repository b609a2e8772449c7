"""Fixed-step simulation: integrators, zero-order hold, sub-steps, and `rollout`.

The same functions serve NumPy and torch; in torch a rollout is differentiable and never detaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from control_envs.arrays import namespace
from control_envs.dynamics import Dynamics
from control_envs.errors import NonFiniteError, ShapeError
from control_envs.integrators import RK4, Euler, Integrator

__all__ = ["RK4", "Euler", "InputLimitedSubsteps", "Integrator", "SubStep", "Trajectory", "rollout"]

Array = Any


@dataclass(frozen=True)
class InputLimitedSubsteps:
    """Sub-steps that shrink as the input grows: `min(dt limit / max|u_i|, time left)`.

    The controller is evaluated again at every sub-step, and every element of a batch takes its own.

    Args:
        limit: Largest input that is held for a whole `dt`, in the unit of the input.
        max_count: Extra sub-steps of a run after which an element is given up (`Trajectory.complete` is False).
    """

    limit: float
    max_count: int = 1000


@dataclass(frozen=True)
class SubStep:
    """What an observer sees: one held input.

    `index` are the elements it applies to (None: all); `step` is the number of the control interval, `(k,)`
    with sub-steps, where every element advances at its own pace.
    """

    step: Array
    index: Array | None
    t: Array
    x: Array
    u: Array
    dt: Array


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A simulated batch.

    Args:
        t: Times `(T+1,)` [s], NumPy.
        x: States `(*batch, T+1, n)`.
        u: Inputs `(*batch, T, m)`, the last of each step where there are sub-steps.
        integrals: Time integrals of the `running` functions, `(*batch)` each, by the left-endpoint rule.
        worst: Largest value over all sub-steps and the end of the `extremes` functions.
        z: Controller states `(*batch, T+1, k)`, or None for a static controller.
        complete: Elements `(*batch)` that stayed finite and within the allowed number of sub-steps.
    """

    t: np.ndarray
    x: Array
    u: Array
    integrals: Mapping[str, Array] = field(default_factory=dict)
    worst: Mapping[str, Array] = field(default_factory=dict)
    complete: Array = None
    z: Array | None = None


def rollout(
    plant: Dynamics,
    controller: Callable[..., Any],
    x0: Array,
    *,
    dt: float,
    horizon: int,
    integrator: Integrator | None = None,
    substeps: InputLimitedSubsteps | None = None,
    disturbance: Callable[[Array, Array], Array] | None = None,
    input_disturbance: Callable[[Array, Array], Array] | None = None,
    measurement_disturbance: Callable[[Array, Array], Array] | None = None,
    running: Mapping[str, Callable[[Array, Array, Array], Array]] | None = None,
    extremes: Mapping[str, Callable[[Array, Array, Array], Array]] | None = None,
    observers: Sequence[Callable[[SubStep], None]] = (),
    t0: float = 0.0,
    reference: Callable[[float], Array] | None = None,
    z0: Array | None = None,
    hold: bool = True,
) -> Trajectory:
    """Simulate `horizon` steps of `dt` under `u = controller(t, x)`, held over each (sub-)step.

    A controller with a state of its own (`state_dim > 0`) is called as `controller(t, x, reference(t), z) ->
    (u, z_dot)`. Its state goes along with that of the plant: with a held input by the controller's discrete form
    `advance(z, z_dot, z_dot at the next sample, dt)` if it has one, else by the trapezoid rule; with `hold=False`
    plant and controller are one differential equation, integrated together.

    Args:
        plant: The dynamics.
        controller: Function `(t, x) -> u`; `t` is a float, or `(k,)` with sub-steps. Or a controller with a state.
        x0: Start states `(*batch, n)`, NumPy or torch; with sub-steps `(batch, n)`.
        dt: Step [s].
        horizon: Number of steps.
        integrator: Default RK4; with `substeps`, each sub-step is one integrator step.
        substeps: Rule for sub-steps, or None.
        disturbance: Function `(t, x) -> w` of the dynamics, or None.
        input_disturbance: Function `(t, x) -> d` `(*batch, m)`; `u + d` is held, recorded and judged, or None.
        measurement_disturbance: Function `(t, x) -> d` `(*batch, n)`; the controller sees `x + d`, or None.
        running: Functions `(t, x, u) -> (*batch)` whose time integral is wanted.
        extremes: Functions `(t, x, u) -> (*batch)` whose largest value is wanted (no gradient).
        observers: Called with every `SubStep`.
        t0: Start time [s].
        reference: What a controller with a state tracks, a function of time.
        z0: Start of the controller's state `(*batch, k)`; default zero.
        hold: Whether the input is held over a step; False: a controller with a state acts continuously.

    Returns:
        A `Trajectory`; differentiable in `x0`, plant parameters and controller when `x0` is a tensor.

    Raises:
        ShapeError: `x0` or an input has the wrong size.
        NonFiniteError: `x0` is NaN or infinite.
        ValueError: Sub-steps are asked for with a controller that has a state, or `hold=False` with one that has none.
    """
    xp = namespace(x0)
    _check_start(plant, x0, substeps, xp)
    stateful = int(getattr(controller, "state_dim", 0)) > 0
    if (stateful and substeps is not None) or not (stateful or hold):
        raise ValueError(
            f"rollout: expected sub-steps only with a static controller and hold=False only with one that has a "
            f"state, got state_dim {getattr(controller, 'state_dim', 0)}, substeps {substeps}, hold {hold}. Use a "
            f"smaller dt, or leave hold out."
        )
    simulation = _Simulation(
        plant,
        controller,
        integrator or RK4(),
        disturbance,
        input_disturbance,
        measurement_disturbance,
        running or {},
        extremes or {},
        observers,
        xp,
    )
    if stateful:
        from control_envs.stateful import run_stateful

        return run_stateful(simulation, x0, z0, dt, horizon, t0, reference, hold)
    return simulation.run(x0, dt, horizon, substeps, t0)


@dataclass
class _Simulation:
    plant: Dynamics
    controller: Callable[..., Any]
    integrator: Integrator
    disturbance: Callable[[Array, Array], Array] | None
    input_disturbance: Callable[[Array, Array], Array] | None
    measurement_disturbance: Callable[[Array, Array], Array] | None
    running: Mapping[str, Callable[[Array, Array, Array], Array]]
    extremes: Mapping[str, Callable[[Array, Array, Array], Array]]
    observers: Sequence[Callable[[SubStep], None]]
    xp: Any

    def run(
        self, x0: Array, dt: float, horizon: int, substeps: InputLimitedSubsteps | None, t0: float
    ) -> Trajectory:
        xp = self.xp
        self._begin(x0)
        if horizon == 0:
            x, u = x0[..., None, :], x0[..., None, : self.plant.input_dim][..., :0, :]
            given_up = xp.zeros_like(x0[..., 0], dtype=_bool(xp))
        elif substeps is None:
            x, u = self._fixed(x0, dt, horizon, t0)
            given_up = xp.zeros_like(x0[..., 0], dtype=_bool(xp))
        else:
            x, u, given_up = self._substepped(x0, dt, horizon, substeps, t0)
        return self._finish(x, u, dt, horizon, t0, ~given_up)

    def _begin(self, x0: Array) -> None:
        xp = self.xp
        self.integrals = {name: xp.zeros_like(x0[..., 0]) for name in self.running}
        self.worst = {name: xp.zeros_like(x0[..., 0]) - xp.inf for name in self.extremes}

    def _finish(self, x, u, dt, horizon, t0, complete, z=None) -> Trajectory:
        if horizon:
            self._record_extremes(None, t0 + horizon * dt, x[..., -1, :], u[..., -1, :])
        complete = self.xp.isfinite(x).all(-1).all(-1) & complete
        times = t0 + dt * np.arange(horizon + 1)
        return Trajectory(times, x, u, self.integrals, self.worst, complete, z)

    def _fixed(self, x: Array, dt: float, horizon: int, t0: float) -> tuple[Array, Array]:
        states, inputs = [x], []
        for k in range(horizon):
            t = t0 + k * dt
            u = self._input(t, x)
            x = self._advance(k, None, t, x, u, dt, dt)
            inputs.append(u)
            states.append(x)
        return self.xp.stack(states, -2), self.xp.stack(inputs, -2)

    def _substepped(
        self, x0: Array, dt: float, horizon: int, rule: InputLimitedSubsteps, t0: float
    ) -> tuple[Array, Array, Array]:
        """Every element advances at its own pace: in each round all of them hold one input.

        Nobody can be finished before round `horizon`, so the batch stays whole (and nothing synchronises) until
        then; after that the elements that lag are gathered. `column[b, k]` is the round that ended step k.
        """
        xp, batch = self.xp, x0.shape[0]
        states, inputs = [x0], []
        active = None  # None: all elements
        x = x0
        left = xp.zeros_like(x0[..., 0]) + dt
        step = xp.zeros_like(x0[..., 0], dtype=xp.int64)
        device = {} if xp is np else {"device": x0.device}
        column = xp.zeros((batch, horizon + 1), dtype=xp.int64, **device)
        for count in range(1, horizon + rule.max_count + 1):
            t = t0 + (step + 1) * xp.full_like(left, dt) - left  # an integer tensor times a float is float32
            u = self._input(t, x)
            size = abs(u).max(-1) if xp is np else u.detach().abs().amax(-1)
            held = _shorten(dt, size, rule.limit, left, xp)
            x = self._advance(step, active, t, x, u, held[..., None], held)
            left = left - held
            step = step + 1  # the column that this round may end
            rows = slice(None) if active is None else active
            column = _mark(column, rows, step, count, batch, xp)
            done = left <= 1e-12 * dt
            step = step - 1 + xp.where(done, 1, 0)
            left = xp.where(done, dt, left)
            states.append(x if active is None else self._set(states[-1], active, x))
            inputs.append(u if active is None else self._set(inputs[-1], active, u))
            if count >= horizon:
                open_ = _nonzero(step < horizon, xp)
                if len(open_) < len(step):
                    active = open_ if active is None else active[open_]
                    x, left, step = x[open_], left[open_], step[open_]
                if not len(step):
                    break
        given_up = xp.zeros_like(x0[..., 0], dtype=_bool(xp))
        if active is not None and len(active):
            given_up = self._set(given_up, active, True)
        elif active is None:
            given_up = ~given_up
        states, inputs = xp.stack(states, 1), xp.stack(inputs, 1)
        if states.shape[1] == horizon + 1:
            return states, inputs, given_up
        element = xp.arange(batch, **device)[:, None]
        return states[element, column], inputs[element, column[:, 1:] - 1], given_up

    def _input(self, t: Array, x: Array) -> Array:
        return self._pushed(t, x, self._checked(self.controller(t, self._measured(t, x))))

    def _measured(self, t: Array, x: Array) -> Array:
        """The state as the controller sees it."""
        return x if self.measurement_disturbance is None else x + self.measurement_disturbance(t, x)

    def _pushed(self, t: Array, x: Array, u: Array) -> Array:
        """The input as the plant gets it."""
        return u if self.input_disturbance is None else u + self.input_disturbance(t, x)

    def _checked(self, u: Array) -> Array:
        if u.shape[-1] != self.plant.input_dim:
            raise ShapeError(
                f"rollout: expected controller(t, x) of shape (*batch, {self.plant.input_dim}), got "
                f"{tuple(u.shape)}. {type(self.plant).__name__} has inputs "
                f"{', '.join(q.name for q in self.plant.input)}."
            )
        return u

    def _advance(self, step, index, t, x, u, dt, held):
        """Hold `u` for `dt`: observe, step."""
        self._observe(step, index, t, x, u, held)
        w = None if self.disturbance is None else self.disturbance(t, x)
        return self.integrator.step(self.plant, t, x, u, w, dt, self.xp)

    def _observe(self, step, index, t, x, u, held):
        """Tell the observers, integrate the running functions, note the extremes."""
        for observer in self.observers:
            observer(SubStep(step, index, t, x, u, held))
        for name, function in self.running.items():
            amount = held * function(t, x, u)
            old = self.integrals[name]
            self.integrals[name] = old + amount if index is None else self._add(old, index, amount)
        self._record_extremes(index, t, x, u)

    def _record_extremes(self, index, t, x, u) -> None:
        xp = self.xp
        for name, function in self.extremes.items():
            if xp is np:
                value = function(t, x, u)
            else:
                with xp.no_grad():
                    value = function(t, x, u)
            old = self.worst[name]
            if index is None:
                self.worst[name] = xp.maximum(old, value)
            else:
                self.worst[name] = self._set(old, index, xp.maximum(old[index], value))

    def _set(self, array, index, rows):
        if self.xp is np:
            array = array.copy()
            array[index] = rows
            return array
        if not hasattr(rows, "shape"):
            rows = self.xp.full_like(array[index], rows)
        return array.index_copy(0, index, rows)

    def _add(self, array, index, rows):
        if self.xp is np:
            array = array.copy()
            array[index] += rows
            return array
        return array.index_add(0, index, rows)


def _mark(column: Array, rows: Any, step: Array, count: int, batch: int, xp: Any) -> Array:
    """Note the round that (so far) ends `step` of each row; the last note of a step stays."""
    if xp is np:
        column[np.arange(batch)[rows], step] = count
        return column
    if isinstance(rows, slice):
        return column.scatter_(1, step[:, None], count)
    column[rows, step] = count
    return column


def _bool(xp: Any) -> Any:
    return bool if xp is np else xp.bool


def _shorten(dt: float, size: Array, limit: float, left: Array, xp: Any) -> Array:
    """`min(dt limit / size, left)`; a zero or NaN input is held for all the time that is left."""
    held = dt * limit / xp.where(size > limit, size, limit)
    left = left if hasattr(left, "shape") else held * 0.0 + left
    return xp.where(held < left, held, left)


def _nonzero(mask: Array, xp: Any) -> Array:
    return np.flatnonzero(mask) if xp is np else mask.nonzero(as_tuple=True)[0]


def _check_start(plant: Dynamics, x0: Array, substeps: InputLimitedSubsteps | None, xp: Any) -> None:
    if x0.ndim < 1 or x0.shape[-1] != plant.state_dim:
        raise ShapeError(
            f"rollout: expected x0 of shape (*batch, {plant.state_dim}), got {tuple(x0.shape)}. "
            f"{type(plant).__name__} has states {', '.join(q.name for q in plant.state)}."
        )
    if substeps is not None and x0.ndim != 2:
        raise ShapeError(
            f"rollout: expected x0 of shape (batch, {plant.state_dim}) for sub-steps, got {tuple(x0.shape)}. "
            f"Flatten the batch dimensions, or add one with `x0[None]`."
        )
    bad = ~xp.isfinite(x0)
    if not _is_fake(x0) and bool(bad.any()):
        where = tuple(int(i[0]) for i in (np.nonzero(bad) if xp is np else bad.nonzero(as_tuple=True)))
        raise NonFiniteError(
            f"rollout: expected finite start states, got {float(x0[where])} at index {list(where)} "
            f"({plant.state[where[-1]].name}). Remove that element, or repair what made it."
        )


def _is_fake(x: Array) -> bool:
    return type(x).__name__ == "FakeTensor"
