"""Simulation of plant and controller state together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace
from control_envs.dynamics import Dynamics, Quantity
from control_envs.errors import ShapeError

Array = Any


@dataclass
class Together(Dynamics):
    """Plant and controller as one system of state `(x, z)`; disturbances are held over a step."""

    plant: Dynamics
    controller: Callable[..., Any]
    reference: Callable[[float], Array]
    noise: Array = 0.0
    push: Array = 0.0

    state: ClassVar[tuple[Quantity, ...]] = ()
    input: ClassVar[tuple[Quantity, ...]] = ()

    def __post_init__(self) -> None:
        self.first: Array = None  # the input at the beginning of a step

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        n = self.plant.state_dim
        u, rate = self.controller(t, x[..., :n] + self.noise, self.reference(t), x[..., n:])
        u = u + self.push
        if self.first is None:
            self.first = u
        return xp.concatenate([self.plant.derivative(t, x[..., :n], u, w, xp=xp), rate], -1)


def closed_loop_step(plant, controller, both, references, dt, *, integrator, xp):
    """One step of `(x, z)` `(*batch, n + k)` as one differential equation, and the input at its beginning.

    `references` are those at its beginning, middle and end. A pure function of its arguments: it can be compiled.
    """
    together = Together(plant, controller, lambda t: references[round(2.0 * t / dt)])
    both = integrator.step(together, 0.0, both, None, None, dt, xp)
    return both, together.first


def run_stateful(simulation, x, z, dt, horizon, t0, reference, hold):
    """The trajectory under a controller `(t, x, reference, z) -> (u, z_dot)`.

    Raises:
        ShapeError: `z0` has the wrong size.
    """
    xp, controller = simulation.xp, simulation.controller
    prepare = getattr(controller, "prepared", None)
    controller = controller if prepare is None else prepare()
    size = simulation.controller.state_dim
    if z is None:
        shape = (*x.shape[:-1], size)
        z = np.zeros(shape, x.dtype) if xp is np else x.new_zeros(shape)
    if z.shape != (*x.shape[:-1], size):
        raise ShapeError(
            f"rollout: expected z0 of shape {(*x.shape[:-1], size)}, got {tuple(z.shape)}. The controller has "
            f"{size} states."
        )
    look = reference or (lambda t: None)
    simulation._begin(x)
    states, inner, inputs = [x], [z], []
    step = _held if hold else _continuous
    for k in range(horizon):
        x, z, u = step(simulation, controller, look, k, t0 + k * dt, x, z, dt)
        states.append(x)
        inner.append(z)
        inputs.append(u)
    states, inner = xp.stack(states, -2), xp.stack(inner, -2)
    inputs = xp.stack(inputs, -2) if inputs else states[..., :0, : simulation.plant.input_dim]
    complete = xp.isfinite(inner).all(-1).all(-1)
    return simulation._finish(states, inputs, dt, horizon, t0, complete, inner)


def _held(simulation, controller, reference, k, t, x, z, dt):
    """Input held over the step; then the controller's own discrete form."""
    u, rate = controller(t, simulation._measured(t, x), reference(t), z)
    u = simulation._pushed(t, x, simulation._checked(u))
    after = simulation._advance(k, None, t, x, u, dt, dt)
    seen = simulation._measured(t + dt, after)
    _, next_rate = controller(t + dt, seen, reference(t + dt), z + dt * rate)
    advance = getattr(simulation.controller, "advance", None)
    z = z + 0.5 * dt * (rate + next_rate) if advance is None else advance(z, rate, next_rate, dt)
    return after, z, u


def _continuous(simulation, controller, reference, k, t, x, z, dt):
    """Plant and controller as one differential equation; the disturbances are held over the step."""
    noise, push = simulation.measurement_disturbance, simulation.input_disturbance
    noise, push = (0.0 if d is None else d(t, x) for d in (noise, push))
    together = Together(simulation.plant, controller, reference, noise, push)
    w = None if simulation.disturbance is None else simulation.disturbance(t, x)
    xp, n = simulation.xp, x.shape[-1]
    both = simulation.integrator.step(together, t, xp.concatenate([x, z], -1), None, w, dt, xp)
    u = simulation._checked(together.first)
    simulation._observe(k, None, t, x, u, dt)
    return both[..., :n], both[..., n:], u
