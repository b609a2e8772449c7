"""Grade `proof`: the outputs of a network lie in a polyhedron, for every context of a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.arithmetic import Interpreter, Vector, above, enclose, linear, parse, precision
from constrained_nn.verify.claim import COMMON, Covered
from constrained_nn.verify.cover import (
    check_boxes,
    check_most,
    describe_box,
    describe_point,
    describe_unproved,
    leaves,
)
from constrained_nn.verify.file import decode, decode_one, integer, mapping, text

KIND, GRADE = "output-set", "proof"
KEYS = (*COMMON, "rows", "boxes", "worst", "data")
DATA = ("network", "lower", "upper", "A", "bound", "cover", "point")
LABELS = ".?"  # of a leaf: every row holds; open
BITS = 64


@dataclass(frozen=True)
class OutputsAccount(Covered):
    """Account of a cover.

    Args:
        boxes: Its leaves.
        open: Leaves that are not settled.
        excess: Largest bound of `A y − bound` over all rows and contexts.
        counterexample: A context whose output is outside, or None.
        missing: What is not proved, or None.
    """

    boxes: int
    open: int
    excess: float
    counterexample: str | None
    missing: str | None

    @property
    def line(self) -> str:
        return (
            self.missing
            or f"holds: {self.boxes} boxes, largest A y - bound {self.excess:.3g}, in ball arithmetic"
        )


@dataclass(frozen=True, eq=False)
class OutputRows:
    """`A y − bound` as a function of the context, and its box."""

    network: Interpreter
    A: list[list[float]]
    bound: list[float]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __call__(self, x: Vector) -> Vector:
        return linear(self.A, [-b for b in self.bound], self.network(x))

    def excess(self, lower: Sequence[float], upper: Sequence[float]) -> tuple[float, Vector]:
        """An upper bound over a box of contexts, and the enclosure of all rows."""
        found = enclose(self, lower, upper)
        return max(above(v) for v in found.values), found


def read_rows(claim: dict[str, Any], certificate: dict[str, Any]) -> OutputRows:
    """The rows of a claim.

    Raises:
        FileFormatError: Something does not fit.
    """
    task = certificate["task"]
    n, m = len(task["state"]), len(task["input"])
    if not n or not m:
        raise FileFormatError("task: expected a context and an output.")
    data = mapping(claim["data"], DATA, "data")
    rows = integer(claim["rows"], "rows", least=1, most=10**5)
    A, bound = decode(data["A"], "data.A", rows * m), decode(data["bound"], "data.bound", rows)
    if not any(A):
        raise FileFormatError(
            "data.A: expected a row that constrains an output, got zeros. Nothing is claimed."
        )
    lower, upper = (tuple(decode(data[k], f"data.{k}", n)) for k in ("lower", "upper"))
    if not all(a <= b for a, b in zip(lower, upper, strict=True)):
        raise FileFormatError("data.lower: expected no more than data.upper.")
    network = Interpreter(parse(data["network"], "data.network", inputs=n, outputs=m))
    return OutputRows(network, [A[i * m : (i + 1) * m] for i in range(rows)], bound, lower, upper)


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> OutputsAccount:
    """Every row over every leaf of the cover, in balls.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    rows, data = read_rows(claim, certificate), claim["data"]
    with precision(BITS):
        if data["point"] != "":
            return _at_point(rows, decode(data["point"], "data.point", len(rows.lower)), certificate)
        boxes = open_ = 0
        worst, missing = float("-inf"), None
        for leaf in leaves(text(data["cover"], "data.cover"), rows.lower, rows.upper, LABELS, "data.cover"):
            boxes += 1
            if leaf.label == "?":
                open_ += 1
                continue
            excess, _ = rows.excess(leaf.lower, leaf.upper)
            if not excess <= 0:
                missing = describe_unproved(boxes - 1, leaf)
                break
            worst = max(worst, excess)
    if open_:
        missing = missing or f"{open_} of {boxes} boxes are open"
    return OutputsAccount(boxes, open_, worst, None, missing)


def _at_point(rows: OutputRows, x: list[float], certificate: dict[str, Any]) -> OutputsAccount:
    values = rows(Vector.constant(x)).values
    inside = all(a <= v <= b for a, v, b in zip(rows.lower, x, rows.upper, strict=True))
    broken = [i for i, v in enumerate(values) if v > 0]
    if not inside or not broken:
        raise FileFormatError("data.point: its output satisfies every row, or it is not in the box.")
    row = max(broken, key=lambda i: float(values[i].mid()))
    named = describe_point(certificate["task"]["state"], x)
    words = f"row {row}: A y - bound = {float(values[row].mid()):.6g}, from {named}"
    return OutputsAccount(0, 0, above(values[row]), words, None)


def check_stated(claim: dict[str, Any], found: OutputsAccount) -> None:
    """The stated number of boxes must be that of the cover, the worst excess not better than ours.

    Raises:
        FileFormatError: They differ.
    """
    check_boxes(claim, found.boxes)
    check_most(claim, "worst", found.excess)


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    task, data = certificate["task"], claim["data"]
    n, m = len(task["state"]), len(task["input"])
    box = describe_box(task["state"], *(decode(data[k], k, n) for k in ("lower", "upper")))
    return (
        f"For every context of {task['name']} (version {task['version']}) with {box}, the {m} outputs y satisfy "
        f"A y <= bound, {claim['rows']} rows, with A y - bound at most {decode_one(claim['worst'], 'worst')!r}."
    )


ASSUMPTIONS = (
    "The recorded program is the network with its layers, and A and bound are the rows that are meant.",
    "The network is that of real arithmetic with the recorded weights; rounding when it runs is not included.",
)
