"""HardNet-Cvx: Euclidean projection onto any convex set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.layers._base import ProjectionLayer
from constrained_nn.layers._euclidean import EuclideanProjection
from constrained_nn.layers._quarantine import quarantine
from constrained_nn.sets import ConstraintSet
from constrained_nn.sets._base import check_batch
from constrained_nn.solvers import Solution, Status


class ConvexProgram:
    """A convex set written in cvxpy and compiled once.

    Called with the values of its parameters `(*batch, *shape)`, it gives the `ProgramSet` of that batch.

    Args:
        variable: The cvxpy variable, a vector.
        constraints: Constraints on it, convex and disciplined in the parameters (DPP).
        parameters: The parameters, in the order in which values are given.

    Raises:
        ShapeError: The variable is not a vector, or the values do not fit the parameters.
        ValueError: The constraints are not disciplined.

    Example:
        >>> import cvxpy, torch
        >>> y, radius = cvxpy.Variable(2), cvxpy.Parameter(1, nonneg=True)
        >>> disc = ConvexProgram(y, [cvxpy.norm(y) <= radius], [radius])
        >>> HardNetConvex()(torch.tensor([3.0, 4.0]).double(), disc(torch.ones(1).double())).round(decimals=4)
        tensor([0.6000, 0.8000], dtype=torch.float64)
    """

    def __init__(self, variable: Any, constraints: Sequence[Any], parameters: Sequence[Any] = ()) -> None:
        import cvxpy

        if len(variable.shape) != 1:
            raise ShapeError(
                f"ConvexProgram: expected variable of shape (n,), got {variable.shape}. Flatten the decision."
            )
        self.variable = variable
        self.constraints = tuple(constraints)
        self.parameters = tuple(parameters)
        self._point = cvxpy.Parameter(variable.shape)
        self._problem = cvxpy.Problem(
            cvxpy.Minimize(cvxpy.sum_squares(variable - self._point)), list(constraints)
        )
        if not self._problem.is_dpp():
            raise ValueError(
                "ConvexProgram: expected constraints that are convex and disciplined in their parameters, got others. "
                "See `cvxpy.Problem.is_dpp`; a product of two parameters is a new parameter."
            )
        self._layer: Any = None

    def __call__(self, *values: Tensor) -> ProgramSet:
        shapes = [tuple(p.shape) for p in self.parameters]
        fits = len(values) == len(shapes) and all(
            tuple(v.shape[v.ndim - len(s) :]) == s for v, s in zip(values, shapes, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"ConvexProgram: expected values of shape (*batch, ...) for parameters of shapes {shapes}, got "
                f"{[tuple(v.shape) for v in values]}. Batch dimensions come first."
            )
        return ProgramSet(values, self)

    def solver(self) -> Any:
        """The differentiable solver, made on first use: moreau where it is installed, else diffcp."""
        if self._layer is None:
            from cvxpylayers.torch.cvxpylayer import CvxpyLayer

            batched = find_spec("moreau") is not None
            options = {} if batched else {"solve_method": "SCS", "eps": 1e-9, "n_jobs_forward": 1}
            self._layer = CvxpyLayer(
                self._problem,
                parameters=[self._point, *self.parameters],
                variables=[self.variable],
                solver="MOREAU" if batched else "DIFFCP",
                solver_args=options,
            )
        return self._layer

    def measure(self, y: Any, values: Sequence[Any]) -> list[float]:
        """Largest violation of each constraint at one point (NumPy arrays)."""
        self.variable.save_value(y)
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.save_value(value)
        return [float(abs(c.violation()).max(initial=0.0)) for c in self.constraints]


@dataclass(frozen=True, eq=False)
class ProgramSet(ConstraintSet):
    """A convex set of a `ConvexProgram` with the values of its parameters.

    `residual` is measured by cvxpy, element by element and without derivative: one number for each constraint.

    Args:
        values: Values of the parameters `(*batch, *shape)`.
        program: The program.
    """

    values: tuple[Tensor, ...]
    program: ConvexProgram

    @property
    def core_ndims(self) -> dict[str, tuple[int, ...]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {"values": tuple(len(p.shape) for p in self.program.parameters)}

    @property
    def dim(self) -> int:
        return self.program.variable.shape[0]

    @property
    def batch_shape(self) -> torch.Size:
        cores = self.core_ndims["values"]
        shapes = {
            f"value {i}": v.shape[: v.ndim - c]
            for i, (v, c) in enumerate(zip(self.values, cores, strict=True))
        }
        return check_batch("ProgramSet", **shapes)

    @torch.no_grad()
    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        batch = torch.broadcast_shapes(y.shape[:-1], self.batch_shape)
        points = y.detach().cpu().double().expand(*batch, self.dim).reshape(-1, self.dim).numpy()
        values = [v.detach().cpu().double().numpy() for v in self.flat(batch)]
        found = [self.program.measure(p, [v[i] for v in values]) for i, p in enumerate(points)]
        return y.new_tensor(found).reshape(*batch, len(self.program.constraints))

    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return 1.0 + y.abs().amax(-1, keepdim=True)

    def flat(self, batch: torch.Size) -> list[Tensor]:
        """The values with one batch dimension."""
        cores = self.core_ndims["values"]
        shapes = [v.shape[v.ndim - c :] for v, c in zip(self.values, cores, strict=True)]
        return [v.expand(*batch, *s).reshape(-1, *s) for v, s in zip(self.values, shapes, strict=True)]


class HardNetConvex(ProjectionLayer[Any]):
    """Euclidean projection onto any convex set (HardNet-Cvx).

    `argmin |x − y|²` subject to `x ∈ set`.

    Our own sets, their intersections and products go through `EuclideanProjection`. A set written in cvxpy is a
    `ConvexProgram`: compiled once, solved for the whole batch together, differentiable in `y` and in its parameters.

    Guarantee: that of `EuclideanProjection` for our sets. For a program, `OK` means that every constraint holds to
    `atol (1 + max|y|)`, checked after the fact; an element whose solve fails raises nothing, is flagged `INFEASIBLE` or
    `MAX_STEPS` with its raw value, and has no gradient.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back.
        atol: Largest violation of a program's constraint that counts as satisfied.

    Returns:
        `forward(y, set)`: the projection `(*batch, n)`.

    Raises:
        SetTypeError: The set is neither convex with a known projection nor a `ProgramSet`.
        ShapeError: `y` does not fit the set.
        InfeasibleError: In eval mode, an element has no feasible point.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> from constrained_nn import Ball
        >>> HardNetConvex()(torch.tensor([3.0, 4.0]), Ball(torch.zeros(2), torch.tensor(1.0)))
        tensor([0.6000, 0.8000])

    References:
        HardNet (arXiv 2410.10807), Eq. 8.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (*EuclideanProjection.accepts, ProgramSet)
    guarantee: ClassVar[str] = "nearest point: as EuclideanProjection, or to atol for a cvxpy program"

    def __init__(self, *, on_failure=None, compute_dtype=None, atol: float = 1e-6) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        self.atol = atol
        self._projection = EuclideanProjection()

    def enforce(self, y: Float[Tensor, "*#batch n"], set: Any, factor: None) -> Solution:
        if not isinstance(set, ProgramSet):
            return self._projection.enforce(y, set, None)
        batch = check_batch("HardNetConvex", y=y.shape[:-1], set=set.batch_shape)
        y, set, healthy = quarantine(y.expand(*batch, y.shape[-1]), set)
        points, values = y.reshape(-1, set.dim), set.flat(batch)
        value, status = _solve(set.program, points, values)
        value = value.reshape(*batch, set.dim)
        status = status.reshape(batch)
        violation = set.violation(value)
        held = violation <= self.atol * (1.0 + value.detach().abs().amax(-1))
        status = torch.where((status == 0) & ~held, int(Status.MAX_STEPS), status)
        status = torch.where(healthy.expand(batch), status, int(Status.NONFINITE_INPUT)).to(torch.int8)
        violation = torch.where(healthy.expand(batch), violation, torch.inf)
        return Solution(value, status, torch.zeros_like(status, dtype=torch.int32), violation)


def _solve(program: ConvexProgram, y: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Projections and statuses of a flat batch; halves of it only to find out which element failed."""
    status = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    if not len(y):
        return y, status
    from diffcp.cone_program import SolverError

    try:
        return program.solver()(y, *values)[0], status
    except (
        SolverError,
        ValueError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # one bad element fails the batch
        if len(y) == 1:
            code = Status.INFEASIBLE if "infeasible" in str(error).lower() else Status.MAX_STEPS
            return y.detach(), status + int(code)
    half = len(y) // 2
    parts = [
        _solve(program, y[part], [v[part] for v in values]) for part in (slice(None, half), slice(half, None))
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
