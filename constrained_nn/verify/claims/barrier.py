"""Grade `proof`: a safe set that held inputs cannot leave, proved over a cover in ball arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flint import arb

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.arithmetic import Program, parse, precision
from constrained_nn.verify.claim import COMMON
from constrained_nn.verify.cover import Leaf, leaves, points, replace_at
from constrained_nn.verify.enclosures import BITS, Barrier, System, examine, is_inside, is_outside
from constrained_nn.verify.file import decode, decode_one, integer, mapping, sequence, title

KIND, GRADE = "barrier-invariance", "proof"
KEYS = (
    *COMMON, "hold", "floor", "low", "high", "lower", "upper", "periodic", "barriers", "plant", "start",
    "leaves", "worst", "data",
)  # fmt: skip
BARRIER = ("name", "unit", "gains", "value", "curvature")
LABELS = ".+"  # of a leaf: outside of the safe set; to be examined with its witness
STARTS = "="  # of a leaf of the start box: in the safe set
MOST_INPUTS = 10  # every corner of their range is visited
SLOPPY = 1e-6  # a stated margin may be smaller than ours by this relative amount, never larger


@dataclass(frozen=True)
class BarrierAccount:
    """Account of a cover.

    Args:
        boxes: Leaves of the cover.
        examined: Leaves that may meet the safe set, each with a witness.
        row: Least slack of a witness.
        curvature: Least slack of a curvature.
        missing: What is not proved, or None.
    """

    boxes: int
    examined: int
    row: float
    curvature: float
    missing: str | None

    counterexample: None = None  # what is not proved here may still be true

    @property
    def verdict(self) -> str:
        return "holds" if self.missing is None else "inconclusive"

    @property
    def line(self) -> str:
        if self.missing is not None:
            return self.missing
        return (
            f"holds: {self.examined} of {self.boxes} boxes may meet the safe set; least slack {self.row:.3g} in the "
            f"rows, {self.curvature:.3g} in the curvature, in ball arithmetic"
        )


def read_system(claim: dict[str, Any], certificate: dict[str, Any]) -> System:
    """Plant, barriers and limits of a claim.

    Raises:
        FileFormatError: Something does not fit.
    """
    task = certificate["task"]
    n, m = len(task["state"]), len(task["input"])
    if m > MOST_INPUTS:
        raise FileFormatError(f"task.input: expected at most {MOST_INPUTS} inputs, got {m}.")
    if claim["hold"] != task["dt"]:
        raise FileFormatError("hold: expected the step of the task, got another time.")
    hold, floor = decode_one(claim["hold"], "hold"), decode_one(claim["floor"], "floor")
    low, high = (tuple(decode(claim[name], name, m)) for name in ("low", "high"))
    if not all(a <= b for a, b in zip(low, high, strict=True)) or floor < 0 or hold <= 0:
        raise FileFormatError("low, high, floor, hold: expected low <= high, floor >= 0 and hold > 0.")
    barriers = []
    for i, item in enumerate(sequence(claim["barriers"], "barriers")):
        item = mapping(item, BARRIER, f"barriers[{i}]")
        gains = tuple(decode(item["gains"], f"barriers[{i}].gains"))
        if len(gains) not in (1, 2) or min(gains) <= 0:
            raise FileFormatError(f"barriers[{i}].gains: expected one or two positive rates.")
        with precision(BITS):
            if not arb(gains[-1]) * arb(hold) <= 1:
                raise FileFormatError(f"barriers[{i}].gains: expected rate * hold <= 1.")
        title(item["unit"], f"barriers[{i}].unit")
        barriers.append(
            Barrier(
                title(item["name"], f"barriers[{i}].name"),
                parse(item["value"], f"barriers[{i}].value", inputs=n, outputs=1),
                parse(item["curvature"], f"barriers[{i}].curvature", inputs=n, outputs=1 + m),
                gains,
            )
        )
    if not barriers:
        raise FileFormatError("barriers: expected at least one, got none.")
    plant = parse(claim["plant"], "plant", inputs=n + m, outputs=n)
    return System(plant, tuple(barriers), low, high, hold, floor)


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> BarrierAccount:
    """Every box of the cover, every face of the domain, every periodic state.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    system = read_system(claim, certificate)
    names = [name.split()[0] for name in certificate["task"]["state"]]
    n, m = len(names), len(system.low)
    lower, upper = (decode(claim[name], name, n) for name in ("lower", "upper"))
    if not all(a < b for a, b in zip(lower, upper, strict=True)):
        raise FileFormatError("lower, upper: expected lower < upper in every state.")
    periodic = [integer(j, "periodic", most=n - 1) for j in sequence(claim["periodic"], "periodic")]
    for j in periodic:
        if (problem := _refute_period(system, j, lower[j], upper[j])) is not None:
            return BarrierAccount(0, 0, 0.0, 0.0, f"{names[j]} is not periodic: {problem}")
    data = mapping(claim["data"], ("cover", "witness", "start"), "data")
    cover = data["cover"]
    if not isinstance(cover, str):
        raise FileFormatError("data.cover: expected a string.")
    witness = decode(data["witness"], "data.witness", m * cover.count("+"))
    boxes, examined, met = 0, 0, False
    row = curvature = float("inf")
    for leaf in leaves(cover, lower, upper, LABELS, "data.cover"):
        boxes += 1
        place = _name_place(names, leaf)
        if leaf.label == ".":
            if not is_outside(system, leaf.lower, leaf.upper):
                return BarrierAccount(boxes, examined, row, curvature, f"not outside of the set: {place}")
            continue
        found = examine(system, leaf.lower, leaf.upper, witness[m * examined : m * (examined + 1)])
        examined += 1
        row, curvature = min(row, found.row), min(curvature, found.curvature)
        if found.problem is not None:
            missing = f"not proved: {found.problem} for {place}"
            return BarrierAccount(boxes, examined, row, curvature, missing)
        if (face := open_face(system, leaf.lower, leaf.upper, lower, upper, periodic)) is not None:
            missing = f"the set reaches the face {names[face]} of the box: {place}"
            return BarrierAccount(boxes, examined, row, curvature, missing)
        met = met or any(is_inside(system, point, point) for point in points(leaf))
    if not met:  # else nothing would be claimed
        return BarrierAccount(
            boxes, examined, 0.0, 0.0, "not proved: that the safe set is not empty in the box"
        )
    missing = _find_start_outside(system, claim["start"], data["start"], lower, upper, names)
    if missing is not None:
        return BarrierAccount(boxes, examined, row, curvature, missing)
    return BarrierAccount(boxes, examined, row, curvature, None)


