"""Learned evolutions that cannot blow up (ECO): the energy of the next state is bounded by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from constrained_nn.certificates import EnergyFunction
from constrained_nn.errors import ShapeError
from constrained_nn.layers import BlendedProjection, QuadraticSet, RayProjection
from constrained_nn.layers.contract import FailurePolicy, LeastViolation, ProjectionLayer, Raise
from constrained_nn.linalg import branchless, without_autocast
from constrained_nn.plain_state import PlainState
from constrained_nn.solvers import PerElement, Solution, Status

# Room for rounding, as a share of the bound: `certify` proves from the numbers of a model that it is enough.
SAFETY = {torch.float64: 1e-11, torch.float32: 1e-6, torch.float16: 1e-2, torch.bfloat16: 1e-1}
# A step that misses its bound by more than so many times that share is flagged.
TOLERATED = 100.0


@dataclass(frozen=True, eq=False)
class Rollout(PerElement):
    """States of a learned evolution and what the energy condition did on the way.

    Args:
        states: Saved states `(saved, *batch, *state)`, the start among them.
        energy: `V` of every state `(steps + 1, *batch)`.
        active: Number of steps at which the proposal was changed `(*batch)`.
        violation: Largest `V(x⁺) − alpha max(V(x), c)` `(*batch)`, in the dtype of the condition; at most 0 where it
            held.
        status: The worst status of a step `(*batch)`.
    """

    states: Tensor
    energy: Float[Tensor, "*times"]
    active: Int[Tensor, "*batch"]
    violation: Float[Tensor, "*batch"]
    status: Int[Tensor, "*batch"]

    measure = "violation"


class ECO(PlainState):
    """Learned evolution whose energy decreases to a level and stays there (ECO).

    `x⁺ = project(backbone(x))` onto `{x⁺ : V(x⁺) <= alpha max(V(x), c)}`.

    Guarantee: with `alpha <= 1` every trajectory is bounded, `V(x_t) <= max(V(x_0), c)`, for every parameter of the
    backbone; with `alpha < 1` it enters `{V <= c}` within `log(V(x_0) / c) / log(1 / alpha)` steps and stays. In exact
    arithmetic for the default layer; the bound is tightened by the share `safety` so that rounding does not undo it,
    and `constrained-nn certify` proves from the stored numbers that this is enough. For `BlendedProjection` the
    factor is `effective_alpha()`. Nothing follows about the invariant measure, or about the true system.

    A state or a backbone output with NaN or infinity is flagged `NONFINITE_INPUT`, never passed on as if it were
    healthy, and leaves the derivatives of the others as they are; a next state that misses the bound after rounding
    (by 1e-9 of it in float64, 1e-4 in float32) is flagged `SINGULAR`.

    Args:
        backbone: Module `x -> next state`, `(*batch, *shape) -> (*batch, *shape)`; further arguments of `forward` go to
            it.
        energy: `V`, `c`.
        layer: The layer that enforces the condition; default `RayProjection()`, or `EuclideanProjection()`,
            `BlendedProjection()`.
        alpha: Factor `alpha` in (0, 1].
        shape: Shape of one state; default `(n,)`. Inside it is flattened row by row.
        dtype: The condition is computed in this dtype, and the next state is rounded to that of the state.
        safety: Share of the bound that is kept free; default by the dtype of the state, 1e-11 in float64 and 1e-6 in
            float32.
        on_failure: `Raise() | Nan() | LeastViolation()` for `forward`; default as in `ProjectionLayer`.

    Returns:
        `forward(x)`: the next state `(*batch, *shape)`.

    Raises:
        ValueError: `alpha` is not in (0, 1], or `safety` not in [0, 1).
        ShapeError: `shape` is not that of the energy's states, or a state has another one.
        ConvergenceError: In eval mode, an element failed.

    Example:
        >>> import torch
        >>> from constrained_nn import DiagonalEnergy
        >>> model = ECO(torch.nn.Linear(3, 3), DiagonalEnergy(torch.ones(3), level=4.0), alpha=0.9)
        >>> with torch.no_grad():
        ...     far = model.eval().rollout(torch.tensor([300.0, 0.0, 0.0]), 150)
        >>> bool(far.energy[-1] <= 4.0) and bool((far.energy[1:] <= 0.9 * far.energy[:-1].clamp_min(4.0)).all())
        True

    References:
        ECO (arXiv 2512.01984), Proposition 2, Lemma 3 and Theorem 4.
    """

    seen: Tensor
    changed: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        energy: EnergyFunction,
        layer: ProjectionLayer | None = None,
        *,
        alpha: float = 0.99,
        shape: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float64,
        safety: float | None = None,
        on_failure: FailurePolicy | None = None,
    ) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise ValueError(
                f"ECO: expected alpha in (0, 1], got {alpha}. Above 1 nothing is bounded; 1 bounds, less attracts."
            )
        if safety is not None and not 0 <= safety < 1:
            raise ValueError(
                f"ECO: expected safety in [0, 1), got {safety}. It is the share of the bound that is kept "
                f"free for rounding."
            )
        if shape is not None and math.prod(shape) != energy.dim:
            raise ShapeError(
                f"ECO: expected a shape of {energy.dim} components like the energy, got {tuple(shape)}. Build the "
                f"energy on states of that shape, flattened."
            )
        self.backbone = backbone
        self.energy = energy
        self.layer = RayProjection() if layer is None else layer
        self.alpha = alpha
        self.shape = (energy.dim,) if shape is None else tuple(shape)
        self.dtype = dtype
        self.safety = safety
        self.on_failure = on_failure
        # transitions that this process has seen in training mode, and those that the condition changed
        self.keep("seen", torch.zeros((), dtype=torch.int64), saved=False)
        self.keep("changed", torch.zeros((), dtype=torch.int64), saved=False)

    def room(self, dtype: torch.dtype) -> float:
        """The share of the bound that is kept free for rounding, to that dtype and in those of the computation."""
        used = (dtype, self.dtype, self.layer.compute_dtype or self.dtype)
        return max(SAFETY[t] for t in used) if self.safety is None else self.safety

    def excess(self, level: Tensor) -> Tensor | float:
        """Factor by which a step may exceed the bound: 1, or `(1 + δ)²` of a blended layer (Lemma 3)."""
        return self.layer.excess(level) if isinstance(self.layer, BlendedProjection) else 1.0

    def effective_alpha(self) -> float:
        """The factor that is guaranteed, `alpha` times the excess of a blended layer (Theorem 4)."""
        least = self.alpha * self.energy.level.detach().double()  # the excess falls with the level
        return self.alpha * float(self.excess(least))

    def activation_rate(self) -> float:
        """Share of the transitions since `reset_counts` in training mode that the condition changed."""
        return int(self.changed) / max(1, int(self.seen))

    def reset_counts(self) -> None:
        """Start to count transitions again."""
        self.seen.zero_()
        self.changed.zero_()

    @without_autocast
    def condition(self, x: Tensor) -> QuadraticSet:
        """The set of next states, flattened `(*batch, n)`, in `dtype`."""
        return self.energy.next_condition(self._flat(x).to(self.dtype), alpha=self.alpha)

    def solve(self, x: Tensor, *inputs: Any) -> Solution:
        """Enforced next state, flattened, with its status and the proposal; never raises for a value.

        The violation is that of the rounded state.

        A state with NaN or infinity, or whose energy overflows, has a proposal of NaN: neither the backbone nor the
        energy see it, because zero times its derivatives would be NaN in the weights that all elements share.
        """
        self._check(x)
        allowed = self.condition(x)
        healthy = allowed.level.detach().isfinite().unsqueeze(-1)
        if branchless(x, allowed.level) or not bool(healthy.all()):
            x = self._unflat(torch.where(healthy, self._flat(x), 0.0))
            allowed = self.condition(x)
        raw = torch.where(healthy, self._flat(self.backbone(x, *inputs)), torch.nan)
        asked = replace(allowed, level=(1.0 - self.room(x.dtype)) * allowed.level)
        solution = self.layer.solve(raw.to(self.dtype), asked)
        value = solution.value.to(x.dtype)
        with torch.no_grad():
            violation = allowed.violation(value.to(self.dtype))
            # rounding has taken more than its share, of a center that is far away for instance
            allowance = self.excess(allowed.level) * (1.0 + TOLERATED * SAFETY[x.dtype]) - 1.0
            missed = solution.ok & ~(violation <= allowance * allowed.level)
            status = torch.where(missed, int(Status.SINGULAR), solution.status).to(torch.int8)
            violation = torch.where(solution.ok, violation, torch.inf)
        return replace(solution, value=value, status=status, violation=violation, raw=raw)

    def forward(self, x: Tensor, *inputs: Any) -> Tensor:
        step = self.solve(x, *inputs)
        if self.training and not branchless(step.value):
            with torch.no_grad():
                self.seen += step.status.numel()
                self.changed += _moved(step).sum()
        policy = self.on_failure or (LeastViolation() if self.training else Raise())
        return self._unflat(policy(step, "ECO"))

    def rollout(self, x: Tensor, steps: int, *, every: int = 1) -> Rollout:
        """`steps` steps from `x` `(*batch, *shape)`, on its device; a failed element becomes NaN and stays so.

        Args:
            x: Start.
            steps: Number of steps.
            every: Save every so manieth state.

        Raises:
            ValueError: `steps` is negative, or `every` is not positive.
        """
        if steps < 0 or every < 1:
            raise ValueError(
                f"ECO.rollout: expected steps >= 0 and every >= 1, got {steps} and {every}. The start is always saved."
            )
        self._check(x)
        flat = self._flat(x)
        batch = flat.shape[:-1]
        saved = [x]
        energies = [self.energy.value(flat.to(self.dtype))]
        active = torch.zeros(batch, dtype=torch.int64, device=x.device)
        begun = energies[0].detach().isfinite()
        status = torch.where(begun, int(Status.OK), int(Status.NONFINITE_INPUT)).to(torch.int8)
        violation = torch.where(begun, -torch.inf, torch.inf).to(self.dtype)
        for k in range(steps):
            step = self.solve(x)
            value = torch.where(step.ok.unsqueeze(-1), step.value, torch.nan)
            with torch.no_grad():
                bound = self.alpha * torch.maximum(energies[-1], self.energy.level.to(self.dtype))
                energies.append(self.energy.value(value.to(self.dtype)))
                excess = torch.where(step.ok, energies[-1] - bound, torch.inf)
                violation = torch.maximum(violation, excess)
                status = torch.maximum(status, step.status)
                active = active + _moved(step)
            x = self._unflat(value)
            if (k + 1) % every == 0:
                saved.append(x)
        return Rollout(torch.stack(saved), torch.stack(energies), active, violation, status)

    def _check(self, x: Tensor) -> None:
        if x.shape[x.ndim - len(self.shape) :] != self.shape or x.dtype not in SAFETY:
            shape = ", ".join(map(str, self.shape))
            raise ShapeError(
                f"ECO: expected a state of shape (*batch, {shape}) and floating dtype, got {tuple(x.shape)} and "
                f"{x.dtype}. Pass shape=... to ECO for states that are not flat."
            )

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(-len(self.shape)) if len(self.shape) != 1 else x

    def _unflat(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, self.shape) if len(self.shape) != 1 else x


def _moved(step: Solution) -> Tensor:
    """Elements whose proposal was changed."""
    assert step.raw is not None
    return (step.value.detach() != step.raw.detach().to(step.value.dtype)).any(-1) & (
        step.status != int(Status.NONFINITE_INPUT)
    )
