"""Altered proofs of Lyapunov decrease: whatever the checker accepts survives sampling with other code."""

from __future__ import annotations

import contextlib
import copy
import random
from typing import Any

import numpy as np
import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.evidence import ClosedLoop
from constrained_nn.evidence.claims.lyapunov import claim_decrease
from constrained_nn.evidence.head import describe_task, head
from constrained_nn.verify import Outcome, check_claims, decode, decode_one, encode
from constrained_nn.verify.claims import lyapunov as claims  # for the forger alone
from tests.evidence.loops import clipped_mass
from tests.evidence.mutations import alter


def refutes(claim: dict[str, Any], count: int = 4000) -> str | None:
    """Why the claim is false at a sampled state, or None."""
    data = claim["data"]
    lower, upper, center = (np.array(decode(data[k], k)) for k in ("lower", "upper", "center"))
    if len(lower) != len(upper) or len(center) != len(lower) or (lower >= upper).any():
        return "no box"
    loop = ClosedLoop(data["plant"], data["controller"], data["value"], lower, upper, center, claim["motion"])
    x = loop.sample(np.random.default_rng(0), count)
    P, e = np.array(decode(data["P"], "P")).reshape(len(center), -1), x - center
    x = x[((e @ P * e).sum(-1) > decode_one(claim["radius"], "radius")) & (loop.lyapunov(x) <= level(claim))]
    if (loop.change(x) > -decode_one(claim["margin"], "margin") + 1e-9).any():
        return "V does not decrease by the margin"
    return None


def level(claim: dict[str, Any]) -> float:
    return decode_one(claim["level"], "level")


def forge(certificate: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    other = copy.deepcopy(certificate)
    claim = other["claims"][0] = alter(other["claims"][0], rng)
    with contextlib.suppress(FileFormatError, ValueError, OverflowError, AttributeError):
        found = claims.evaluate(claim, other)
        claim["boxes"], claim["worst"] = found.boxes, encode(found.change + 2.0**-40 * abs(found.change))
        claim["statement"] = claims.statement(claim, other)
    return other


def run(count: int) -> tuple[int, int, int]:
    task, loop, start = clipped_mass()
    genuine = head(
        command="test",
        seed=0,
        task=describe_task(task),
        controller={"method": "lqr", "dtype": "float64", "weights": "none", "sha256": "none"},
    )
    genuine["claims"].append(claim_decrease(loop, genuine, level=start))
    assert refutes(genuine["claims"][0]) is None
    rng, rejected, accepted, false = random.Random(3), 0, 0, 0
    for number in range(count):
        other = forge(genuine, rng)
        holds = check_claims(other)[0].outcome is Outcome.HOLDS
        try:
            with np.errstate(all="ignore"):
                why = refutes(other["claims"][0])
        except (FileFormatError, ValueError, ArithmeticError, IndexError, KeyError):
            why = "damaged"
        false += why is not None
        assert not (holds and why), f"alteration {number}: {why}, and the checker accepts it"
        accepted, rejected = accepted + holds, rejected + (not holds)
    return rejected, accepted, false


@pytest.mark.slow
def test_three_hundred_alterations() -> None:
    rejected, accepted, false = run(300)
    print(f"300 altered, {false} false by sampling, {rejected} rejected, {accepted} accepted and true")
    assert false >= 40
    assert rejected >= false
