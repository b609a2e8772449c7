"""Grade `sampled`: long runs of a learned evolution whose energy is bounded, with Clopper-Pearson bounds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.claim import COMMON
from constrained_nn.verify.claims.sampled import CONFIDENCE, clopper_pearson
from constrained_nn.verify.file import decode, decode_one, integer, mapping, text

KIND, GRADE = "energy-runs", "sampled"
KEYS = (
    *COMMON, "runs", "steps", "farthest", "confidence", "starts_sha256", "exceeded", "unfinished", "bound", "worst",
    "data",
)  # fmt: skip
DATA = ("ratio", "growth", "active")


@dataclass(frozen=True)
class RunsAccount:
    """Account of the recorded runs.

    Args:
        runs: Number of runs.
        exceeded: Runs with a step whose energy was above its bound, or above `max(V(x_0), c)`.
        unfinished: Runs that left the finite numbers.
        worst: Largest `V(x⁺) / (alpha max(V(x), c))`.
        counterexample: Description of a run that exceeded its bound, or None.
    """

    runs: int
    exceeded: int
    unfinished: int
    worst: float
    counterexample: str | None

    @property
    def verdict(self) -> str:
        if self.counterexample is not None:
            return "counterexample"
        return "inconclusive" if self.unfinished else "consistent"

    @property
    def line(self) -> str:
        if self.unfinished:
            return f"{self.unfinished} of {self.runs} runs left the finite numbers"
        return f"consistent, not repeated: largest energy {self.worst!r} of its bound"


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> RunsAccount:
    """Counts and the worst ratio from the recorded runs.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    runs = integer(claim["runs"], "runs", least=1)
    integer(claim["steps"], "steps", least=1)
    if not re.fullmatch("[0-9a-f]{64}", text(claim["starts_sha256"], "starts_sha256")):
        raise FileFormatError("starts_sha256: expected the 64 digits of a SHA-256.")
    if not decode_one(claim["farthest"], "farthest") > 0:
        raise FileFormatError("farthest: expected a positive ratio of norms.")
    data = mapping(claim["data"], DATA, "data")
    ratio = decode(data["ratio"], "data.ratio", runs, infinite=True)
    growth = decode(data["growth"], "data.growth", runs, infinite=True)
    active = decode(data["active"], "data.active", runs)
    if min(*ratio, *growth) < 0:
        raise FileFormatError("data.ratio, data.growth: expected ratios of energies, got a negative number.")
    if not all(0 <= share <= 1 for share in active):
        raise FileFormatError("data.active: expected shares of steps.")
    finite = [max(r, g) < float("inf") for r, g in zip(ratio, growth, strict=True)]
    exceeded = [f and (r > 1 or g > 1) for f, r, g in zip(finite, ratio, growth, strict=True)]
    found = None
    if any(exceeded):
        run = exceeded.index(True)
        found = f"run {run}: energy {ratio[run]!r} of its bound, {growth[run]!r} of its start"
    return RunsAccount(runs, sum(exceeded), runs - sum(finite), max(ratio), found)


def check_stated(claim: dict[str, Any], found: RunsAccount) -> None:
    """Counts, worst ratio and bound must be those of the data.

    Raises:
        FileFormatError: They differ.
    """
    for name in ("exceeded", "unfinished"):
        if integer(claim[name], name) != getattr(found, name):
            raise FileFormatError(
                f"{name}: the claim says {claim[name]}, the data give {getattr(found, name)}."
            )
    if decode_one(claim["worst"], "worst") != found.worst:
        raise FileFormatError(f"worst: the claim says {claim['worst']}, the data give {found.worst!r}.")
    confidence = decode_one(claim["confidence"], "confidence")
    if not CONFIDENCE[0] <= confidence <= CONFIDENCE[1]:
        raise FileFormatError(f"confidence: expected from {CONFIDENCE[0]} to 1 - 1e-9, got {confidence!r}.")
    bound = clopper_pearson(found.exceeded + found.unfinished, found.runs, confidence)
    if decode_one(claim["bound"], "bound") != bound:
        raise FileFormatError(f"bound: the claim says {claim['bound']}, Clopper and Pearson give {bound!r}.")


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    farthest, bound, confidence = (
        decode_one(claim[name], name) for name in ("farthest", "bound", "confidence")
    )
    return (
        f"In {claim['runs']} runs of {claim['steps']} steps of {certificate['task']['name']} from recorded start "
        f"states (norms up to {farthest:.3g} times the data's), {claim['exceeded']} had an energy above its bound or "
        f"above that of its start and the level, {claim['unfinished']} left the finite numbers; for a start of the "
        f"same distribution P(unbounded) <= {bound!r} with confidence {confidence!r}. Starts: sha256 "
        f"{claim['starts_sha256']}."
    )


ASSUMPTIONS = (
    "Start states are independent draws of one distribution, chosen before the runs.",
    "Energies are those of the model, computed in float64.",
)
