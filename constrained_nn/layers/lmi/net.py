"""LMI-Net: projection onto linear matrix inequalities, with a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.layers.contract import ProjectionLayer, Verdict, same_dtype, widen
from constrained_nn.layers.lmi.adjoints import KKT, FixedPoint, LMIAdjoint
from constrained_nn.linalg import MatrixMap, branchless, symmetric_eigh
from constrained_nn.sets import LMI, ConstraintSet
from constrained_nn.solvers import LMISolution, Solution, project_lmi
from constrained_nn.solvers.lmi import (
    Eigen,
    Found,
    KKTProjection,
    Problem,
    Settings,
    error_of,
    fixed_point,
    found_by,
    maps_of,
    polished,
    sensitivity,
    status_of,
    unrolled,
)


class LMINet(ProjectionLayer[LMI]):
    """Nearest point that satisfies linear matrix inequalities, proved to do so (LMI-Net).

    `argmin |x − y|²` subject to `F_b(x) ⪰ δ T_b⁻²` for every block `b` of the set.

    Douglas-Rachford splitting with one memory, over-relaxation, a penalty balanced for each element and blocks
    scaled by a congruence `T`; then a semismooth Newton method with the same fixed point, safeguarded by a line
    search; and for elements where both stall an interior method. Differentiable in `y` and in every matrix.

    Guarantee: `OK` means that `F(x) ⪰ 0` is proved in exact arithmetic for the numbers returned, by Cholesky factors of
    the original blocks in float64, shifted by a bound on all rounding.
    The point is the nearest one of the set with margin `δ`, to `1e-2 (1 + |x|) + 1e-6 |y|` by a dual bound that is
    checked; `solution.error` is that bound on the distance to the nearest point of the set itself, element by element:
    in general `√(2 δ tr Z)`, 1e-4 for the default margin and multipliers of size one, 1e-6 for `margin=1e-12`.
    The true distance is in general of the order of `δ`: for blocks, points and multipliers of size one the default
    margin stays below `1e-7 (1 + |x|)` (2e-8 was the most among 540 random problems of three kinds).
    What is proved but not near is `STAGNATED`. A margin that rounding at `x` would swallow is widened to what the
    proof needs.
    `INFEASIBLE` comes with a multiplier which proves that no point within `1e9 (1 + |y|)`
    satisfies the inequalities. Where eigenvalues of `F(x) − Z` vanish the derivative is that of the inside.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Not needed: the layer computes in float64 always, and what it proves about a float32 decision
            holds after rounding; with `compute_dtype=torch.float64` it holds before.
        margin: `δ`, relative to the scaled blocks; default 1e-8, and 1e-6 for float32 decisions.
        max_steps: Projections onto the cone before the interior method takes over.
        relaxation: `ω` of Douglas-Rachford, between 0 and 2.
        penalty: Fixed `τ` of Douglas-Rachford; balanced for each element by default.
        congruence: Whether blocks are scaled.
        splitting_steps: Douglas-Rachford steps before the acceleration.
        accelerate: Whether the semismooth Newton method follows; without it Douglas-Rachford takes all steps.
        newton_steps: Steps of the acceleration before the interior method takes over.
        interior_steps: Steps of the interior method; 0 for none.
        adjoint: `KKT() | FixedPoint() | Unrolled()`.
        eigen: Kernel `S -> (eigenvalues, eigenvectors)` for batches of symmetric matrices.

    Returns:
        `forward(y, set)`: the enforced decision `(*batch, m)`; `solve` returns an `LMISolution`, which a later `solve`
        of a similar problem takes as `warm_start`.

    Raises:
        SetTypeError: The set is not an `LMI`.
        ShapeError: `y` does not fit the set.
        ValueError: `margin`, `relaxation` or a number of steps is out of its range.
        InfeasibleError: In eval mode, an element has no feasible point.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> from constrained_nn import LMI, LMINet
        >>> A = torch.tensor([[-1.0, 4.0], [0.0, -1.0]]).double()
        >>> stable = LMI.lyapunov(A, floor=0.1)
        >>> solution = LMINet().solve(torch.ones(3).double(), stable)
        >>> bool(solution.ok), bool(stable.certified(solution.value))
        (True, True)

    References:
        LMI-Net (arXiv 2604.05374), sections 3 and 4.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (LMI,)
    guarantee: ClassVar[str] = (
        "inequalities proved by Cholesky factors; distance to the nearest point bounded"
    )

    def __init__(
        self,
        *,
        on_failure=None,
        compute_dtype=None,
        margin: float | None = None,
        max_steps: int = 500,
        relaxation: float = 1.7,
        penalty: float | None = None,
        congruence: bool = True,
        splitting_steps: int = 10,
        accelerate: bool = True,
        newton_steps: int = 40,
        interior_steps: int = 60,
        adjoint: LMIAdjoint = KKT(),  # noqa: B008
        eigen: Eigen = symmetric_eigh,
    ) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        counts = (max_steps, splitting_steps, newton_steps, interior_steps)
        if not (0 < relaxation < 2 and (margin is None or margin >= 0) and min(counts) >= 0):
            raise ValueError(
                f"LMINet: expected 0 < relaxation < 2, margin >= 0 and numbers of steps >= 0, got {relaxation}, "
                f"{margin} and {counts}. The defaults suit most problems."
            )
        self.margin = margin
        self.tolerance = Proved()
        self.max_steps = max_steps
        self.relaxation = relaxation
        self.penalty = penalty
        self.congruence = congruence
        self.splitting_steps = splitting_steps
        self.accelerate = accelerate
        self.newton_steps = newton_steps
        self.interior_steps = interior_steps
        self.adjoint = adjoint
        self.eigen = eigen

    def enforce(
        self, y: Float[Tensor, "*batch m"], set: LMI, factor: None, warm_start: Solution | None
    ) -> LMISolution:
        dtype = y.dtype
        batch = y.shape[:-1]
        wide = set if dtype == torch.float64 else same_dtype(set, torch.float64)
        target = y.double().reshape(-1, set.dim)
        data = [t for block in wide.blocks for t in _flat(block.map, batch)]
        plain = [t.detach() for t in data]
        maps = maps_of(plain)
        problem, found = project_lmi(target.detach(), maps, self._settings(dtype), _warm(warm_start, maps))
        value = self._value(problem, found, target, data)
        value = value.reshape(*batch, set.dim).to(dtype)
        status = status_of(found).reshape(batch)
        violation = _violation(set, value, found.proved.reshape(batch))
        duals = torch.cat([x.flatten(-2) for x in problem.unscaled(found.Z)], -1)
        return LMISolution(
            value,
            status,
            found.steps.reshape(batch).to(torch.int32),
            violation,
            found_by=found_by(found).reshape(batch),
            duals=duals.reshape(*batch, duals.shape[-1]),
            margin=found.margin.amin(-1).reshape(batch),
            increment=found.increment.reshape(batch),
            error=error_of(problem, found, dtype).reshape(batch),
        )

    def _settings(self, dtype: torch.dtype) -> Settings:
        margin = self.margin
        if margin is None:
            margin = 1e-8 if dtype == torch.float64 else 1e-6
        return Settings(
            self.max_steps,
            margin,
            self.relaxation,
            self.penalty,
            self.congruence,
            self.splitting_steps,
            self.accelerate,
            self.newton_steps,
            self.interior_steps,
            self.eigen,
            dtype,
        )

    def _value(self, problem: Problem, found: Found, target: Tensor, data: list[Tensor]) -> Tensor:
        """The point found, with the derivatives that were asked for."""
        good = found.good & found.y.isfinite().all(-1)
        value = torch.where(found.y.isfinite(), found.y, problem.target)
        known = (problem, value, found.Z, found.margin)
        if not branchless(target, *data):
            if not (torch.is_grad_enabled() and any(t.requires_grad for t in (target, *data))):
                return value
            if isinstance(self.adjoint, KKT):
                return KKTProjection.apply(*known, good, target, *data)  # pyright: ignore
        maps = maps_of(data)
        if isinstance(self.adjoint, KKT):
            with torch.no_grad():
                at = sensitivity(*known[:3])
            y = polished(problem, at, maps, found.margin, target, value, found.Z)
        elif isinstance(self.adjoint, FixedPoint):
            y = fixed_point(problem, maps, found.margin, target, value, found.Z, self.adjoint.penalty)
        else:
            y = unrolled(problem, maps, found.margin, target, self.adjoint.penalty, self.adjoint.steps)
        return value + torch.where(good.unsqueeze(-1), y - y.detach(), 0.0)


