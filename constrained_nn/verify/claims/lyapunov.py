"""Grade `proof`: a Lyapunov function decreases on a sublevel set, and an LMI closes the ball around the equilibrium."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flint import arb, arb_mat

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.arithmetic import Interpreter, Map, parse, precision
from constrained_nn.verify.claim import COMMON, Covered
from constrained_nn.verify.cover import (
    MOST_AXES,
    check_boxes,
    check_most,
    describe_box,
    describe_point,
    describe_unproved,
    leaves,
    points,
)
from constrained_nn.verify.enclosures import LABELS, InnerEllipsoid, Loop, positive_definite, quadratic
from constrained_nn.verify.file import decode, decode_one, mapping, text

KIND, GRADE = "lyapunov-decrease", "proof"
KEYS = (*COMMON, "motion", "hold", "level", "margin", "radius", "factor", "boxes", "worst", "data")
DATA = ("plant", "controller", "value", "lower", "upper", "center", "P", "cover", "point")
MOTIONS = ("step", "held", "continuous")
BITS = 64


@dataclass(frozen=True)
class DecreaseAccount(Covered):
    """Account of a cover.

    Args:
        boxes: Its leaves.
        proved: Leaves by label: outside of the sublevel set, in the inner ellipsoid, decrease.
        change: Largest bound of the change of `V` over the leaves with decrease.
        counterexample: A state where `V` does not decrease, or None.
        missing: What is not proved, or None.
    """

    boxes: int
    proved: dict[str, int]
    change: float
    counterexample: str | None
    missing: str | None

    @property
    def line(self) -> str:
        if self.missing is not None:
            return self.missing
        return (
            f"holds: {self.boxes} boxes ({self.proved['d']} with decrease, {self.proved['o']} outside of the sublevel "
            f"set, {self.proved['i']} in the inner ellipsoid), worst change of V {self.change:.3g}, in ball arithmetic"
        )


def read_loop(claim: dict[str, Any], certificate: dict[str, Any]) -> Loop:
    """The closed loop of a claim.

    Raises:
        FileFormatError: Something does not fit.
    """
    task = certificate["task"]
    n, m = len(task["state"]), len(task["input"])
    if not n or not m:
        raise FileFormatError("task: expected a state and an input.")
    if n > MOST_AXES:
        raise FileFormatError(f"task.state: expected at most {MOST_AXES} states, got {n}.")
    motion = text(claim["motion"], "motion")
    if motion not in MOTIONS:
        raise FileFormatError(f"motion: expected one of {', '.join(MOTIONS)}, got {motion!a}.")
    if claim["hold"] != ("" if motion == "continuous" else task["dt"]):
        raise FileFormatError("hold: expected the step of the task, and '' for continuous motion.")
    hold = 0.0 if motion == "continuous" else decode_one(claim["hold"], "hold")
    level, margin, radius, factor = (
        decode_one(claim[name], name) for name in ("level", "margin", "radius", "factor")
    )
    if not (margin > 0 and radius > 0 and factor > 0 and (motion == "continuous" or factor < 1)):
        raise FileFormatError(
            "margin, radius, factor: expected positive numbers, and a factor below 1 of a step."
        )
    data = mapping(claim["data"], DATA, "data")
    lower, upper, center = (tuple(decode(data[k], f"data.{k}", n)) for k in ("lower", "upper", "center"))
    if not all(a < b for a, b in zip(lower, upper, strict=True)):
        raise FileFormatError("data.lower: expected less than data.upper.")
    value, gradient = _value(data["value"], n)
    if motion == "continuous" and gradient is None:
        raise FileFormatError("data.value: continuous motion needs a quadratic function.")
    return Loop(
        Interpreter(parse(data["plant"], "data.plant", inputs=n + m, outputs=n)),
        Interpreter(parse(data["controller"], "data.controller", inputs=n, outputs=m)),
        value,
        gradient,
        motion,
        hold,
        level,
        margin,
        lower,
        upper,
        InnerEllipsoid(_matrix(data["P"], "data.P", n), center, radius),
        factor,
    )


def _matrix(value: Any, where: str, n: int) -> arb_mat:
    P = decode(value, where, n * n)
    if any(P[i * n + j] != P[j * n + i] for i in range(n) for j in range(i)):
        raise FileFormatError(f"{where}: expected a symmetric matrix.")
    return arb_mat(n, n, [arb(v) for v in P])


def _value(value: Any, n: int) -> tuple[Map, Map | None]:
    """`V`: a program, or a quadratic form `{"P", "center"}`, then with its gradient."""
    if "P" not in mapping(value, None, "data.value"):
        return Interpreter(parse(value, "data.value", inputs=n, outputs=1)), None
    mapping(value, ("P", "center"), "data.value")
    P = _matrix(value["P"], "data.value.P", n)
    with precision(BITS):
        if not positive_definite(P):
            raise FileFormatError("data.value.P: expected a positive definite matrix.")
        return quadratic(P, decode(value["center"], "data.value.center", n))


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> DecreaseAccount:
    """Every leaf of the cover and the inner ellipsoid, in balls.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    loop = read_loop(claim, certificate)
    data = claim["data"]
    cover = text(data["cover"], "data.cover")
    counts = dict.fromkeys(LABELS, 0)
    with precision(BITS):
        if data["point"] != "":
            return _at_point(loop, data["point"], certificate)
        missing = loop.closes()
        worst, volume, met = float("-inf"), 0.0, False
        for leaf in leaves(cover, loop.lower, loop.upper, LABELS, "data.cover"):
            counts[leaf.label] += 1
            if leaf.label == "?":
                volume += _share(leaf.lower, leaf.upper, loop)
                continue
            bound = loop.proves(leaf.label, leaf.lower, leaf.upper)
            if bound is None:
                missing = missing or describe_unproved(sum(counts.values()) - 1, leaf)
                break
            worst = max(worst, bound)
            met = met or (leaf.label == "d" and any(map(loop.is_about, points(leaf))))
    if counts["?"]:
        missing = missing or f"{counts['?']} boxes are open, {volume:.3g} of the domain"
    if not met:  # else nothing would be claimed
        missing = missing or "not proved: that a state with decrease has V <= level and is outside of E"
    return DecreaseAccount(sum(counts.values()), counts, worst, None, missing)


