"""Nothing in a certificate about programs brings the checker down, and no altered one that became false is accepted."""

from __future__ import annotations

import contextlib
import copy
import random

import numpy as np
import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import Outcome, check_claims, digest
from constrained_nn.verify.arithmetic import parse
from tests.evidence.loops import clipped_mass
from tests.evidence.test_check import NASTY, paths
from tests.evidence.test_lyapunov import certified

pytestmark = pytest.mark.once  # many samples of what test_check runs


@pytest.fixture(scope="module")
def small() -> dict:
    return certified(*clipped_mass())


def test_any_value_in_any_place_is_a_finding_or_a_clear_error(small: dict) -> None:
    rng = random.Random(2)
    places = [p for p in paths(small) if p[0] == "claims" and len(p) > 2]
    assert len(places) > 100
    for trial in range(100):
        certificate = copy.deepcopy(small)
        certificate["claims"][0]["data"]["cover"] = "d"  # quick where it is not what is altered
        for place in rng.sample(places, 1 + trial % 2):
            with contextlib.suppress(KeyError, IndexError, TypeError):
                holder = certificate
                for key in place[:-1]:
                    holder = holder[key]
                holder[place[-1]] = rng.choice(NASTY)
        with contextlib.suppress(FileFormatError):
            for finding in check_claims(certificate | {"digest": digest(certificate)}):
                assert finding.text.isprintable()
                assert finding.outcome is not Outcome.HOLDS


def test_any_program_is_read_or_refused() -> None:
    rng = random.Random(3)
    code = [["take", 0, [0]], ["sin", 1], ["const", "0x1.8p+0"], ["affine", 0, "0x1p+0 0x1p+1", "0x1p+0"]]
    for _ in range(500):
        altered = copy.deepcopy({"inputs": 2, "code": code})
        place = rng.choice(list(paths(altered)))
        holder = altered
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = rng.choice(NASTY)
        with contextlib.suppress(FileFormatError):
            assert parse(altered, "program").outputs >= 1


def test_small_region_holds_at_samples(small: dict, rng: np.random.Generator) -> None:
    assert check_claims(small)[0].outcome is Outcome.HOLDS
    _, loop, level = clipped_mass()
    x = loop.sample(rng, 20_000)
    x = x[loop.lyapunov(x) <= level]
    for _ in range(400):
        x = loop.move(x)
    assert np.abs(x).max() < 1e-6