@dataclass(frozen=True)
class Proved:
    """Every block is proved positive semidefinite at the value, to the last bit."""

    def __call__(self, value: Tensor, set: LMI) -> Verdict:
        wide, plain = widen(value, set)
        certified = plain.certified(wide)  # pyright: ignore[reportAttributeAccessIssue]
        return Verdict(certified, _violation(plain, wide, certified))  # pyright: ignore[reportArgumentType]


def _flat(map: MatrixMap, batch: torch.Size) -> list[Tensor]:
    """The tensors of a block with one batch dimension: all elements, or one that all share."""
    flat = []
    for t, core in zip(map, (2, 2, 2, 3), strict=True):
        shape = t.shape[t.ndim - core :]
        flat.append(
            t.unsqueeze(0) if t.ndim == core else t.expand(*batch, *shape).reshape(batch.numel(), *shape)
        )
    return flat


def _warm(warm_start: Solution | None, maps: Sequence[MatrixMap]) -> tuple[Tensor, Tensor] | None:
    """Point and multiplier of an earlier solution, if it has one for each block."""
    if warm_start is None or (Z := warm_start.duals) is None or Z.shape[-1] != sum(m.order**2 for m in maps):
        return None
    value = warm_start.value
    return value.double().reshape(-1, value.shape[-1]), Z.double().reshape(-1, Z.shape[-1])


def _violation(set: LMI, value: Tensor, certified: Tensor) -> Tensor:
    """Zero where feasibility is proved, else measured."""
    if not branchless(value) and bool(certified.all()):
        return torch.zeros_like(value[..., 0])
    with torch.no_grad():
        return torch.where(certified, 0.0, set.violation(value))
