"""Grade `proof`: every recorded row, re-evaluated in rational arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flint import fmpq

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.claim import COMMON
from constrained_nn.verify.cover import describe_point
from constrained_nn.verify.file import decode, decode_one, integer, mapping, sequence, text

# Largest relative tolerance that may be called satisfied: rounding of a well-conditioned evaluation.
MAX_RTOL = {"float64": 1e-9, "float32": 1e-4}
# Part of a control interval that may lie uncovered between two held inputs: rounding of the time.
GAP = {"float64": 1e-9, "float32": 1e-3}

KIND, GRADE = "rows", "proof"
KEYS = (*COMMON, "rtol", "starts", "inputs", "rows", "bounds", "worst", "data")
DATA = ("counts", "t", "dt", "x", "A", "lower", "upper", "u")


@dataclass(frozen=True)
class Place:
    """One side of one row of one held input."""

    input: int
    row: int
    side: str


@dataclass(frozen=True)
class RowsAccount:
    """Exact account of all recorded rows.

    Args:
        bounds: Number of finite bounds, each of which was evaluated.
        excess: Largest `(A u − upper) / (|A||u| + |upper|)`, likewise for `lower`, rounded up.
        worst: Where it occurs.
        violated: Bounds above the tolerance.
        counterexample: Description of the worst one, or None.
        uncovered: Why the held inputs do not cover every run, or None.
    """

    bounds: int
    excess: float
    worst: Place
    violated: int
    counterexample: str | None
    uncovered: str | None

    @property
    def verdict(self) -> str:
        if self.counterexample is not None:
            return "counterexample"
        return "holds" if self.uncovered is None else "inconclusive"

    @property
    def line(self) -> str:
        if self.uncovered is not None:
            return self.uncovered
        return f"holds: worst relative excess {self.excess:.3g}, every bound evaluated in rational arithmetic"


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> RowsAccount:
    """Every bound of every held input in rational arithmetic, and the cover of every run.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    task, controller = certificate["task"], certificate["controller"]
    data = mapping(claim["data"], DATA, "data")
    counts = [integer(c, "data.counts", most=10**9) for c in sequence(data["counts"], "data.counts")]
    inputs = sum(counts)
    state_dim, input_dim = len(task["state"]), len(task["input"])
    lower = decode(data["lower"], "data.lower", infinite=True)
    if not inputs or len(lower) % inputs or not lower:
        raise FileFormatError(f"data.lower: expected the same rows for each of {inputs} held inputs.")
    rows = len(lower) // inputs
    upper = decode(data["upper"], "data.upper", inputs * rows, infinite=True)
    A = decode(data["A"], "data.A", inputs * rows * input_dim)
    u = decode(data["u"], "data.u", inputs * input_dim)
    x = decode(data["x"], "data.x", inputs * state_dim)
    t = decode(data["t"], "data.t", inputs)
    dt = decode(data["dt"], "data.dt", inputs)
    _check_dtype(controller["dtype"], {"A": A, "lower": lower, "upper": upper, "u": u})
    _agree(claim, starts=len(counts), inputs=inputs, rows=inputs * rows)
    rtol = tolerance(claim, controller)

    exact = _Exact(rtol)
    for i in range(inputs):
        y = [_rational(v) for v in u[i * input_dim : (i + 1) * input_dim]]
        for j in range(rows):
            k = i * rows + j
            exact.row(Place(i, j, ""), A[k * input_dim : (k + 1) * input_dim], y, lower[k], upper[k])
    if exact.worst is None or not exact.constrains:
        raise FileFormatError(
            "data: expected at least one row that bounds an input, got none. Nothing is claimed."
        )
    counterexample = None
    if exact.violated:
        k = exact.worst.input * rows + exact.worst.row
        bound = (upper if exact.worst.side == "upper" else lower)[k]
        i = exact.worst.input
        value = _dot(A[k * input_dim : (k + 1) * input_dim], u[i * input_dim : (i + 1) * input_dim])
        state = x[i * state_dim : (i + 1) * state_dim]
        named = describe_point(task["state"], state)
        counterexample = (
            f"{exact.violated} of {exact.bounds} bounds fail; worst in run {_run_of(i, counts)} at t = {t[i]:.6g} s, "
            f"row {exact.worst.row}: A u = {_float(value):.6g} beyond {exact.worst.side} = {bound:.6g}, relative "
            f"excess {exact.excess():.3g} above {rtol:g}, at {named}"
        )
    return RowsAccount(
        exact.bounds,
        exact.excess(),
        exact.worst,
        exact.violated,
        counterexample,
        _uncovered(
            counts, t, dt, decode_one(task["dt"], "task.dt"), task["horizon"], GAP[controller["dtype"]]
        ),
    )


def tolerance(claim: dict[str, Any], controller: dict[str, Any]) -> float:
    """The claim's relative tolerance, which may not exceed the rounding of its precision."""
    rtol = decode_one(claim["rtol"], "rtol")
    if controller["dtype"] not in MAX_RTOL:
        raise FileFormatError(f"controller.dtype: expected float64 or float32, got '{controller['dtype']}'.")
    most = MAX_RTOL[controller["dtype"]]
    if not 0 <= rtol <= most:
        raise FileFormatError(
            f"rtol: expected at most {most:g} for {controller['dtype']}, got {rtol:g}. A larger tolerance is not "
            f"rounding."
        )
    return rtol


