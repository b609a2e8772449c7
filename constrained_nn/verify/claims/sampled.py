"""Grade `sampled`: counts, worst margins and Clopper-Pearson bounds, recomputed from the recorded runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flint import arb, fmpq

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.arithmetic import precision
from constrained_nn.verify.claim import COMMON
from constrained_nn.verify.claims.rows import tolerance
from constrained_nn.verify.cover import describe_point
from constrained_nn.verify.file import decode, decode_one, integer, mapping, text

CONFIDENCE = (0.9, 1 - 1e-9)  # below: not worth stating; above: the bound says nothing
TIGHT = 1e-9  # a stated bound may exceed the exact one by this relative amount

KIND, GRADE = "closed-loop", "sampled"
KEYS = (
    *COMMON, "rtol", "confidence", "runs", "starts_sha256", "collisions", "violations", "incomplete",
    "collision_bound", "violation_bound", "worst", "data",
)  # fmt: skip
WORST = ("margin", "margin_run", "margin_start", "excess", "excess_run", "excess_start")


@dataclass(frozen=True)
class SampledAccount:
    """Account of the recorded runs.

    Args:
        runs: Number of runs.
        collisions: Runs with `g > 0` at some sub-step.
        violations: Runs with a row above the tolerance at some held input.
        incomplete: Runs that were given up or left the finite numbers; they count in both bounds.
        counterexample: Description of the worst run, or None.
    """

    runs: int
    collisions: int
    violations: int
    incomplete: int
    counterexample: str | None

    @property
    def verdict(self) -> str:
        if self.counterexample is not None:
            return "counterexample"
        return "consistent" if not self.incomplete else "inconclusive"

    @property
    def line(self) -> str:
        if self.incomplete:
            return f"{self.incomplete} of {self.runs} runs did not finish"
        return "consistent, not repeated"


def clopper_pearson(events: int, runs: int, confidence: float) -> float:
    """Upper bound of the probability of an event seen `events` times in `runs`, at this confidence.

    The smallest float `p` with `I_p(events + 1, runs − events) >= confidence` in ball arithmetic.
    """
    if events >= runs:
        return 1.0
    low, high = 0.0, 1.0
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (low, middle) if _is_bound(middle, events, runs, confidence) else (middle, high)
    return high


def _is_bound(p: float, events: int, runs: int, confidence: float) -> bool:
    """Whether `P(more than events | p) >= confidence` is proved; False when it is not."""
    if p >= 1.0:
        return True
    if events >= runs:
        return False
    for bits in (128, 256, 512, 1024):
        with precision(bits):
            # 1 − P(at most `events` | p), which is I_p(events + 1, runs − events) from its quicker side
            tail = 1 - (1 - arb(p)).beta_lower(arb(runs - events), arb(events + 1), regularized=True)
            goal = arb(fmpq(*confidence.as_integer_ratio()))
            if not tail.overlaps(goal):
                return bool(tail > goal)
    return False


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> SampledAccount:
    """Counts and worst runs from the recorded runs.

    Raises:
        FileFormatError: The claim does not follow from its own data.
    """
    runs = integer(claim["runs"], "runs", least=1)
    text(claim["starts_sha256"], "starts_sha256")
    data = mapping(claim["data"], ("margin", "excess", "complete"), "data")
    margin = decode(data["margin"], "data.margin", runs, infinite=True)
    excess = decode(data["excess"], "data.excess", runs, infinite=True)
    complete = text(data["complete"], "data.complete")
    if len(complete) != runs or set(complete) - {"0", "1"}:
        raise FileFormatError(f"data.complete: expected a 0 or 1 for each of {runs} runs.")
    rtol = tolerance(claim, certificate["controller"])
    if min(margin) == math.inf or max(excess) == -math.inf:
        raise FileFormatError(
            "data: expected a constraint and a row in some run, got none. Nothing is claimed."
        )

    whole = [c == "1" for c in complete]
    collisions = sum(m < 0 for m, c in zip(margin, whole, strict=True) if c)
    violations = sum(e > rtol for e, c in zip(excess, whole, strict=True) if c)
    incomplete = runs - sum(whole)
    worst = _check_worst(claim, certificate, margin, excess)
    counterexample = None
    if collisions or violations:
        which, quantity, value = (
            ("margin", "g <= 0 fails, margin", worst["margin"])
            if collisions
            else ("excess", "a row fails, relative excess", worst["excess"])
        )
        state = describe_point(certificate["task"]["state"], worst[f"{which}_start"])
        counterexample = (
            f"{collisions} of {runs} runs collide, {violations} violate a row; worst run {worst[f'{which}_run']}: "
            f"{quantity} {value:.6g}, from {state}"
        )
    return SampledAccount(runs, collisions, violations, incomplete, counterexample)


def check_stated(claim: dict[str, Any], found: SampledAccount) -> None:
    """The stated counts must be those of the data, the bounds those of Clopper and Pearson.

    Raises:
        FileFormatError: They differ.
    """
    for name in ("collisions", "violations", "incomplete"):
        value = getattr(found, name)
        if integer(claim[name], name) != value:
            raise FileFormatError(f"{name}: the claim says {claim[name]}, the data give {value}.")
    _check_bounds(claim, found)


def _check_worst(
    claim: dict[str, Any], certificate: dict[str, Any], margin: list[float], excess: list[float]
) -> dict[str, Any]:
    worst = mapping(claim["worst"], WORST, "worst")
    dim = len(certificate["task"]["state"])
    found: dict[str, Any] = {}
    for name, values, extreme in (("margin", margin, min(margin)), ("excess", excess, max(excess))):
        stated = decode_one(worst[name], f"worst.{name}", infinite=True)
        run = integer(worst[f"{name}_run"], f"worst.{name}_run", most=len(values) - 1)
        if stated != extreme or run != values.index(extreme):
            raise FileFormatError(
                f"worst.{name}: the claim says {stated!r} in run {run}, the data give {extreme!r} in run "
                f"{values.index(extreme)}."
            )
        found[name], found[f"{name}_run"] = stated, run
        found[f"{name}_start"] = decode(worst[f"{name}_start"], f"worst.{name}_start", dim)
    return found


def _check_bounds(claim: dict[str, Any], found: SampledAccount) -> None:
    confidence = decode_one(claim["confidence"], "confidence")
    if not CONFIDENCE[0] <= confidence <= CONFIDENCE[1]:
        raise FileFormatError(
            f"confidence: expected from {CONFIDENCE[0]} to 1 - 1e-9, got {confidence!r}. Outside, a bound says "
            f"nothing."
        )
    for name, events in (("collision_bound", found.collisions), ("violation_bound", found.violations)):
        stated = decode_one(claim[name], name)
        bad = events + found.incomplete
        if not _is_bound(stated, bad, found.runs, confidence):
            raise FileFormatError(
                f"{name}: the claim says {stated!r}, but {bad} of {found.runs} runs give no less than "
                f"{clopper_pearson(bad, found.runs, confidence)!r} at confidence {confidence!r}."
            )
        if stated > math.nextafter(0.0, 1.0) and _is_bound(stated * (1 - TIGHT), bad, found.runs, confidence):
            raise FileFormatError(
                f"{name}: the claim says {stated!r}, which is not the Clopper-Pearson bound."
            )


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    task = certificate["task"]
    collision, violation, confidence = (
        decode_one(claim[name], name) for name in ("collision_bound", "violation_bound", "confidence")
    )
    return (
        f"In {claim['runs']} simulated runs of {task['name']} (version {task['version']}) from fresh start states, "
        f"{claim['collisions']} had g > 0 at a sub-step, {claim['violations']} a row above "
        f"{decode_one(claim['rtol'], 'rtol')!r} (|A||u| + |bound|), {claim['incomplete']} did not finish. For a start "
        f"state of the same distribution: P(collision) <= {collision!r}, P(violation) <= {violation!r}, each with "
        f"confidence {confidence!r}."
    )


ASSUMPTIONS = (
    "Start states are independent draws of the task's own distribution, and were not used in training.",
    "The runs are simulated: the plant equals its model, and an input is held between two evaluations.",
    "g is evaluated at every sub-step and at the end, in floating point; nothing is claimed in between.",
    "The seed was chosen before the runs; choosing among seeds by their result voids the confidence.",
)
