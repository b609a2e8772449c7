"""Grade `proof`: a learned model with its velocity projected onto a row along which a Lyapunov function decreases.

The model is `f = f̂ − ∇V relu(s) / |∇V|²` with `s = ∇V·f̂ + rate V`, so that `∇V·f + rate V = min(s, 0) <= 0` is an
identity wherever `f̂` is finite and `∇V` is not zero. What remains to be proved are these two, and `V >= floor |e|²`
with `e = x − center`, over a box outside of a smaller one; and that the velocities as computed keep the row, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flint import arb

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.arithmetic import (
    ONE,
    ZERO,
    Interpreter,
    Program,
    Vector,
    above,
    apply,
    below,
    enclose,
    interval,
    join,
    maximum,
    parse,
    precision,
)
from constrained_nn.verify.claim import COMMON, Covered
from constrained_nn.verify.claims.rows import tolerance
from constrained_nn.verify.cover import (
    check_boxes,
    check_most,
    describe_box,
    describe_point,
    describe_unproved,
    leaves,
)
from constrained_nn.verify.file import decode, decode_one, integer, mapping, text

KIND, GRADE = "model-decrease", "proof"
KEYS = (
    *COMMON, "rate", "floor", "rtol", "boxes", "states", "states_sha256", "excess", "distance", "data",
)  # fmt: skip
DATA = ("certificate", "raw", "lower", "upper", "center", "hole", "cover", "x", "velocity")
LABELS = ".o?"  # of a leaf: proved; in the hole; open
KINKS = ("abs", "relu", "max", "min")  # V has none, so that its Jacobian is its gradient
BITS, STATE_BITS = 64, 128


@dataclass(frozen=True)
class ModelAccount(Covered):
    """Account of a cover and of recorded velocities.

    Args:
        boxes: Leaves of the cover.
        states: Recorded states.
        excess: Largest `∇V·v + rate V`, relative to `Σ |∂V/∂x_i v_i| + rate V`.
        distance: Largest `|v − f|`, relative to the largest recorded `|f̂|`.
        counterexample: A state whose velocity breaks the row, or None.
        missing: What is not proved, or None.
    """

    boxes: int
    states: int
    excess: float
    distance: float
    counterexample: str | None
    missing: str | None

    @property
    def line(self) -> str:
        return self.missing or (
            f"holds: {self.boxes} boxes; {self.states} computed velocities, largest relative excess {self.excess:.3g}, "
            f"in ball arithmetic"
        )


@dataclass(frozen=True, eq=False)
class Model:
    """`V`, `f̂` along the policy, the box and the hole in it."""

    value: Interpreter
    raw: Interpreter
    rate: float
    floor: float
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    center: list[float]
    hole: list[float]

    def __call__(self, x: Vector) -> Vector:
        """`V` and `V − floor |e|²`."""
        value = self.value(x)
        e = apply("sub", x, Vector.constant(self.center))
        squared = apply("sum", apply("square", e))
        return join(value, apply("sub", value, apply("mul", Vector.constant([self.floor]), squared)))

    def is_hole(self, lower: Sequence[float], upper: Sequence[float]) -> bool:
        """Whether a box is in the hole."""
        ends = zip(lower, upper, self.center, self.hole, strict=True)
        return all(arb(c) - r <= low and high <= arb(c) + r for low, high, c, r in ends)

    def is_proved(self, lower: Sequence[float], upper: Sequence[float]) -> bool:
        """Whether over a box `V >= floor |e|²`, its gradient is nowhere 0, and `f̂` is finite."""
        found = enclose(self, lower, upper)
        gradient = (found.jacobian or [[]])[0]
        raw = self.raw(Vector([interval(a, b) for a, b in zip(lower, upper, strict=True)]))
        return (
            bool(found.values[1] >= 0)
            and all(g.is_finite() for g in gradient)
            and any(g > 0 or g < 0 for g in gradient)
            and all(v.is_finite() for v in raw.values)
        )

    def least_is_in_hole(self) -> bool:
        """Whether `V(center)` is less than `floor |e|²` on the edge of the hole, and so than `V` outside of it."""
        at_center = self.value(Vector.constant(self.center)).values[0]
        return bool(at_center < arb(self.floor) * arb(min(self.hole)) ** 2)


def read_model(claim: dict[str, Any], certificate: dict[str, Any]) -> Model:
    """The model of a claim.

    Raises:
        FileFormatError: Something does not fit.
    """
    n = len(certificate["task"]["state"])
    if not n or len(certificate["task"]["input"]) != n:
        raise FileFormatError("task: expected as many velocities as states.")
    if certificate["controller"]["dtype"] != "float64":
        raise FileFormatError("controller.dtype: expected velocities computed in float64.")
    data = mapping(claim["data"], DATA, "data")
    lower, upper, center, hole = (
        decode(data[k], f"data.{k}", n) for k in ("lower", "upper", "center", "hole")
    )
    if not all(a < c < b for a, c, b in zip(lower, center, upper, strict=True)):
        raise FileFormatError("data.center: expected a point inside the box.")
    rate, floor = decode_one(claim["rate"], "rate"), decode_one(claim["floor"], "floor")
    if not (rate >= 0 and floor > 0 and min(hole) > 0):
        raise FileFormatError("rate, floor, data.hole: expected rate >= 0, and the others positive.")
    value = parse(data["certificate"], "data.certificate", inputs=n, outputs=1)
    _refuse_kinks(value)
    raw = Interpreter(parse(data["raw"], "data.raw", inputs=n, outputs=n))
    return Model(Interpreter(value), raw, rate, floor, tuple(lower), tuple(upper), center, hole)


def _refuse_kinks(program: Program) -> None:
    for i, instruction in enumerate(program.code):
        if instruction.op in KINKS:
            raise FileFormatError(f"data.certificate.code[{i}]: expected a smooth V, got '{instruction.op}'.")


def fingerprint(data: dict[str, Any]) -> str:
    """SHA-256 of the recorded states and velocities."""
    return hashlib.sha256(f"{data['x']}\n{data['velocity']}".encode()).hexdigest()


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> ModelAccount:
    """Every recorded velocity and every leaf of the cover, in balls.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    model, data = read_model(claim, certificate), claim["data"]
    rtol = tolerance(claim, certificate["controller"])
    count = integer(claim["states"], "states", least=1, most=10**6)
    n = len(model.lower)
    x, v = (decode(data[k], f"data.{k}", count * n) for k in ("x", "velocity"))
    with precision(STATE_BITS):
        found = _check_velocities(model, x, v, rtol, certificate)
    if found.counterexample is not None or found.missing is not None:
        return found
    with precision(BITS):
        boxes, missing = _check_cover(model, text(data["cover"], "data.cover"))
    return ModelAccount(boxes, count, found.excess, found.distance, None, missing)


