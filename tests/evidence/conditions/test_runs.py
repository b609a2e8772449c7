"""Recorded runs: counts and bounds against SciPy, every condition by a forged file."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy.stats import beta

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import clopper_pearson, encode
from constrained_nn.verify.claims import energy_runs as _energy_runs
from constrained_nn.verify.claims.sampled import _is_bound
from tests.evidence.conditions import minimal
from tests.evidence.conditions.minimal import edit, finish, stated, verdict

INF = math.inf


# --- sampled runs ---


def test_bounds_of_clopper_and_pearson() -> None:
    for events, runs in ((0, 1), (0, 100), (1, 10), (5, 10), (9, 10), (3, 1000)):
        for confidence in (0.9, 0.99, 0.999999):
            bound = clopper_pearson(events, runs, confidence)
            assert bound == pytest.approx(beta.ppf(confidence, events + 1, runs - events), rel=1e-9)
            assert _is_bound(bound, events, runs, confidence)
            assert not _is_bound(math.nextafter(bound, 0), events, runs, confidence)
    assert clopper_pearson(3, 3, 0.9) == clopper_pearson(4, 3, 0.9) == 1.0
    assert _is_bound(1.0, 0, 3, 0.9)
    assert _is_bound(1.0, 3, 3, 0.9)
    assert not _is_bound(0.999, 3, 3, 0.9)
    assert not _is_bound(0.0, 0, 3, 0.9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__margin": encode([0.5, -0.25, 0.5]), "worst__margin": encode(-0.25)},
         "1 of 3 runs collide, 0 violate a row; worst run 1: g <= 0 fails, margin -0.25, from x1 = 0.5"),
        ({"data__margin": encode([0.5, 0.0, 0.5]), "worst__margin": encode(0.0)}, "consistent"),
        ({"data__excess": encode([0.5, -0.5, 0.25]), "worst__excess": encode(0.5)},
         "0 of 3 runs collide, 2 violate a row; worst run 0: a row fails, relative excess 0.5, from x1 = 0.25"),
        ({"data__excess": encode([2.0**-40, -0.5, -0.5]), "worst__excess": encode(2.0**-40)}, "consistent"),
        ({"data__excess": encode([2.0**-39, -0.5, -0.5]), "worst__excess": encode(2.0**-39)}, "1 violate"),
        ({"data__complete": "110"}, "1 of 3 runs did not finish"),
        ({"data__complete": "101", "data__margin": encode([0.5, -0.25, 0.5]), "worst__margin": encode(-0.25)},
         "did not finish"),
        ({"data__complete": "011", "data__excess": encode([0.5, -0.5, -0.5]), "worst__excess": encode(0.5)},
         "did not finish"),
        ({"data__complete": "11"}, "a 0 or 1 for each of 3 runs"),
        ({"data__complete": "112"}, "a 0 or 1 for each of 3 runs"),
        ({"worst__margin": encode(0.5)}, "worst.margin: the claim says 0.5"),
        ({"worst__margin_run": 0}, "worst.margin: the claim says 0.25 in run 0, the data give 0.25 in run 1"),
        ({"worst__margin_run": 3}, "from 0 to 2"),
        ({"worst__excess": encode(0.25)}, "worst.excess"),
        ({"worst__excess_run": 1}, "worst.excess"),
        ({"worst__margin_start": ""}, "expected 1 numbers"),
        ({"data__margin": encode([0.5, 0.25])}, "expected 3 numbers"),
        ({"confidence": encode(0.875)}, "confidence: expected from 0.9"),
        ({"confidence": encode(1 - 1e-10)}, "confidence: expected from 0.9"),
        ({"confidence": encode(0.9)}, "consistent"),
    ],
)  # fmt: skip
def test_sampled_runs(changes: dict[str, Any], words: str) -> None:
    module, claim, certificate = minimal.sampled()
    assert words in verdict(module, edit(claim, **changes), certificate)


def test_stated_bounds() -> None:
    bound = clopper_pearson(0, 3, 0.9375)
    for name in ("collision_bound", "violation_bound"):
        for value, words in (
            (bound, "consistent"), (bound * (1 + 1e-10), "consistent"),
            (bound * (1 + 1e-8), "not the Clopper-Pearson bound"),
            (math.nextafter(bound, 0), "give no less"), (0.0, "give no less"), (1.0, "not the Clopper-Pearson bound"),
        ):  # fmt: skip
            assert words in stated(minimal.sampled, **{name: encode(value)})
    for name in ("collisions", "violations", "incomplete"):
        assert f"{name}: the claim says 1, the data give 0" in stated(minimal.sampled, **{name: 1})


def test_incomplete_runs_count_in_both_bounds() -> None:
    module, claim, certificate = minimal.sampled()
    found = finish(module, edit(claim, data__complete="110"), certificate)
    account = module.evaluate(found["claims"][0], found)
    assert (account.runs, account.collisions, account.violations, account.incomplete) == (3, 0, 0, 1)
    module.check_stated(found["claims"][0], account)
    for name in ("collision_bound", "violation_bound"):
        bad = edit(found["claims"][0], **{name: encode(clopper_pearson(0, 3, 0.9375))})
        with pytest.raises(FileFormatError, match="1 of 3 runs give no less"):
            module.check_stated(bad, account)


# --- runs of an energy ---


@pytest.mark.parametrize(
    ("ratio", "growth", "exceeded", "unfinished", "words"),
    [
        ([0.5, 1.0, 0.25], [1.0, 0.5, 0.25], 0, 0, "consistent"),
        ([0.5, 1.5, 0.25], [1.0, 0.5, 0.25], 1, 0, "run 1: energy 1.5 of its bound, 0.5 of its start"),
        ([0.5, 1.0, 0.25], [1.0, 0.5, 1.25], 1, 0, "run 2: energy 0.25 of its bound, 1.25 of its start"),
        ([1.5, 1.5, 0.25], [2.0, 0.5, 2.0], 3, 0, "run 0"),
        ([INF, 1.0, 0.25], [1.0, 0.5, 0.25], 0, 1, "1 of 3 runs left the finite numbers"),
        ([0.5, 1.0, 0.25], [1.0, INF, INF], 0, 2, "2 of 3 runs left the finite numbers"),
        ([INF, 1.5, 0.25], [1.0, 0.5, 0.25], 1, 1, "run 1"),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0, 0, "consistent"),
    ],
)
def test_runs_of_an_energy(ratio: Any, growth: Any, exceeded: int, unfinished: int, words: str) -> None:
    module, claim, certificate = minimal.energy_runs()
    claim = edit(claim, data__ratio=encode(ratio), data__growth=encode(growth))
    found = _energy_runs.evaluate(claim, certificate)
    assert (found.runs, found.exceeded, found.unfinished, found.worst) == (
        3,
        exceeded,
        unfinished,
        max(ratio),
    )
    assert found.verdict == ("counterexample" if exceeded else "inconclusive" if unfinished else "consistent")
    if max(ratio) < INF:
        assert words in verdict(module, claim, certificate)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__active": encode([0.0, 1.5, 0.0])}, "shares of steps"),
        ({"data__active": encode([0.0, -0.5, 0.0])}, "shares of steps"),
        ({"data__active": encode([0.0, 1.0])}, "expected 3 numbers"),
        ({"data__ratio": encode([0.0, 1.0])}, "expected 3 numbers"),
        ({"farthest": encode(0.0)}, "positive ratio"),
        ({"farthest": encode(-1.0)}, "positive ratio"),
        ({"starts_sha256": "0" * 63}, "64 digits"),
        ({"confidence": encode(0.875)}, "confidence: expected from 0.9"),
        ({"confidence": encode(1 - 1e-10)}, "confidence: expected from 0.9"),
    ],
)
def test_runs_that_are_refused(changes: dict[str, Any], words: str) -> None:
    module, claim, certificate = minimal.energy_runs()
    assert words in verdict(module, edit(claim, **changes), certificate)


def test_stated_runs() -> None:
    assert stated(minimal.energy_runs).startswith("consistent")
    bound = clopper_pearson(0, 3, 0.9375)
    for name, value, words in (
        ("exceeded", 1, "exceeded: the claim says 1, the data give 0"), ("unfinished", 1, "unfinished"),
        ("worst", encode(0.5), "worst"), ("bound", encode(math.nextafter(bound, 1)), "bound"),
        ("bound", encode(math.nextafter(bound, 0)), "Clopper and Pearson"),
    ):  # fmt: skip
        assert words in stated(minimal.energy_runs, **{name: value})
    module, claim, certificate = minimal.energy_runs()
    certificate = finish(module, edit(claim, data__growth=encode([1.0, INF, 2.0])), certificate)
    account = module.evaluate(certificate["claims"][0], certificate)
    module.check_stated(certificate["claims"][0], account)
    assert float.fromhex(certificate["claims"][0]["bound"]) == clopper_pearson(2, 3, 0.9375)
