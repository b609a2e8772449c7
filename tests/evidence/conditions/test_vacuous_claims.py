"""A claim about nothing is refused, whatever the kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from constrained_nn.verify import encode
from tests.evidence.conditions import minimal
from tests.evidence.conditions.minimal import edit, program, verdict

Kind = Callable[..., tuple[Any, dict[str, Any], dict[str, Any]]]
KINDS = (
    minimal.rows, minimal.sampled, minimal.lmi, minimal.lyapunov, minimal.barrier, minimal.outputs, minimal.model,
    minimal.energy, minimal.energy_runs,
)  # fmt: skip
ZERO, INF = encode(0.0), math.inf


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_claims_that_say_something_stand(kind: Kind) -> None:
    assert verdict(*kind()).startswith(("holds", "consistent"))


@pytest.mark.parametrize("motion", ["step", "held", "continuous"])
def test_motions_stand(motion: str) -> None:
    assert verdict(*minimal.lyapunov(motion)).startswith("holds")


VACUOUS: list[tuple[Kind, dict[str, Any], str]] = [
    # no row, no run, no bound, no coefficient
    (minimal.rows, {"data__A": encode([0.0] * 8)}, "Nothing is claimed"),
    (minimal.rows, {"data__lower": encode([-INF] * 8), "data__upper": encode([INF] * 8)}, "Nothing is claimed"),
    (
        minimal.rows,
        {"data__A": encode([0.0, 1.0] * 4), "data__lower": encode([-INF] * 8), "data__upper": encode([1.0, INF] * 4)},
        "Nothing is claimed",
    ),
    (minimal.rows, {"data__lower": "", "data__upper": "", "data__A": "", "rows": 0}, "expected the same rows"),
    (minimal.rows, {"data__counts": []}, "expected the same rows"),
    (minimal.sampled, {"runs": 0}, "from 1"),
    (
        minimal.sampled,
        {"data__margin": encode([INF] * 3), "worst__margin": encode(INF), "worst__margin_run": 0},
        "Nothing is claimed",
    ),
    (
        minimal.sampled,
        {"data__excess": encode([-INF] * 3), "worst__excess": encode(-INF), "worst__excess_run": 0},
        "Nothing is claimed",
    ),
    (minimal.lmi, {"elements": 0}, "from 1"),
    (minimal.lmi, {"orders": [], "data__blocks": []}, "expected 0 blocks"),
    (minimal.lmi, {"orders": [0, 1]}, "from 1"),
    (
        minimal.lmi,
        {"data__blocks__0__left": encode([0.0] * 4), "data__blocks__1__right": ZERO, "data__blocks__1__slopes": ZERO},
        "Nothing is claimed",
    ),
    # no state in the set, no set
    (minimal.lyapunov, {"level": encode(-1.0), "data__cover": "000od0di00id0do"}, "V <= level"),
    (minimal.lyapunov, {"level": encode(2.0**-5)}, "V <= level"),
    (minimal.lyapunov, {"data__lower": encode([1.0])}, "less than data.upper"),
    (minimal.lyapunov, {"data__cover": "?"}, "open"),
    (minimal.barrier, {"lower": encode([2.2])}, "lower < upper"),
    (minimal.barrier, {"barriers": []}, "at least one"),
    (minimal.barrier, {"data__cover": ".", "data__witness": ""}, "not outside"),
    (minimal.outputs, {"rows": 0, "data__A": "", "data__bound": ""}, "from 1"),
    (minimal.outputs, {"data__A": encode([0.0, -0.0])}, "Nothing is claimed"),
    (minimal.outputs, {"data__lower": encode([1.5])}, "no more than"),
    (minimal.outputs, {"data__cover": "?"}, "open"),
    (minimal.model, {"states": 0, "data__x": "", "data__velocity": ""}, "from 1"),
    (minimal.model, {"data__lower": ZERO}, "inside the box"),
    (minimal.model, {"data__hole": encode([2.0])}, "in the hole"),
    (minimal.energy, {"shape": [0]}, "from 1"),
    (minimal.energy, {"level": ZERO}, "not positive"),
    (minimal.energy_runs, {"runs": 0}, "from 1"),
    (minimal.energy_runs, {"steps": 0}, "from 1"),
    (minimal.energy_runs, {"data__ratio": encode([-INF] * 3)}, "ratios of energies"),
    (minimal.energy_runs, {"data__growth": encode([0.5, -0.5, 0.5])}, "ratios of energies"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "words"), VACUOUS)
def test_claims_about_nothing_are_refused(kind: Kind, changes: dict[str, Any], words: str) -> None:
    module, claim, certificate = kind()
    found = verdict(module, edit(claim, **changes), certificate)
    assert words in found
    assert not found.startswith(("holds", "consistent"))


def test_an_empty_safe_set_is_not_safe() -> None:
    """`h = -1`: every row and every curvature holds at all states of the set, of which there are none."""
    module, claim, certificate = minimal.barrier()
    claim = edit(
        claim, barriers__0__value=program(1, ["const", encode([-1.0])]), start=None, data__start="",
        barriers__0__curvature=program(1, ["const", encode([0.0, 0.0])]), data__cover="+", data__witness=ZERO,
    )  # fmt: skip
    assert "not empty" in verdict(module, claim, certificate)
    assert "not empty" in verdict(module, edit(claim, data__cover="0..", data__witness=""), certificate)


def test_a_safe_set_around_a_corner_is_not_empty() -> None:
    """`1/16 + x >= 0` and `1/16 - x >= 0`, kept by `u = 0`: the middles of both boxes are outside."""
    module, claim, certificate = minimal.barrier()
    (wall,) = edit(claim, barriers__0__curvature=program(1, ["const", encode([0.0, 0.0])]))["barriers"]
    walls = [edit(wall, value=program(1, ["affine", 0, encode([a]), encode([0.0625])])) for a in (1.0, -1.0)]
    claim = edit(
        claim, barriers=walls, start=None, data__start="", data__cover="0++", data__witness="0x0p+0 0x0p+0"
    )
    assert verdict(module, claim, certificate).startswith("holds: 2 of 2")
