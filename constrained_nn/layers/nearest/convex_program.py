"""Convex sets written in cvxpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.sets import ConstraintSet, Polyhedron, check_batch


class ConvexProgram:
    """A convex set written in cvxpy and compiled once.

    Called with the values of its parameters `(*batch, *shape)`, it gives the `ProgramSet` of that batch. Constraints
    that are affine are recognized, and become rows `lower <= A y <= upper` whose entries are affine in the parameters.

    Args:
        variable: The cvxpy variable, a vector.
        constraints: Constraints on it and on no other variable, convex and disciplined in the parameters (DPP).
        parameters: The parameters, in the order in which values are given.

    Raises:
        ShapeError: The variable is not a vector, or the values do not fit the parameters.
        ValueError: The constraints are not disciplined, or hold another variable.

    Example:
        >>> import cvxpy, torch
        >>> from constrained_nn import HardNetConvex
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
        allowed = {leaf.id for leaf in (variable, *parameters)}
        leaves = [leaf for c in constraints for leaf in (*c.variables(), *c.parameters())]
        if others := sorted({leaf.name() for leaf in leaves if leaf.id not in allowed}):
            raise ValueError(
                f"ConvexProgram: expected constraints on the variable {variable.name()} and the given parameters, got "
                f"also {others}. Make other variables part of the decision, and give every parameter."
            )
        self.variable = variable
        self.constraints = (*constraints, *variable.domain)  # the domain: what its attributes ask for
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
        self._solvers: dict[tuple[str, float], Any] = {}
        feasible = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(variable)), list(constraints))
        self.rows = _affine_rows(feasible, variable, self.parameters)

    @property
    def is_affine(self) -> bool:
        """Whether the set is a polyhedron, with rows that are affine in the parameters."""
        return self.rows is not None

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

    def backends(self) -> tuple[str, ...]:
        """Solvers of cvxpylayers in the order in which they are tried: moreau where it is installed, then diffcp."""
        return ("MOREAU", "DIFFCP") if find_spec("moreau") is not None else ("DIFFCP",)

    def solver(self, backend: str, atol: float) -> Any:
        """The differentiable solver for distances to `atol`, made on first use.

        A duality gap `g` bounds the distance to the projection by `√g`, so that the gap asked for is below `atol²`.
        """
        if (backend, atol) not in self._solvers:
            from cvxpylayers.torch.cvxpylayer import CvxpyLayer

            eps = min(max(1e-3 * atol, 1e-12), 1e-9)
            gap = min(max(0.1 * atol**2, 1e-13), 1e-9)
            args = {
                "DIFFCP": {"solve_method": "SCS", "eps": eps, "n_jobs_forward": 1},
                "MOREAU": {"ipm_settings": {"tol_gap_abs": gap, "tol_gap_rel": gap, "tol_feas": eps}},
            }
            self._solvers[backend, atol] = CvxpyLayer(
                self._problem,
                parameters=[self._point, *self.parameters],
                variables=[self.variable],
                solver=backend,
                solver_args=args[backend],
            )
        return self._solvers[backend, atol]

    def are_empty(self, values: Sequence[Tensor], asked: Tensor) -> Tensor:
        """Which of the asked elements of a flat batch have no point, as far as cvxpy can tell."""
        import cvxpy

        empty = torch.zeros(asked.shape, dtype=torch.bool)
        self._point.save_value(np.zeros(self.variable.shape))
        for i in asked.nonzero().flatten().tolist():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.save_value(value[i].detach().cpu().double().numpy())
            try:
                self._problem.solve(solver=cvxpy.CLARABEL)
            except Exception:  # of any solver: that says nothing about the set
                continue
            empty[i] = self._problem.status == cvxpy.INFEASIBLE
        return empty

    def measure(self, y: Any, values: Sequence[Any]) -> list[float]:
        """Largest violation of each constraint at one point (NumPy arrays)."""
        self.variable.save_value(y)
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.save_value(value)
        return [float(abs(c.violation()).max(initial=0.0)) for c in self.constraints]


