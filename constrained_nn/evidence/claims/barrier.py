"""Grade `proof`: a safe set that inputs held behind a barrier layer cannot leave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.errors import ConvergenceError, FileFormatError, SetTypeError, ShapeError
from constrained_nn.evidence.head import about_task, begin_claim, head
from constrained_nn.evidence.search import Counterexample, Report, barrier_margin, falsify_barrier, quiet
from constrained_nn.evidence.tracing import trace, trace_derivative
from constrained_nn.files import read_values, write_values
from constrained_nn.verify import digest, encode, middle, replaced
from constrained_nn.verify.claims import barrier as claims
from constrained_nn.verify.enclosures import Box, System, examine, inside, outside

MOST_BOXES = 50_000
NARROW = 2e-4  # width of a piece of the start box, as a share of the domain, under which it is given up
SMALLEST = 1e-9  # part of the box under which a piece is given up

BARRIER = "barrier.json"
SEARCHED = 200  # states and proposals from which a counterexample is searched for, before the proof


Start = tuple[Sequence[float], Sequence[float]]  # lower and upper ends of a box of start states


def save_barrier(folder: Path, task: str, start: Start | None = None) -> Path:
    """A note that the clearances of a task are to be proved, for `constrained-nn certify FOLDER`; returns the file.

    Args:
        folder: Where `barrier.json` is written.
        task: Name of a task with clearances.
        start: Box of start states, its lower and upper ends, within the task's `clearance_box`: proved to lie in the
            safe set, so that no closed loop which starts there is ever unsafe.

    Raises:
        SetTypeError: `task` is a task, not the name of one.
        ShapeError: `start` is no box.
    """
    if not isinstance(task, str):
        raise SetTypeError(
            f"save_barrier: expected the name of a task, got {type(task).__name__}; `certify` makes the task again "
            "from its name. Pass task.name."
        )
    ends = None
    if start is not None:
        low, high = (np.asarray(end, dtype=float) for end in start)
        if low.ndim != 1 or low.shape != high.shape or not (low <= high).all():
            raise ShapeError(
                f"save_barrier: expected start as (lower, upper) with lower <= upper in every state, got "
                f"{low.tolist()} and {high.tolist()}."
            )
        ends = [low.tolist(), high.tolist()]
    return write_values(Path(folder) / BARRIER, {"task": task, "start": ends})


def certify_barrier_record(path: Path, *, command: str, seconds: float, report: Report) -> dict[str, Any]:
    """The certificate of a file that `save_barrier` wrote.

    Raises:
        FileFormatError: The file is missing or damaged.
        ConvergenceError: A counterexample was found, or the search for a proof did not end.
    """
    task, start = _load(path)
    return certify_barrier(task, command=command, start=start, seconds=seconds, report=report)


def _load(path: Path) -> tuple[Any, Start | None]:
    from control_envs.tasks import make_task

    try:
        record = read_values(path)
        start = record.get("start")
        if start is not None:
            low, high = (np.asarray(end, dtype=float) for end in start)
            start = low.tolist(), high.tolist()
        return make_task(str(record["task"])), start
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path}: expected the name of a task and perhaps a start box, got {error!r}. Save it again."
        ) from None


def repeat_barrier(path: Path, numbers: list[float]) -> list[str]:
    """What becomes of a state and a proposal that are held behind the rows of the task in a file, in lines.

    Raises:
        FileFormatError: The file is missing or damaged.
        ShapeError: `numbers` are not a state and a proposal.
    """
    import torch

    task, _ = _load(path)
    plant, n = task.plant, task.plant.state_dim
    if len(numbers) != n + plant.input_dim:
        names = [q.name for q in (*plant.state, *plant.input)]
        raise ShapeError(f"--start: expected {len(names)} numbers ({', '.join(names)}), got {len(numbers)}.")
    worst = float(barrier_margin(task)[0](torch.tensor([numbers], dtype=torch.float64)))
    lines = [f"from {numbers[:n]} with the proposal {numbers[n:]}, held for {task.clearance_hold!r} s"]
    if worst == float("inf"):
        return [*lines, "the state is not in the set: nothing is claimed of it"]
    lines.append(f"smallest h along the hold = {worst:.6g}")
    return [*lines, "counterexample: the set is left" if not worst >= 0 else "the set is kept"]


def certify_barrier(
    task: Any,
    *,
    command: str,
    start: Start | None = None,
    floor: float = 1e-6,
    most: int = MOST_BOXES,
    seconds: float = 600.0,
    report: Report = quiet,
) -> dict[str, Any]:
    """A certificate that the rows of `SampledBarrier(task.clearances, ...)` make a safe set invariant.

    For every state of the set and whatever a network proposes: inputs that satisfy the rows exist, and keep the
    clearances at every time, between the samples too. The search bisects `task.clearance_box` until the checker's own
    functions agree on every piece.

    Args:
        task: Task with `clearances`, a `clearance_hold` and a `clearance_box`.
        command: The command line, kept in the file.
        start: Lower and upper ends of a box of start states that the safe set is to contain: then no closed loop that
            starts there is ever unsafe.
        floor: How far below 0 a barrier may come by rounding.
        most: Boxes after which the search gives up.
        seconds: Time after which it gives up.
        report: Called with the share of the box that is done, and the numbers of boxes and of open ones.

    Raises:
        SetTypeError: The task has no clearances.
        ShapeError: `start` is no box within `task.clearance_box`.
        Counterexample: A search by gradient steps finds one, which ends the matter.
        ConvergenceError: A piece resists, for the reason that is named, or `most` boxes or the time do not suffice.
    """
    if not getattr(task, "clearances", ()):
        raise SetTypeError(
            f"certify_barrier: expected a task with clearances, got '{task.name}'. double-integrator and "
            f"kinematic-unicycle have them."
        )
    lower, upper = (np.asarray(v, dtype=float) for v in task.clearance_box)
    box = None if start is None else _checked_start(start, lower, upper)
    worst = falsify_barrier(task, count=SEARCHED, seed=0)
    if worst.is_counterexample:
        n = task.plant.state_dim
        raise Counterexample(
            f"certify_barrier: expected a set that is kept, got a counterexample: from the state "
            f"{worst.state[:n].tolist()} with the proposal {worst.state[n:].tolist()} a barrier falls to "
            f"{worst.margin:.6g}. Enlarge the margin of the curvature, or hold for a shorter time.",
            worst.state.tolist(),
        )
    claim: dict[str, Any] = {
        **begin_claim(claims),
        "hold": encode(task.clearance_hold),
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
        "start": None if box is None else {"lower": encode(box[0]), "upper": encode(box[1])},
        "leaves": 0,
        "worst": {},
        "data": {},
    }
    certificate = head(
        command=command,
        seed=0,
        task=about_task(task) | {"dt": encode(task.clearance_hold)},
        controller={
            "method": "any controller behind the rows of SampledBarrier",
            "dtype": "float64",
            "weights": "none",
            "sha256": "none",
        },
    )
    certificate["claims"].append(claim)
    system = claims.read_system(claim, certificate)
    search = _Search(system, task, most, seconds, report)
    starts = "" if box is None else search.start(*box)
    search.box(tuple(lower), tuple(upper), 1.0)
    claim["data"] = {
        "cover": "".join(search.tree),
        "witness": encode(np.array(search.witnesses).ravel().tolist()),
        "start": starts,
    }
    claim["leaves"] = search.leaves
    claim["worst"] = {"row": encode(search.row), "curvature": encode(search.curvature)}
    claim["statement"] = claims.statement(claim, certificate)
    claim["verdict"] = "holds"
    certificate["digest"] = digest(certificate)
    return certificate


def _checked_start(start: Start, lower: np.ndarray, upper: np.ndarray) -> tuple[list[float], list[float]]:
    low, high = (np.asarray(end, dtype=float) for end in start)
    if (
        low.shape != lower.shape
        or high.shape != upper.shape
        or not ((lower <= low) & (low <= high) & (high <= upper)).all()
    ):
        raise ShapeError(
            f"certify_barrier: expected start as a box of {len(lower)} states within {lower.tolist()} to "
            f"{upper.tolist()}, got {low.tolist()} to {high.tolist()}."
        )
    return low.tolist(), high.tolist()


class _Search:
    """Bisects until every piece is proved."""

    def __init__(self, system: System, task: Any, most: int, seconds: float, report: Report) -> None:
        import torch

        from constrained_nn.certificates import SampledBarrier

        self.system, self.task, self.most, self.report = system, task, most, report
        self.deadline = time.monotonic() + seconds
        low, high = (torch.as_tensor(v, dtype=torch.float64) for v in (task.input_low, task.input_high))
        self.barrier = SampledBarrier(
            task.clearances, task.plant, hold=task.clearance_hold, low=low, high=high, floor=system.floor
        )
        lower, upper = (np.asarray(v, dtype=float) for v in task.clearance_box)
        self.scale = upper - lower
        self.ends = lower.tolist(), upper.tolist()
        self.periodic = [i for i, q in enumerate(task.plant.state) if q.angle]
        self.tree: list[str] = []
        self.witnesses: list[list[float]] = []
        self.leaves = 0
        self.done = 0.0
        self.row = self.curvature = float("inf")

    def box(self, lower: tuple[float, ...], upper: tuple[float, ...], part: float) -> None:
        if outside(self.system, lower, upper):
            self._leaf(".", part)
            return
        witness, found = self._best(lower, upper)
        faces = claims.open_face(self.system, lower, upper, *self.ends, self.periodic)
        if found.problem is None and faces is None:
            self.witnesses.append(witness)
            self.row, self.curvature = min(self.row, found.row), min(self.curvature, found.curvature)
            self._leaf("+", part)
            return
        if self.leaves + len(self.tree) > self.most or time.monotonic() > self.deadline:
            raise ConvergenceError(_gave_up(found, lower, upper))
        axis = int(np.argmax((np.array(upper) - np.array(lower)) / self.scale))
        cut = middle(lower[axis], upper[axis])
        if not lower[axis] < cut < upper[axis] or part < SMALLEST:
            raise ConvergenceError(_gave_up(found, lower, upper))
        self.tree.append(str(axis))
        self.box(lower, replaced(upper, axis, cut), 0.5 * part)
        self.box(replaced(lower, axis, cut), upper, 0.5 * part)

    def start(self, lower: Sequence[float], upper: Sequence[float]) -> str:
        """Cover of a box of start states by pieces that lie in the safe set."""
        if inside(self.system, lower, upper):
            return claims.STARTS
        place = ", ".join(f"[{a:.6g}, {b:.6g}]" for a, b in zip(lower, upper, strict=True))
        if outside(self.system, lower, upper):
            raise ConvergenceError(
                f"certify_barrier: expected start states in the safe set, got some outside: {place}."
            )
        axis = int(np.argmax((np.array(upper) - np.array(lower)) / self.scale))
        cut = middle(lower[axis], upper[axis])
        width = (upper[axis] - lower[axis]) / self.scale[axis]
        if width < NARROW or not lower[axis] < cut < upper[axis] or time.monotonic() > self.deadline:
            raise ConvergenceError(
                f"certify_barrier: expected start states in the safe set, got a piece on its edge or beyond: {place}. "
                f"Take a smaller start box."
            )
        halves = ((lower, replaced(upper, axis, cut)), (replaced(lower, axis, cut), upper))
        return str(axis) + "".join(self.start(*half) for half in halves)

    def _leaf(self, label: str, part: float) -> None:
        self.tree.append(label)
        self.leaves += 1
        self.done += part
        self.report(self.done, self.leaves, 0)

    def _best(self, lower: tuple[float, ...], upper: tuple[float, ...]) -> tuple[list[float], Box]:
        """The input of last resort, or the one with the most room, whichever is proved."""
        center = np.array([middle(a, b) for a, b in zip(lower, upper, strict=True)])
        witness = [float(v) for v in np.clip(self.task.brake(0.0, center), self.system.low, self.system.high)]
        found = examine(self.system, lower, upper, witness)
        if found.problem is not None and found.curvature <= -1.0:  # the row failed: another input may do
            witness = self._witness(lower, upper)
            found = examine(self.system, lower, upper, witness)
        return witness, found

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
    what = found.problem or "a face of the box"
    return (
        f"certify_barrier: expected a proof on every box, got none of {what} on {place}. The set may not be invariant "
        f"there; try a smaller rate, a larger margin of the curvature, or a shorter hold."
    )
