"""Grade `proof`: a safe set that inputs held behind a barrier layer cannot leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.errors import ConvergenceError, FileFormatError, SetTypeError, ShapeError
from constrained_nn.evidence.head import begin_claim, describe_task, head
from constrained_nn.evidence.search import (
    OPEN,
    Counterexample,
    Cover,
    Examination,
    Examiner,
    Report,
    barrier_margin,
    cover,
    falsify_barrier,
    quiet,
)
from constrained_nn.evidence.tracing import trace, trace_derivative
from constrained_nn.files import read_values, write_values
from constrained_nn.verify import digest, encode, middle
from constrained_nn.verify.claims import barrier as claims
from constrained_nn.verify.enclosures import BITS, Slack, System, examine, is_inside, is_outside

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


def certify_barrier_record(
    path: Path, *, command: str, seconds: float = 300.0, jobs: int = 1, report: Report = quiet
) -> dict[str, Any]:
    """The certificate of a file that `save_barrier` wrote.

    Raises:
        FileFormatError: The file is missing or damaged.
        ConvergenceError: A counterexample was found, or the search for a proof did not end.
    """
    task, start = _load(path)
    return certify_barrier(task, command=command, start=start, seconds=seconds, jobs=jobs, report=report)


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
    jobs: int = 1,
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
        jobs: Processes.
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
    box = None if start is None else _check_start(start, lower, upper)
    _refute(task)
    claim = _begin(task, floor, box)
    certificate = head(
        command=command,
        seed=0,
        task=describe_task(task) | {"dt": encode(task.clearance_hold)},
        controller={
            "method": "any controller behind the rows of SampledBarrier",
            "dtype": "float64",
            "weights": "none",
            "sha256": "none",
        },
    )
    certificate["claims"].append(claim)
    system = claims.read_system(claim, certificate)
    _prove(claim, system, task, box, seconds=seconds, jobs=jobs, most=most, report=report)
    claim["statement"] = claims.statement(claim, certificate)
    claim["verdict"] = "holds"
    certificate["digest"] = digest(certificate)
    return certificate


def _begin(task: Any, floor: float, box: tuple[list[float], list[float]] | None) -> dict[str, Any]:
    """The claim, before anything is searched."""
    n = task.plant.state_dim
    lower, upper = (np.asarray(v, dtype=float) for v in task.clearance_box)
    return {
        **begin_claim(claims),
        "hold": encode(task.clearance_hold),
        "floor": encode(floor),
        "low": encode(task.input_low.tolist()),
        "high": encode(task.input_high.tolist()),
        "lower": encode(lower.tolist()),
        "upper": encode(upper.tolist()),
        "periodic": _find_angles(task),
        "barriers": [
            {
                "name": c.name,
                "unit": c.unit,
                "gains": encode(c.gains),
                "value": trace(c.value, n),
                "curvature": trace(c.curvature, n),
            }
            for c in task.clearances
        ],
        "plant": trace_derivative(task.plant),
        "start": None if box is None else {"lower": encode(box[0]), "upper": encode(box[1])},
        "leaves": 0,
        "worst": {},
        "data": {},
    }


def _refute(task: Any) -> None:
    """A search by gradient steps; what it finds ends the matter."""
    worst = falsify_barrier(task, count=SEARCHED, seed=0)
    if worst.is_counterexample:
        n = task.plant.state_dim
        raise Counterexample(
            f"certify_barrier: expected a set that is kept, got a counterexample: from the state "
            f"{worst.state[:n].tolist()} with the proposal {worst.state[n:].tolist()} a barrier falls to "
            f"{worst.margin:.6g}. Enlarge the margin of the curvature, or hold for a shorter time.",
            worst.state.tolist(),
        )


def _prove(
    claim: dict[str, Any],
    system: System,
    task: Any,
    box: tuple[list[float], list[float]] | None,
    *,
    seconds: float,
    jobs: int,
    most: int,
    report: Report,
) -> None:
    """Put the covers, the witnesses and the margins into a claim."""
    deadline = time.monotonic() + seconds
    lower, upper = (np.asarray(v, dtype=float) for v in task.clearance_box)
    starts = "" if box is None else cover_start(system, task, *box, seconds=seconds, most=most)
    found = cover(
        _make_examiner,
        (system, task),
        lower.tolist(),
        upper.tolist(),
        seconds=deadline - time.monotonic(),
        jobs=jobs,
        most=most,
        smallest=SMALLEST,
        bits=BITS,
        stop_when_open=True,
        report=report,
    )
    _require_whole(found, seconds, most)
    witnesses, rows, curvatures = zip(*found.notes, strict=True) if found.notes else ((), (), ())
    claim["data"] = {
        "cover": found.tree,
        "witness": encode([v for witness in witnesses for v in witness]),
        "start": starts,
    }
    claim["leaves"] = found.boxes
    infinity = float("inf")
    claim["worst"] = {
        "row": encode(min(rows, default=infinity)),
        "curvature": encode(min(curvatures, default=infinity)),
    }


def _find_angles(task: Any) -> list[int]:
    return [i for i, q in enumerate(task.plant.state) if q.angle]


def _check_start(start: Start, lower: np.ndarray, upper: np.ndarray) -> tuple[list[float], list[float]]:
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


def _measure(task: Any) -> np.ndarray:
    """Widths of the domain, in which those of a box are compared `(n,)`."""
    lower, upper = (np.asarray(v, dtype=float) for v in task.clearance_box)
    return upper - lower


def _make_examiner(system: System, task: Any) -> Examiner:
    """Settles a box as the checker does; the note is the witness and both slacks, or what is not proved."""
    scale, angles = _measure(task), _find_angles(task)
    lower, upper = (np.asarray(v, dtype=float).tolist() for v in task.clearance_box)
    choose = _make_witness(system, task)

    def examine_box(low: Sequence[float], high: Sequence[float]) -> Examination:
        if is_outside(system, low, high):
            return Examination(".")
        witness, found = choose(low, high)
        face = claims.open_face(system, tuple(low), tuple(high), lower, upper, angles)
        if found.problem is None and face is None:
            return Examination("+", note=(witness, found.row, found.curvature))
        problem = f"{found.problem or 'a face of the box'} on {_name_place(low, high)}"
        return Examination(None, int(np.argmax(np.subtract(high, low) / scale)), problem)

    return examine_box


def _make_witness(
    system: System, task: Any
) -> Callable[[Sequence[float], Sequence[float]], tuple[list[float], Slack]]:
    """Chooses the input of last resort for a box, or the one with the most room, whichever is proved."""
    import torch
    from scipy.optimize import linprog

    from constrained_nn.certificates import SampledBarrier

    limits = list(zip(system.low, system.high, strict=True))
    low, high = (torch.as_tensor(v, dtype=torch.float64) for v in (task.input_low, task.input_high))
    barrier = SampledBarrier(
        task.clearances, task.plant, hold=task.clearance_hold, low=low, high=high, floor=system.floor
    )

    def find_slackest(center: np.ndarray) -> list[float]:
        """The input with the largest slack in the rows, within its limits; among equals the smallest."""
        A, bound = (v.numpy() for v in barrier.rows(0.0, torch.from_numpy(center)))
        m = A.shape[-1]
        found = linprog(
            [0.0] * m + [-1.0],
            A_ub=np.c_[A, np.ones(len(A))],
            b_ub=bound,
            bounds=[*limits, (None, 1e6)],
        )
        if not found.success:
            return [min(max(0.0, a), b) for a, b in limits]
        return [float(np.clip(v, a, b)) for v, (a, b) in zip(found.x[:m], limits, strict=True)]

    def choose(lower: Sequence[float], upper: Sequence[float]) -> tuple[list[float], Slack]:
        center = np.array([middle(a, b) for a, b in zip(lower, upper, strict=True)])
        witness = [float(v) for v in np.clip(task.brake(0.0, center), system.low, system.high)]
        found = examine(system, lower, upper, witness)
        if found.problem is not None and found.curvature <= -1.0:  # the row failed: another input may do
            witness = find_slackest(center)
            found = examine(system, lower, upper, witness)
        return witness, found

    return choose


def _require_whole(found: Cover, seconds: float, most: int) -> None:
    """Raises `ConvergenceError` where a box is open."""
    if not found.open:
        return
    problem = next((note for note in found.notes if isinstance(note, str)), None)
    if problem is None:
        raise ConvergenceError(
            f"certify_barrier: expected a proof on every box, got none yet on a share of {found.share:.3g} after "
            f"{found.boxes - found.open} boxes; the limits are {seconds:g} s and {most} boxes. Raise them."
        )
    raise ConvergenceError(
        f"certify_barrier: expected a proof on every box, got none of {problem}. The set may not be invariant "
        f"there; try a smaller rate, a larger margin of the curvature, or a shorter hold."
    )


def cover_start(
    system: System,
    task: Any,
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    seconds: float = 300.0,
    most: int = MOST_BOXES,
) -> str:
    """The tree of a box of start states, every leaf of which lies in the safe set.

    Raises:
        ConvergenceError: A part of it is outside, or not proved to be inside.
    """
    found = cover(
        _make_start_examiner,
        (system, task),
        lower,
        upper,
        seconds=seconds,
        most=most,
        smallest=0.0,
        bits=BITS,
        stop_when_open=True,
    )
    if not found.open:
        return found.tree
    raise ConvergenceError(
        f"certify_barrier: expected start states in the safe set, got "
        f"{found.notes[0] if found.notes else 'no decision in time'}."
    )


def _make_start_examiner(system: System, task: Any) -> Examiner:
    scale = _measure(task)

    def examine_start(lower: Sequence[float], upper: Sequence[float]) -> Examination:
        if is_inside(system, lower, upper):
            return Examination(claims.STARTS)
        place = _name_place(lower, upper)
        if is_outside(system, lower, upper):
            return Examination(OPEN, note=f"some outside: {place}")
        widths = np.subtract(upper, lower) / scale
        on_edge = f"a piece on its edge or beyond: {place}. Take a smaller start box"
        return Examination(OPEN if widths.max() < NARROW else None, int(np.argmax(widths)), on_edge)

    return examine_start


def _name_place(lower: Sequence[float], upper: Sequence[float]) -> str:
    return ", ".join(f"[{a:.6g}, {b:.6g}]" for a, b in zip(lower, upper, strict=True))