@dataclass(frozen=True, eq=False)
class ProgramSet(ConstraintSet):
    """A convex set of a `ConvexProgram` with the values of its parameters.

    `residual` is that of the rows where the program is affine. Otherwise it is measured by cvxpy, element by
    element and without derivative: one number for each constraint.

    Args:
        values: Values of the parameters `(*batch, *shape)`.
        program: The program.
    """

    values: tuple[Tensor, ...]
    program: ConvexProgram

    widens = False

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

    def polyhedron(self, like: Tensor) -> Polyhedron | None:
        """The set as rows in the dtype and on the device of `like`; `None` where the program is not affine."""
        rows = self.program.rows
        return None if rows is None else rows.polyhedron(self.values, like)

    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        if (rows := self.polyhedron(y)) is not None:
            return rows.residual(y)
        batch = torch.broadcast_shapes(y.shape[:-1], self.batch_shape)
        points = y.detach().cpu().double().expand(*batch, self.dim).reshape(-1, self.dim).numpy()
        values = [v.detach().cpu().double().numpy() for v in self.flat(batch)]
        found = [self.program.measure(p, [v[i] for v in values]) for i, p in enumerate(points)]
        return y.new_tensor(found).reshape(*batch, len(self.program.constraints))

    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        if (rows := self.polyhedron(y)) is not None:
            return rows.scale(y)
        return 1.0 + y.abs().amax(-1, keepdim=True)

    def flat(self, batch: torch.Size) -> list[Tensor]:
        """The values with one batch dimension."""
        cores = self.core_ndims["values"]
        shapes = [v.shape[v.ndim - c :] for v, c in zip(self.values, cores, strict=True)]
        return [v.expand(*batch, *s).reshape(-1, *s) for v, s in zip(self.values, shapes, strict=True)]


@dataclass(frozen=True, eq=False)
class AffineRows:
    """Rows `A y + b = 0`, then `A y + b >= 0`, with a table `(A, b)` whose entries are affine in the parameters `p`.

    Args:
        shape: Number of rows and of variables.
        equalities: How many of the rows are equalities.
        entry, weight, source: Terms `table[entry] += weight · p[source]`, where the table is read column by column,
            `p` is all parameters, each column by column, and a one behind them.
        core_ndims: Dimensions of each parameter.
        constant: `A`, where it does not depend on the parameters.
    """

    shape: tuple[int, int]
    equalities: int
    entry: Tensor
    weight: Tensor
    source: Tensor
    core_ndims: tuple[int, ...]
    constant: Tensor | None

    def polyhedron(self, values: Sequence[Tensor], like: Tensor) -> Polyhedron:
        """The rows at values of the parameters."""
        (m, n), cores = self.shape, self.core_ndims
        batch = torch.broadcast_shapes(*(v.shape[: v.ndim - c] for v, c in zip(values, cores, strict=True)))
        columns = [like.new_ones(*batch, 1)]
        for value, core in reversed(list(zip(values, cores, strict=True))):
            shape = value.shape[value.ndim - core :]
            whole = value.expand(*batch, *shape)
            columns.insert(0, (whole.mT if core == 2 else whole).reshape(*batch, shape.numel()))
        p = torch.cat(columns, -1)
        terms = self.weight.to(like) * p.index_select(-1, self.source.to(like.device))
        table = p.new_zeros(*batch, (n + 1) * m).index_add(-1, self.entry.to(like.device), terms)
        table = table.reshape(*batch, n + 1, m).mT
        A = table[..., :n] if self.constant is None else self.constant.to(like)
        lower = -table[..., n]
        above = torch.full_like(lower[..., self.equalities :], torch.inf)
        return Polyhedron(A, lower, torch.cat([lower[..., : self.equalities], above], -1))


def _affine_rows(problem: Any, variable: Any, parameters: Sequence[Any]) -> AffineRows | None:
    """The rows of a problem whose cone form has no cone but lines and half-lines, and no other variable."""
    import cvxpy
    from cvxpy.settings import PARAM_PROB

    data, _, _ = problem.get_problem_data(cvxpy.SCS)
    program = data[PARAM_PROB]
    dims, n, m = program.cone_dims, program.x.size, program.constr_size
    given = {p.id: p for p in parameters}
    used = {identity: column for identity, column in program.param_id_to_col.items() if identity >= 0}
    if n != variable.size or dims.zero + dims.nonneg != m or not used.keys() <= given.keys():
        return None  # lifted, curved, or with parameters that cvxpy has rewritten
    starts = np.cumsum([0, *(p.size for p in parameters)])
    source = np.full(program.A.shape[1], starts[-1])
    for start, p in zip(starts, parameters, strict=False):
        if p.id in used:
            source[used[p.id] : used[p.id] + p.size] = start + np.arange(p.size)
    terms = program.A.tocoo()
    entry, weight, source = (
        torch.from_numpy(np.asarray(t)) for t in (terms.row.astype(np.int64), terms.data, source[terms.col])
    )
    rows = AffineRows(
        (m, n), dims.zero, entry, weight, source, tuple(len(p.shape) for p in parameters), constant=None
    )
    if (source[entry < m * n] < starts[-1]).any():
        return rows
    zeros = [torch.zeros(p.shape, dtype=torch.float64) for p in parameters]
    return replace(rows, constant=rows.polyhedron(zeros, weight).A)