def _check_cover(model: Model, tree: str) -> tuple[int, str | None]:
    boxes = open_ = 0
    missing = None if model.least_is_in_hole() else "V(center) is not below floor |e|^2 around the hole"
    for leaf in leaves(tree, model.lower, model.upper, LABELS, "data.cover"):
        boxes += 1
        open_ += leaf.label == "?"
        test = {".": model.is_proved, "o": model.is_hole}.get(leaf.label)
        if test is not None and missing is None and not test(leaf.lower, leaf.upper):
            missing = describe_unproved(boxes - 1, leaf)
    return boxes, missing or (f"{open_} of {boxes} boxes are open" if open_ else None)


def _check_velocities(
    model: Model, x: list[float], v: list[float], rtol: float, certificate: dict[str, Any]
) -> ModelAccount:
    """The row at each recorded state, for the velocity as computed, and how far that is from the model's."""
    n, count = len(model.lower), len(x) // len(model.lower)
    identity = [[ONE if i == j else ZERO for j in range(n)] for i in range(n)]
    excess = float("-inf")
    distances, size = [], ZERO
    missing = None
    for k in range(count):
        state, computed = x[k * n : (k + 1) * n], [arb(c) for c in v[k * n : (k + 1) * n]]
        inside = all(a <= c <= b for a, c, b in zip(model.lower, state, model.upper, strict=True))
        if not inside or model.is_hole(state, state):
            raise FileFormatError(f"data.x: state {k} is not in the box, or in the hole.")
        found = model.value(Vector([arb(c) for c in state], identity))
        value, gradient = found.values[0], (found.jacobian or identity)[0]
        terms = [g * c for g, c in zip(gradient, computed, strict=True)]
        drift = model.rate * value
        row, scale = sum(terms, drift), sum(map(abs, terms), abs(drift))
        if row - rtol * scale > 0:
            named = describe_point(certificate["task"]["state"], state)
            words = (
                f"state {k}: grad V . v + rate V = {float(row.mid()):.6g}, relative excess "
                f"{float((row / scale).mid()):.3g} above {rtol:g}, at {named}"
            )
            return ModelAccount(0, count, excess, 0.0, words, None)
        if not row - rtol * scale <= 0:
            missing = missing or f"the row of state {k} is not decided"
            continue
        excess = max(excess, above(row / scale))
        raw = model.raw(Vector.constant(state)).values
        exact = _project(raw, value, gradient, model.rate)
        distances.append(_norm([a - b for a, b in zip(computed, exact, strict=True)]))
        size = maximum(size, _least_norm(raw))
    distance = max((above(d / size) for d in distances), default=0.0)
    if not distance <= rtol:
        missing = missing or f"a recorded velocity is not the model's, by {distance:.3g} of the largest"
    return ModelAccount(0, count, excess, distance, None, missing)