def read_start(start: Any, lower: Sequence[float], upper: Sequence[float]) -> Leaf | None:
    """The box of start states of a claim, or None where it names none.

    Raises:
        FileFormatError: It is empty, or not within the domain.
    """
    if start is None:
        return None
    start = mapping(start, ("lower", "upper"), "start")
    low, high = (tuple(decode(start[name], f"start.{name}", len(lower))) for name in ("lower", "upper"))
    if not all(a <= b <= c <= d for a, b, c, d in zip(lower, low, high, upper, strict=True)):
        raise FileFormatError("start: expected lower <= start.lower <= start.upper <= upper in every state.")
    return Leaf("", low, high)


def _find_start_outside(
    system: System, start: Any, tree: Any, lower: list[float], upper: list[float], names: list[str]
) -> str | None:
    """Where the start box is not proved to lie in the safe set, or None."""
    box = read_start(start, lower, upper)
    if not isinstance(tree, str) or (box is None) != (tree == ""):
        raise FileFormatError('data.start: expected the cover of the start box, and "" without one.')
    if box is None:
        return None
    for leaf in leaves(tree, box.lower, box.upper, STARTS, "data.start"):
        if not is_inside(system, leaf.lower, leaf.upper):
            return f"not proved: the safe set contains the start box, at {_name_place(names, leaf)}"
    return None


def _name_place(names: Sequence[str], leaf: Leaf) -> str:
    return ", ".join(
        f"{k} in [{a:.6g}, {b:.6g}]" for k, a, b in zip(names, leaf.lower, leaf.upper, strict=True)
    )


def open_face(
    system: System,
    low: tuple[float, ...],
    high: tuple[float, ...],
    lower: list[float],
    upper: list[float],
    periodic: list[int],
) -> int | None:
    """A state in whose face of the domain this box may have a point of the safe set, or None."""
    for j in range(len(low)):
        if j in periodic:
            continue
        for here, end in ((low[j], lower[j]), (high[j], upper[j])):
            if here == end and not is_outside(system, replace_at(low, j, end), replace_at(high, j, end)):
                return j
    return None


