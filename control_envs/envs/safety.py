"""A constraint layer in front of the plant: every action is made safe before it is executed.

Layer and constraint are taken by protocol; nothing here knows where they come from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor

from control_envs.arrays import constant
from control_envs.errors import InfeasibleActionError

OnInfeasible = Literal["raise", "brake", "least_violation"]


class LayerSolution(Protocol):
    """What a layer returns: the enforced value, and where it satisfies the constraint."""

    @property
    def value(self) -> Tensor: ...

    @property
    def ok(self) -> Tensor: ...


class Layer(Protocol):
    """Anything that maps raw inputs `(*batch, m)` into sets, such as a projection layer."""

    def solve(self, y: Tensor, set: Any) -> LayerSolution: ...


Constraint = Callable[[Any, Tensor], Any]


class _Filter:
    """Raw action -> executed action, on a batch, with an account of what was done."""

    def __init__(self, env: Any, constraint: Constraint, layer: Layer, on_infeasible: OnInfeasible) -> None:
        if on_infeasible not in ("raise", "brake", "least_violation"):
            raise ValueError(
                f"on_infeasible: expected 'raise', 'brake' or 'least_violation', got '{on_infeasible}'."
            )
        self.constraint, self.layer, self.on_infeasible = constraint, layer, on_infeasible
        self.task, interface = env.task, env.interface
        self.center, self.half = interface.center, interface.half

    def __call__(self, t: Any, x: Tensor, a: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`a` `(batch, m)` in [-1, 1], as float64 or the dtype of `x`; what leaves the actuators' box is not ok."""
        center, half = constant(self.center, x, torch), constant(self.half, x, torch)
        raw = center + half * a.to(x)
        solution = self.layer.solve(raw, self.constraint(t, x))
        u, ok = solution.value, solution.ok
        in_box = ((u - center).abs() <= half * (1.0 + 1e-9)).all(-1)  # False for NaN
        ok = ok & in_box
        if not bool(ok.all()):
            u = self._instead(t, x, u, ok)
        executed = ((u - center) / half).clamp(-1.0, 1.0)
        moved = (executed - a).abs().amax(-1)
        account = {
            "raw_action": a,
            "executed_action": executed,
            "intervened": ~(moved <= 1e-9),
            "filter_ok": ok,
        }
        return executed, account

    def _instead(self, t: Any, x: Tensor, u: Tensor, ok: Tensor) -> Tensor:
        """What is executed where no safe input was found."""
        if self.on_infeasible == "raise":
            i = int((~ok).nonzero()[0])
            raise InfeasibleActionError(
                f"SafetyFilter: no input within the actuators' limits satisfies the constraint at state "
                f"{x[i].tolist()} (copy {i}; {int((~ok).sum())} of {len(ok)}); nothing was executed. Begin in a safe "
                f"state, make the constraint act earlier, or choose on_infeasible='brake' or 'least_violation'."
            )
        low, high = (constant(b, x, torch) for b in (self.task.input_low, self.task.input_high))
        brake = torch.minimum(torch.maximum(self.task.brake(t, x), low), high)
        if self.on_infeasible == "least_violation":
            least = torch.minimum(torch.maximum(u, low), high)
            brake = torch.where(torch.isfinite(u).all(-1, keepdim=True), least, brake)
        return torch.where(ok[:, None], u, brake)


class SafetyFilter(gymnasium.Wrapper):
    """A constraint layer in front of a single environment.

    The action is scaled to SI units, mapped into `constraint(t, x)` by the layer, and executed. `info` adds
    `raw_action`, `executed_action`, `intervened` and `filter_ok` (whether the executed input satisfies the
    constraint and the actuators' limits).

    Guarantee: that of the layer, for every policy; what it cannot enforce is never executed in silence.

    Args:
        env: A `ControlEnv`, wrapped or not.
        constraint: Function `(t, x) -> set` of safe SI inputs; float64 tensors of batch one.
        layer: Anything with `solve(u, set)` that returns `value` and `ok`.
        on_infeasible: What to do where no safe input exists: `"raise"`, `"brake"` (the task's `brake`), or
            `"least_violation"` (the layer's nearest answer, within the actuators' limits).

    Raises:
        InfeasibleActionError: No safe input exists, and `on_infeasible="raise"`.
        ValueError: `on_infeasible` is something else.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        constraint: Constraint,
        layer: Layer,
        *,
        on_infeasible: OnInfeasible = "raise",
    ) -> None:
        super().__init__(env)
        self._filter = _Filter(env.unwrapped, constraint, layer, on_infeasible)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        plain: Any = self.unwrapped
        x = torch.from_numpy(plain.measurement)[None]
        a = torch.as_tensor(np.asarray(action, dtype=np.float64))[None]
        with torch.no_grad():
            executed, account = self._filter(plain.time, x, a)
        observation, reward, terminated, truncated, info = self.env.step(executed[0].numpy())
        told = {key: value[0].numpy() for key, value in account.items()}
        told |= {key: bool(told[key]) for key in ("intervened", "filter_ok")}
        return observation, reward, terminated, truncated, info | told


class VectorSafetyFilter(VectorWrapper):
    """A constraint layer in front of a vector environment; as `SafetyFilter`, with a leading dimension.

    The gradient passes through the layer if the environment keeps it.

    Args:
        env: A `ControlVectorEnv`, wrapped or not.
        constraint: Function `(t, x) -> set` of safe SI inputs; `t` `(num_envs,)`, `x` `(num_envs, n)`.
        layer: Anything with `solve(u, set)` that returns `value` and `ok`.
        on_infeasible: `"raise"`, `"brake"` or `"least_violation"`, for each copy.

    Raises:
        InfeasibleActionError: No safe input exists for a copy, and `on_infeasible="raise"`.
        ValueError: `on_infeasible` is something else.
    """

    def __init__(
        self,
        env: VectorEnv,
        constraint: Constraint,
        layer: Layer,
        *,
        on_infeasible: OnInfeasible = "raise",
    ) -> None:
        super().__init__(env)
        self._filter = _Filter(env.unwrapped, constraint, layer, on_infeasible)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        plain: Any = self.unwrapped
        a = torch.as_tensor(actions, device=plain.device)
        with torch.set_grad_enabled(plain.differentiable):
            executed, account = self._filter(plain.time, plain.measurement, a)
        observation, reward, terminated, truncated, info = self.env.step(executed)
        told = {k: v.cpu().numpy() if plain.to_numpy else v for k, v in account.items()}
        return observation, reward, terminated, truncated, info | told
