"""Grade `proof`: a safe set that inputs held behind a barrier layer cannot leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from constrained_nn.errors import ConvergenceError, SetTypeError
from constrained_nn.evidence._head import about_task, head
from constrained_nn.evidence._trace import trace, trace_derivative
from constrained_nn.verify import _barrier as claims
from constrained_nn.verify import digest, encode
from constrained_nn.verify._cover import middle
from constrained_nn.verify._held import Box, System, examine, outside

MOST_BOXES = 50_000
SMALLEST = 1e-9  # part of the box under which a piece is given up

Progress = Callable[[float], None]


def certify_barrier(
    task: Any,
    *,
    command: str,
    floor: float = 1e-6,
    most: int = MOST_BOXES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """A certificate that the rows of `SampledBarrier(task.clearances, ...)` make a safe set invariant.

    For every state of the set and whatever a network proposes: inputs that satisfy the rows exist, and keep the
    clearances at every time, between the samples too. The search bisects `task.clearance_box` until the checker's own
    functions agree on every piece.

    Args:
        task: Task with `clearances` and a `clearance_box`.
        command: The command line, kept in the file.
        floor: How far below 0 a barrier may come by rounding.
        most: Boxes after which the search gives up.
        progress: Called with the part of the box that is done.

    Raises:
        SetTypeError: The task has no clearances.
        ConvergenceError: A piece resists, for the reason that is named: the set is not invariant there, or the bound of
            the curvature is too small, or `most` is.
    """
    if not getattr(task, "clearances", ()):
        raise SetTypeError(
            f"certify_barrier: expected a task with clearances, got '{task.name}'. double-integrator and "
            f"kinematic-unicycle have them."
        )
    lower, upper = (np.asarray(v, dtype=float) for v in task.clearance_box)
    claim: dict[str, Any] = {
        "kind": claims.KIND,
        "grade": claims.GRADE,
        "statement": "",
        "assumptions": list(claims.ASSUMPTIONS),
        "verdict": "",
        "hold": encode(task.dt),
        "floor": encode(floor),
        "low": encode(task.input_low.tolist()),
        "high": encode(task.input_high.tolist()),
        "lower": encode(lower.tolist()),
        "upper": encode(upper.tolist()),
        "periodic": [i for i, q in enumerate(task.plant.state) if q.angle],
        "barriers": [
            {
                "name": c.name,
                "unit": c.unit,
                "gains": encode(c.gains),
                "value": trace(c.value, task.plant.state_dim),
                "curvature": trace(c.curvature, task.plant.state_dim),
            }
            for c in task.clearances
        ],
        "plant": trace_derivative(task.plant),
        "leaves": 0,
        "worst": {},
        "data": {},
    }
    certificate = head(
        command=command,
        seed=0,
        task=about_task(task),
        controller={
            "method": "any controller behind the rows of SampledBarrier",
            "dtype": "float64",
            "weights": "none",
            "sha256": "none",
        },
    )
    certificate["claims"].append(claim)
    system = claims.read_system(claim, certificate)
    search = _Search(system, task, most, progress)
    search.box(tuple(lower), tuple(upper), 1.0)
    claim["data"] = {"cover": "".join(search.tree), "witness": encode(np.array(search.witnesses).ravel().tolist())}
    claim["leaves"] = search.leaves
    claim["worst"] = {"row": encode(search.row), "curvature": encode(search.curvature)}
    claim["statement"] = claims.statement(claim, certificate)
    claim["verdict"] = "holds"
    certificate["digest"] = digest(certificate)
    return certificate


class _Search:
    """Bisects until every piece is proved."""

    def __init__(self, system: System, task: Any, most: int, progress: Progress | None) -> None:
        import torch

        from constrained_nn.certificates import SampledBarrier

        self.system, self.most, self.progress = system, most, progress
        low, high = (torch.as_tensor(v, dtype=torch.float64) for v in (task.input_low, task.input_high))
        self.barrier = SampledBarrier(
            task.clearances, task.plant, hold=task.dt, low=low, high=high, floor=system.floor
        )
        lower, upper = (np.asarray(v, dtype=float) for v in task.clearance_box)
        self.scale = upper - lower
        self.tree: list[str] = []
        self.witnesses: list[list[float]] = []
        self.leaves = 0
        self.done = 0.0
        self.row = self.curvature = float("inf")

    def box(self, lower: tuple[float, ...], upper: tuple[float, ...], part: float) -> None:
        if outside(self.system, lower, upper):
            self._leaf(".", part)
            return
        witness = self._witness(lower, upper)
        found = examine(self.system, lower, upper, witness)
        if found.problem is None:
            self.witnesses.append(witness)
            self.row, self.curvature = min(self.row, found.row), min(self.curvature, found.curvature)
            self._leaf("+", part)
            return
        if self.leaves + len(self.tree) > self.most:
            raise ConvergenceError(_gave_up(found, lower, upper))
        axis = int(np.argmax((np.array(upper) - np.array(lower)) / self.scale))
        cut = middle(lower[axis], upper[axis])
        if not lower[axis] < cut < upper[axis] or part < SMALLEST:
            raise ConvergenceError(_gave_up(found, lower, upper))
        self.tree.append(str(axis))
        self.box(lower, (*upper[:axis], cut, *upper[axis + 1 :]), 0.5 * part)
        self.box((*lower[:axis], cut, *lower[axis + 1 :]), upper, 0.5 * part)

    def _leaf(self, label: str, part: float) -> None:
        self.tree.append(label)
        self.leaves += 1
        self.done += part
        if self.progress is not None:
            self.progress(self.done)

    def _witness(self, lower: tuple[float, ...], upper: tuple[float, ...]) -> list[float]:
        """The input with the largest slack in the rows at the center, within its limits."""
        import torch
        from scipy.optimize import linprog

        center = torch.tensor([middle(a, b) for a, b in zip(lower, upper, strict=True)], dtype=torch.float64)
        A, bound = (v.numpy() for v in self.barrier.rows(0.0, center))
        m = A.shape[-1]
        limits = list(zip(self.system.low, self.system.high, strict=True))
        # maximize the slack; among equals the smallest input
        found = linprog(
            [0.0] * m + [-1.0], A_ub=np.c_[A, np.ones(len(A))], b_ub=bound, bounds=[*limits, (None, 1e6)]
        )
        if not found.success:
            return [min(max(0.0, a), b) for a, b in limits]
        return [float(np.clip(v, a, b)) for v, (a, b) in zip(found.x[:m], limits, strict=True)]


def _gave_up(found: Box, lower: tuple[float, ...], upper: tuple[float, ...]) -> str:
    place = ", ".join(f"[{a:.6g}, {b:.6g}]" for a, b in zip(lower, upper, strict=True))
    return (
        f"certify_barrier: expected a proof on every box, got none of {found.problem} on {place}. The set may not be "
        f"invariant there; try a smaller rate, a larger margin of the curvature, or a shorter hold."
    )
