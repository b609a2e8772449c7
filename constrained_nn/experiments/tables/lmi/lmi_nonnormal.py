"""Invariant ellipsoids of larger, non-normal systems: the published ones are symmetric and of order 2."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Column, Experiment, Row
from constrained_nn.experiments.tables.lmi import problems as common

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class NonNormal(Experiment):
    """Random proposals, projected; nothing is trained.

    Args:
        count: Systems of each order.
        rivals: Systems that Clarabel gets.
        orders: Orders of the systems.
    """

    count: int = 8
    rivals: int = 2
    orders: tuple[int, ...] = (8, 12, 16, 20)

    name: ClassVar[str] = "lmi-nonnormal"
    title: ClassVar[str] = "LMINet on larger, non-normal systems"
    source: ClassVar[str] = "none; the paper's systems are symmetric and of order 2"
    columns: ClassVar = (
        Column("proved", "proved [%]", ".1f"),
        Column("fallback", "saved by interior [%]", ".1f"),
        Column("steps", "most steps", ".0f"),
        Column("ms", "ours [ms/sample]", ".1f"),
        Column("clarabel_ms", "Clarabel, compiled [ms/sample]", ".1f"),
        Column("distance", "relative distance to Clarabel", ".1e"),
        Column("transient", "median cond of eigenvectors", ".1e"),
    )
    rows: ClassVar = tuple(Row(f"n{n}", f"order {n}", seeded=False) for n in (8, 12, 16, 20))
    notes: ClassVar = (
        "`A` upper triangular: eigenvalues uniform in [−2, −0.5], entries above the diagonal normal with "
        "deviation `2 / √n`; two disturbances. `[[AᵀP + PA + 0.1 P, PB], [BᵀP, −0.1 I]] ⪯ 0`, `P ⪰ 1e-5 I`; "
        "36 to 210 unknowns, blocks of order up to 22; proposals `|·|` of the identity plus noise of size 1. "
        "CPU milliseconds of one thread.",
    )

    def settings(self) -> Mapping[str, Any]:
        return {"count": self.count, "rivals": self.rivals, "orders": list(self.orders), "seed": 5}

    def fast(self) -> Experiment:
        return NonNormal(count=2, rivals=1)

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        import numpy as np
        import torch

        from constrained_nn.layers import LeastViolation, LMINet
        from constrained_nn.linalg import svec
        from constrained_nn.sets import LMI
        from constrained_nn.solvers import FoundBy

        n = int(row.removeprefix("n"))
        generator = torch.Generator().manual_seed(5)
        A, B = self.systems(n, generator)
        set = LMI.invariant_ellipsoid(A, B, multiplier=common.ALPHA, floor=1e-5)
        noise = torch.randn(self.count, n, n, generator=generator, dtype=torch.float64)
        y = svec(0.1 * torch.eye(n, dtype=torch.float64) + (noise + noise.mT) / (2.0 * n**0.5))
        layer = LMINet(on_failure=LeastViolation())
        with torch.no_grad():
            start = time.process_time()
            solution = layer.solve(y, set)
            milliseconds = 1e3 * (time.process_time() - start) / self.count
        proved = set.certified(solution.value) & solution.ok
        values, _, clarabel = common.run_conic(
            lambda: _conic(n),
            tuple(t[: self.rivals].numpy() for t in (A, B, y)),
            "CLARABEL",
            compiled=True,
        )
        apart = np.abs(values - solution.value[: self.rivals].numpy()).max(-1) / (
            1.0 + np.abs(values).max(-1)
        )
        vectors = torch.linalg.eig(A)[1]
        return {
            "proved": 100.0 * proved.double().mean().item(),
            "fallback": 100.0 * (solution.found_by == int(FoundBy.INTERIOR_POINT)).double().mean().item(),
            "steps": float(solution.steps.max()),
            "ms": milliseconds,
            "clarabel_ms": clarabel,
            "distance": float(np.median(apart)),
            "transient": float(torch.linalg.cond(vectors).median()),
        }

    def systems(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """`A` `(count, n, n)` and `B` `(count, n, 2)`."""
        import torch

        above = torch.randn(self.count, n, n, generator=generator, dtype=torch.float64).triu(1)
        values = -0.5 - 1.5 * torch.rand(self.count, n, generator=generator, dtype=torch.float64)
        A = 2.0 / n**0.5 * above + torch.diag_embed(values)
        return A, torch.randn(self.count, n, 2, generator=generator, dtype=torch.float64)


def _conic(n: int) -> common.Conic:
    """The nearest point, in cvxpy."""
    import cvxpy as cp
    import numpy as np

    A, B, y = cp.Parameter((n, n)), cp.Parameter((n, 2)), cp.Parameter(n * (n + 1) // 2)
    P = cp.Variable((n, n), symmetric=True)
    M = cp.bmat([[A.T @ P + P @ A + common.ALPHA * P, P @ B], [B.T @ P, -common.ALPHA * np.eye(2)]])
    i, j = np.triu_indices(n)
    weights = np.where(i == j, 1.0, np.sqrt(2.0))
    pick = np.zeros((len(i), n * n))
    pick[np.arange(len(i)), i * n + j] = weights
    distance = cp.sum_squares(pick @ cp.vec(P, order="C") - y)
    constraints: list[Any] = [0.5 * (M + M.T) << 0, P - 1e-5 * np.eye(n) >> 0]
    return common.Conic(cp.Problem(cp.Minimize(distance), constraints), (A, B, y), (P,))


EXPERIMENT = NonNormal()
