"""Altered proofs of invariance: whatever the checker accepts survives simulation by other code."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.evidence.claims import certify_barrier
from constrained_nn.evidence.tracing import evaluate
from constrained_nn.verify import Outcome, check_claims, decode, decode_one, encode
from constrained_nn.verify.arithmetic import parse
from constrained_nn.verify.claims import barrier as claims  # for the forger alone
from control_envs.tasks import DoubleIntegratorTask
from tests.evidence.mutations import alter

START = ([-2.6, -0.2], [-0.3, 0.2])


class Oracle:
    """The claim in floating point: states of the set, inputs on a grid, RK4 runs, differences for derivatives."""

    def __init__(self, claim: dict[str, Any]) -> None:
        self.plant = parse(claim["plant"], "plant")
        self.barriers = [
            (parse(b["value"], "v"), parse(b["curvature"], "c"), decode(b["gains"], "g"))
            for b in claim["barriers"]
        ]
        self.low, self.high, self.lower, self.upper = (
            np.array(decode(claim[k], k)) for k in ("low", "high", "lower", "upper")
        )
        start = claim["start"]
        self.start = start and tuple(np.array(decode(start[k], k)) for k in ("lower", "upper"))
        self.hold, self.floor = decode_one(claim["hold"], "hold"), decode_one(claim["floor"], "floor")

    def f(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        return evaluate(self.plant, np.concatenate([x, u], -1))

    def h(self, i: int, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        e, _, gains = self.barriers[i]
        value = evaluate(e, x)[..., 0]
        if len(gains) == 1:
            return value
        step = 1e-4 * self.f(x, u)
        return (evaluate(e, x + step)[..., 0] - evaluate(e, x - step)[..., 0]) / 2e-4 + gains[0] * value

    def lowest(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Smallest of `h + floor` and `e + floor/kappa` over all barriers."""
        values = [self.h(i, x, u) + self.floor for i in range(len(self.barriers))]
        for e, _, gains in self.barriers:
            if len(gains) == 2:
                values.append(evaluate(e, x)[..., 0] + self.floor / gains[0])
        return np.min(values, 0)

    def rows(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Smallest slack of the rows, to within the floor."""
        slack, step = [], 1e-4 * self.f(x, u)
        for i, (_, curvature, gains) in enumerate(self.barriers):
            rate = (self.h(i, x + step, u) - self.h(i, x - step, u)) / 2e-4
            m = evaluate(curvature, x)
            margin = m[..., 0] + (m[..., 1:] * u).sum(-1)
            slack.append(rate + gains[-1] * (self.h(i, x, u) + self.floor) - 0.5 * self.hold * margin)
        return np.min(slack, 0)

    def refutes(self, count: int = 400, tolerance: float = 1e-5) -> str | None:
        """Why the claim is false, or None."""
        rng = np.random.default_rng(0)
        if self.start is not None:
            x = rng.uniform(*self.start, (20 * count, len(self.lower)))
            if (self.lowest(x, np.broadcast_to(self.low, (len(x), len(self.low)))) < -tolerance).any():
                return "a start is outside"
        x = rng.uniform(self.lower, self.upper, (count, len(self.lower)))
        grid = np.linspace(self.low, self.high, 21)
        x, u = np.repeat(x, len(grid), 0), np.tile(grid, (count, 1))
        inside = self.lowest(x, u) >= 0
        slack = self.rows(x, u)
        x, u, slack = x[inside], u[inside], slack[inside]
        best = slack.reshape(-1, len(grid)).max(1) if len(slack) else np.zeros(0)
        if (best < -tolerance - np.ptp(grid) / 20 * 2.0).any():  # the grid is coarse
            return "no input"
        x, u = x[slack >= 0], u[slack >= 0]
        step = self.hold / 8
        for _ in range(8):
            k1 = self.f(x, u)
            k2 = self.f(x + 0.5 * step * k1, u)
            k3 = self.f(x + 0.5 * step * k2, u)
            x = x + step / 6 * (k1 + 2 * (k2 + k3) + self.f(x + step * k3, u))
            if (self.lowest(x, u) < -tolerance).any():
                return "the set is left"
            if ((x < self.lower - tolerance) | (x > self.upper + tolerance)).any():
                return "the domain is left"
        return None


def forge(certificate: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One alteration, and all that the claim says of itself put right, as far as that can be computed."""
    other = copy.deepcopy(certificate)
    claim = alter(other["claims"][0], rng)
    other["claims"][0] = claim
    other["task"]["dt"] = claim["hold"]
    try:
        claim["leaves"] = sum(claim["data"]["cover"].count(c) for c in claims.LABELS)
        found = claims.evaluate(claim, other)
        claim["worst"] = {"row": encode(found.row), "curvature": encode(found.curvature)}
        claim["statement"] = claims.statement(claim, other)
    except (FileFormatError, ValueError, OverflowError):
        pass
    return other


def run(count: int) -> tuple[int, int, int]:
    genuine, rng = certify_barrier(DoubleIntegratorTask(), command="test", start=START), random.Random(7)
    assert Oracle(genuine["claims"][0]).refutes() is None
    rejected = accepted = false = 0
    for number in range(count):
        other = forge(genuine, rng)
        try:
            (finding,) = check_claims(other)
            holds = finding.outcome is Outcome.HOLDS
        except FileFormatError:
            holds = False
        try:
            why = Oracle(other["claims"][0]).refutes()
        except (FileFormatError, ValueError, ArithmeticError, RuntimeWarning):
            why = "damaged"
        false += why is not None
        assert not (holds and why), f"alteration {number}: {why}, and the checker accepts it"
        accepted, rejected = accepted + holds, rejected + (not holds)
    return rejected, accepted, false


@pytest.mark.untyped
def test_sample_of_alterations() -> None:
    rejected, accepted, false = run(25)
    assert false >= 3
    assert rejected >= 8
    assert accepted >= 1


@pytest.mark.slow
def test_three_hundred_alterations() -> None:
    rejected, accepted, false = run(300)
    print(f"300 altered, {false} false by simulation, {rejected} rejected, {accepted} accepted and true")
    assert false >= 40
    assert accepted >= 5