def _share(lower: Sequence[float], upper: Sequence[float], loop: Loop) -> float:
    share = 1.0
    for a, b, low, high in zip(lower, upper, loop.lower, loop.upper, strict=True):
        share *= (b - a) / (high - low)
    return share


def _at_point(loop: Loop, value: Any, certificate: dict[str, Any]) -> DecreaseAccount:
    x = decode(value, "data.point", len(loop.lower))
    change = loop.fails_at(x)
    if change is None:
        raise FileFormatError("data.point: V decreases there, or it is not in the set of the claim.")
    named = describe_point(certificate["task"]["state"], x)
    words = f"V changes by {float(change.mid()):.6g}, above {-loop.margin:.3g}, from {named}"
    return DecreaseAccount(0, dict.fromkeys(LABELS, 0), 0.0, words, None)


def check_stated(claim: dict[str, Any], found: DecreaseAccount) -> None:
    """The stated number of boxes must be that of the cover, the worst change not better than ours.

    Raises:
        FileFormatError: They differ.
    """
    check_boxes(claim, found.boxes)
    check_most(claim, "worst", found.change)


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    task, data = certificate["task"], claim["data"]
    n = len(task["state"])
    ends = (decode(data[k], f"data.{k}", n) for k in ("lower", "upper"))
    box = describe_box(task["state"], *ends)
    level, margin, radius, factor = (
        decode_one(claim[name], name) for name in ("level", "margin", "radius", "factor")
    )
    dt = decode_one(task["dt"], "task.dt")
    if claim["motion"] == "step":
        moves = f"one step of {dt!r} s with the input held lowers V by at least"
        closes = f"contracts it by the factor {factor!r} into itself"
        end = "tends to the one equilibrium in E, and stays in the box at every step"
    elif claim["motion"] == "held":
        moves = (
            f"the solution of the differential equation with the input held for {dt!r} s lowers V by at least"
        )
        closes = f"maps it into itself from sample to sample, the Runge-Kutta step contracting by the factor {factor!r}"
        end = "is in E from some sample on at every sample, and stays in the box at all times"
    else:
        moves = "V falls along the motion with continuous feedback at a rate of at least"
        closes = f"contracts at the rate {factor!r} 1/s and stays in it"
        end = "tends to the one equilibrium in E, and stays in the box"
    return (
        f"For every state of {task['name']} (version {task['version']}) with {box} and V <= {level!r}, outside the "
        f"ellipsoid E = {{(x-c)'P(x-c) <= {radius!r}}}, {moves} {margin!r}; in E the loop {closes}, in the norm of P. "
        f"So every motion that starts in the box with V <= {level!r}, or in E, {end}."
    )


ASSUMPTIONS = (
    "The recorded programs are the plant with its integrator, the controller and V; check --replay traces them again.",
    "The plant equals its model, without disturbance; the state is measured exactly and without delay.",
    "Of a 'step' the next state is the integrator's own formula, and nothing is claimed between two samples; 'held' "
    "and 'continuous' motions are exact solutions of the differential equation.",
    "The controller is that of real arithmetic with the recorded weights; rounding when it runs is not included.",
)