def _refute_period(system: System, j: int, lower: float, upper: float) -> str | None:
    """Why a state is no angle whose whole turn is covered, or None."""
    with precision(BITS):
        if not arb(upper) - arb(lower) >= 2 * arb.pi():
            return "the box is less than a whole turn"
    programs = [system.plant, *(p for b in system.barriers for p in (b.value, b.curvature))]
    return (
        None if all(_enters_by_sine(p, j) for p in programs) else "it enters by more than its sine and cosine"
    )


def _enters_by_sine(program: Program, j: int) -> bool:
    """Whether input `j` is read by sines and cosines only."""
    registers = [[k == j for k in range(program.inputs)]]
    for i in program.code:
        args = [registers[a] for a in i.args]
        if i.op == "take":
            registers.append([args[0][k] for k in i.integers])
        elif i.op == "join":
            registers.append([v for part in args for v in part])
        elif i.op in ("sin", "cos"):
            registers.append([False] * i.size)
        elif any(any(part) for part in args):
            return False
        else:
            registers.append([False] * i.size)
    return not any(registers[-1])


def check_stated(claim: dict[str, Any], found: BarrierAccount) -> None:
    """The stated margins and numbers of boxes must be those of the data.

    Raises:
        FileFormatError: They differ.
    """
    if integer(claim["leaves"], "leaves") != found.boxes:
        raise FileFormatError(f"leaves: the claim says {claim['leaves']}, the cover has {found.boxes}.")
    worst = mapping(claim["worst"], ("row", "curvature"), "worst")
    for name, ours in (("row", found.row), ("curvature", found.curvature)):
        stated = decode_one(worst[name], f"worst.{name}")
        if not ours - SLOPPY * abs(ours) <= stated <= ours:
            raise FileFormatError(f"worst.{name}: the claim says {stated!r}, the data give {ours!r}.")


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    task = certificate["task"]
    names = [name.split()[0] for name in task["state"]]
    box = ", ".join(
        f"{name} in [{a!r}, {b!r}]" + (" and its turns" if i in claim["periodic"] else "")
        for i, (name, a, b) in enumerate(
            zip(names, decode(claim["lower"], "lower"), decode(claim["upper"], "upper"), strict=True)
        )
    )
    limits = ", ".join(
        f"{name.split()[0]} in [{a!r}, {b!r}]"
        for name, a, b in zip(
            task["input"], decode(claim["low"], "low"), decode(claim["high"], "high"), strict=True
        )
    )
    kept = []
    for item in claim["barriers"]:
        gains = decode(item["gains"], "gains")
        word = "h = e" if len(gains) == 1 else f"h = e' + {gains[0]!r} e"
        kept.append(f"{item['name']} ({word}, rate {gains[-1]!r}/s)")
    floor = decode_one(claim["floor"], "floor")
    return (
        f"{task['name']} (version {task['version']}): let S be the states with {box} at which h >= -{floor!r} (and "
        f"e >= -{floor!r}/kappa) for {', '.join(kept)}. From every state of S, every input with {limits} that "
        f"satisfies the rows h' + rate h >= (T/2) m(x, u) to within rate * {floor!r}, held for T = "
        f"{decode_one(claim['hold'], 'hold')!r} s, keeps the solution of the differential equation in S at every time, "
        f"between samples too; and at every state of S such an input exists. So S is never left, whatever is proposed "
        f"to the layer that enforces the rows.{_describe_start(claim['start'], names)}"
    )


def _describe_start(start: Any, names: Sequence[str]) -> str:
    if start is None:
        return ""
    ends = zip(names, decode(start["lower"], "lower"), decode(start["upper"], "upper"), strict=True)
    box = ", ".join(f"{name} in [{a!r}, {b!r}]" for name, a, b in ends)
    return f" S contains every state with {box}: no closed loop that starts there ever leaves S."


ASSUMPTIONS = (
    "The plant equals its model, the recorded program, without disturbance; nothing is assumed of an integrator.",
    "The state is measured exactly, and the input is held from one sample to the next without delay.",
    "The layer returns inputs within their limits that satisfy the rows to within rate * floor; its rounding is not "
    "included here.",
    "Safe means e >= 0 for the recorded functions e.",
)