def _project(raw: Sequence[arb], value: arb, gradient: Sequence[arb], rate: float) -> list[arb]:
    """`f̂ − ∇V relu(∇V·f̂ + rate V) / |∇V|²`."""
    s = sum((g * r for g, r in zip(gradient, raw, strict=True)), rate * value)
    factor = maximum(s, ZERO) / sum((g * g for g in gradient), ZERO)
    return [r - g * factor for g, r in zip(gradient, raw, strict=True)]


def _norm(v: Sequence[arb]) -> arb:
    """A number that is not below the 2-norm of any vector in the balls."""
    return arb(above(sum((abs(c).upper() ** 2 for c in v), ZERO).sqrt()))


def _least_norm(v: Sequence[arb]) -> arb:
    """A number that is not above the 2-norm of any vector in the balls."""
    return arb(below(sum((c.abs_lower() ** 2 for c in v), ZERO).sqrt()))


def check_stated(claim: dict[str, Any], found: ModelAccount) -> None:
    """Stated counts and digest must be those of the data, the stated maxima not better than ours.

    Raises:
        FileFormatError: They differ.
    """
    check_boxes(claim, found.boxes)
    if text(claim["states_sha256"], "states_sha256") != fingerprint(claim["data"]):
        raise FileFormatError("states_sha256: the recorded states and velocities are others.")
    for name in ("excess", "distance"):
        check_most(claim, name, getattr(found, name), room=decode_one(claim["rtol"], "rtol"))


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    task, data = certificate["task"], claim["data"]
    n = len(task["state"])
    lower, upper, center, hole = (decode(data[k], k, n) for k in ("lower", "upper", "center", "hole"))
    names = [name.split()[0] for name in task["state"]]
    box = describe_box(task["state"], lower, upper)
    inner = ", ".join(f"|{name} - {c!r}| <= {r!r}" for name, c, r in zip(names, center, hole, strict=True))
    rate, floor, rtol, excess, distance = (
        decode_one(claim[name], name) for name in ("rate", "floor", "rtol", "excess", "distance")
    )
    return (
        f"The model {task['name']} (version {task['version']}), f = f^ - grad V relu(grad V . f^ + rate V) / "
        f"|grad V|^2: for every state with {box}, but not in the hole {inner}, f is defined, V >= {floor!r} |x - c|^2 "
        f"with c the center of the hole, and dV/dt = grad V . f <= -{rate!r} V; over the box V is least in the "
        f"hole. At {claim['states']} recorded states (sha256 {text(claim['states_sha256'], 'states_sha256')}) the "
        f"velocity v as computed satisfies grad V . v + rate V <= {rtol!r} (sum |dV/dx_i v_i| + rate V), the "
        f"largest excess is {excess!r}, and v is that of the model within {distance!r} of the largest |f^|."
    )


ASSUMPTIONS = (
    "The recorded programs are V, and the uncorrected model f^ with the policy's input put in.",
    "Over the box the model is that of real arithmetic; rounding when it runs is included at the recorded states only.",
    "The plant is not claimed to equal its model: nothing is said of the system that the model was learned from.",
    "Nothing is claimed in the hole, of inputs other than the policy's, or of a solution that was discretized in time.",
)