class _Exact:
    """Running maximum of the relative excess, in rationals."""

    def __init__(self, rtol: float) -> None:
        self.rtol = _rational(rtol)
        self.bounds = self.violated = 0
        self.ratio = fmpq(0)
        self.worst: Place | None = None
        self.constrains = False  # whether a row with a finite bound has a coefficient

    def row(self, place: Place, a: list[float], y: list[fmpq], lower: float, upper: float) -> None:
        if lower == math.inf or upper == -math.inf:
            raise FileFormatError(
                f"data: expected bounds that a number can meet, got {lower} and {upper} (input {place.input}, row "
                f"{place.row})."
            )
        self.constrains = self.constrains or (any(a) and not (math.isinf(lower) and math.isinf(upper)))
        value = size = fmpq(0)
        for coefficient, component in zip(a, y, strict=True):
            term = _rational(coefficient) * component
            value += term
            size += abs(term)
        if upper < math.inf:
            bound = _rational(upper)
            self._side(place, "upper", value - bound, size + abs(bound))
        if lower > -math.inf:
            bound = _rational(lower)
            self._side(place, "lower", bound - value, size + abs(bound))

    def _side(self, place: Place, side: str, excess: fmpq, scale: fmpq) -> None:
        self.bounds += 1
        if excess > self.rtol * scale:
            self.violated += 1
        ratio = excess / scale if scale != 0 else fmpq(0)  # scale 0 means A u = bound = 0
        if self.worst is None or ratio > self.ratio:
            self.ratio, self.worst = ratio, Place(place.input, place.row, side)

    def excess(self) -> float:
        """The maximum as the next float that is not below it."""
        numerator, denominator = int(self.ratio.p), int(self.ratio.q)
        nearest = numerator / denominator  # correctly rounded, for integers of any size
        return nearest if _rational(nearest) >= self.ratio else math.nextafter(nearest, math.inf)


def _rational(value: float) -> fmpq:
    return fmpq(*value.as_integer_ratio())


def _dot(a: list[float], y: list[float]) -> fmpq:
    return sum((_rational(p) * _rational(q) for p, q in zip(a, y, strict=True)), fmpq(0))


def _run_of(input: int, counts: list[int]) -> int:
    for run, count in enumerate(counts):
        if input < count:
            return run
        input -= count
    raise AssertionError("unreachable: the input is one of the runs'")


def _uncovered(
    counts: list[int], t: list[float], dt: list[float], step: float, horizon: int, part: float
) -> str | None:
    """Whether the held inputs of every run follow each other from 0 to the horizon, within `part` of a step."""
    gap, end = _rational(part) * _rational(step), horizon * _rational(step)
    first = 0
    for run, count in enumerate(counts):
        now = fmpq(0)
        for i in range(first, first + count):
            begin = _rational(t[i])
            if abs(begin - now) > gap or dt[i] <= 0:
                return f"run {run} has no input from t = {_float(now):.6g} s to t = {t[i]:.6g} s"
            now = begin + _rational(dt[i])
        if abs(now - end) > gap:
            return f"run {run} ends at t = {_float(now):.6g} s instead of {_float(end):.6g} s"
        first += count
    return None


def _float(value: fmpq) -> float:
    """The nearest float, for messages; infinite beyond the largest."""
    try:
        return int(value.p) / int(value.q)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _check_dtype(dtype: str, arrays: dict[str, list[float]]) -> None:
    """A claim at float32 tolerance must be about float32 numbers."""
    if dtype != "float32":
        return
    import numpy as np

    for name, values in arrays.items():
        wide = np.array(values)
        with np.errstate(over="ignore"):
            if not np.array_equal(wide.astype(np.float32).astype(np.float64), wide):
                raise FileFormatError(f"data.{name}: expected float32 numbers, as controller.dtype says.")


def _agree(claim: dict[str, Any], **found: int) -> None:
    for name, value in found.items():
        if integer(claim[name], name) != value:
            raise FileFormatError(f"{name}: the claim says {claim[name]}, the data hold {value}.")


def check_stated(claim: dict[str, Any], found: RowsAccount) -> None:
    """The stated worst row and number of bounds must be those of the data.

    Raises:
        FileFormatError: They differ.
    """
    _agree(claim, bounds=found.bounds)
    worst = mapping(claim["worst"], ("excess", "input", "row", "side"), "worst")
    stated = decode_one(worst["excess"], "worst.excess")
    if stated != found.excess:
        raise FileFormatError(f"worst.excess: the claim says {stated!r}, the data give {found.excess!r}.")
    place = Place(
        integer(worst["input"], "worst.input"),
        integer(worst["row"], "worst.row"),
        text(worst["side"], "worst.side"),
    )
    if place != found.worst:
        raise FileFormatError(f"worst: the claim names {place}, the data give {found.worst}.")


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    task = certificate["task"]
    end = task["horizon"] * decode_one(task["dt"], "task.dt")
    return (
        f"In each of {claim['starts']} recorded runs of {task['name']} (version {task['version']}) and at each of "
        f"the {claim['inputs']} inputs u held from 0 to {end:g} s, every row satisfies lower <= A u <= upper to "
        f"{decode_one(claim['rtol'], 'rtol')!r} (|A||u| + |bound|): {claim['rows']} rows, {claim['bounds']} finite "
        f"bounds."
    )


ASSUMPTIONS = (
    "A, lower and upper are the rows of the task's barrier condition at the recorded states, as recorded.",
    "The runs are simulated: the plant equals its model, and an input is held between two evaluations.",
    "Rows are evaluated at the start of each held input; nothing is claimed between two evaluations.",
)
