"""Matrix inequalities: pivots against minors, every condition by a forged file."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import encode
from constrained_nn.verify.claims import lmi as _lmi
from constrained_nn.verify.claims import sampled as _sampled
from tests.evidence.conditions import minimal
from tests.evidence.conditions.minimal import edit, finish, stated, verdict

INF = math.inf


# --- matrices ---

ONE = encode(1.0)


def test_matrices_in_rationals() -> None:
    """Random blocks: symmetric parts and their definiteness against eigenvalues, the smallest pivot against minors."""
    rng = np.random.default_rng(0)
    seen = set()
    for trial in range(80):
        p, k, s, n, count = rng.integers(1, 3), rng.integers(0, 2), rng.integers(0, 3), rng.integers(1, 4), 2
        draw = lambda *shape: np.round(rng.normal(size=shape) * 4) / 8  # noqa: E731
        S = draw(count, p, p)
        S = S + S.swapaxes(1, 2)
        Y, z = draw(count, k, p), draw(count, s)
        shared = trial % 2
        block = {
            "constant": draw(1 if shared else count, n, n) + 2.0 * np.eye(n), "left": draw(count, n, p + k),
            "right": draw(1 if shared else count, p, n), "slopes": draw(count, s, n, n),
        }  # fmt: skip
        V = np.concatenate([S, Y], 1)
        half = block["left"] @ V @ block["right"]
        F = block["constant"] + half + half.swapaxes(1, 2) + np.einsum("es,esab->eab", z, block["slopes"])
        F = 0.5 * (F + F.swapaxes(1, 2))
        least = np.linalg.eigvalsh(F).min(-1)
        if np.abs(least).min() < 1e-6:
            continue
        numbers = {"S": S, "Y": Y, "z": z}
        claim = {
            "elements": count, "variables": [int(p), int(k), int(s)], "orders": [int(n)],
            "data": {name: encode(v.ravel().tolist()) for name, v in numbers.items()}
            | {"blocks": [{name: encode(v.ravel().tolist()) for name, v in block.items()}]},
        }  # fmt: skip
        found = _lmi.evaluate(claim, {})
        assert (found.verdict == "holds") is bool((least > 0).all())
        seen.add(found.verdict)
        if found.verdict == "holds":
            minors = [[1.0, *(np.linalg.det(M[:i, :i]) for i in range(1, n + 1))] for M in F]
            pivots = np.array([[b / a for a, b in itertools.pairwise(m)] for m in minors])
            assert found.pivot == pytest.approx(pivots.min(), rel=1e-9)
            assert (found.element, found.block, found.blocks) == (int(pivots.min(1).argmin()), 0, 2)
        else:
            first = int(np.flatnonzero(least < 0)[0])
            assert (found.element, found.block) == (first, 0)
            pivots = [np.linalg.det(F[first][:i, :i]) for i in range(1, n + 1)]
            at = next(i for i, m in enumerate(pivots) if m < 0)
            value = pivots[at] / (pivots[at - 1] if at else 1.0)
            assert found.pivot == pytest.approx(value, rel=1e-9)
            assert (
                f"element {first}, block 0 is not positive semidefinite: pivot {at} " in found.counterexample
            )
            assert float(found.counterexample.rsplit(" ", 1)[1]) == pytest.approx(value, rel=1e-5)
    assert len(seen) == 2


def test_pivots_that_vanish() -> None:
    for F, wanted in (
        ([[0]], (None, (0, 1))), ([[0, 1], [1, 5]], (0, (0, 1))), ([[0, 0], [0, 2]], (None, (0, 1))),
        ([[2, 0], [0, 0]], (None, (0, 1))), ([[1, 2], [2, 4]], (None, (0, 1))), ([[1, 2], [2, 3]], (1, (-1, 1))),
        ([[2, 0], [0, -3]], (1, (-6, 2))), ([[0, 0, 0], [0, 1, 2], [0, 2, 3]], (2, (-1, 1))), ([[-1]], (0, (-1, 1))),
        ([[4, 2], [2, 2]], (None, (4, 4))), ([[2, 0, 0], [0, 0, 1], [0, 1, 1]], (1, (0, 2))),
        ([[3, 1, 1], [1, 3, 1], [1, 1, 3]], (None, (20, 8))), ([[2, 0, 0], [0, 1, 0], [0, 0, 3]], (None, (2, 2))),
    ):  # fmt: skip
        assert _lmi._smallest_pivot(F) == wanted
    assert _lmi._ratio(10**400, 1) == 1.7976931348623157e308
    assert _lmi._ratio(-(10**400), 1) == -1.7976931348623157e308
    assert _lmi._ratio(1, 4) == 0.25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "holds: 4 blocks factored in exact arithmetic, smallest pivot 0.438"),
        ({"data__S": encode([0.5, 1.0])}, "smallest pivot 0"),
        ({"data__S": encode([0.5, 1.25])},
         "element 1, block 0 is not positive semidefinite: pivot 1 of its factorization is -0.5625"),
        ({"data__z": encode([-3.0, 1.0])},
         "element 0, block 1 is not positive semidefinite: pivot 0 of its factorization is -1"),
        ({"variables": [1, 1]}, "expected the numbers p, k and s"),
        ({"variables": [1, 1, 1, 1]}, "expected the numbers p, k and s"),
        ({"variables": [513, 1, 1]}, "from 0 to 512"),
        ({"variables": [0, 1, 0]}, "decisions without numbers"),
        ({"orders": [2]}, "expected 1 blocks, got 2"),
        ({"data__S": encode([0.5])}, "expected 1 numbers for each of 2 elements, got 1"),
        ({"data__Y": encode([0.5] * 3)}, "data.Y: expected 1 numbers"),
        ({"data__z": encode([0.5] * 3)}, "data.z: expected 1 numbers"),
        ({"data__blocks__0__left": encode([1.0] * 5)}, "data.blocks.left: expected 4 numbers"),
        ({"data__blocks__1__slopes": encode([1.0] * 3)}, "data.blocks.slopes: expected 1 numbers"),
        ({"data__blocks__0__left": encode([0.0] * 4)}, "holds"),  # the other block has decisions
        ({"data__blocks__1__slopes": encode(0.0), "data__Y": encode([1.0, 0.25])}, "holds"),
        ({"data__blocks__0__left": encode([0.0] * 4), "data__blocks__1__left": encode([0.0, 0.0]),
          "data__z": encode([1.0, 1.0])},
         "holds"),
        ({"elements": 3}, "for each of 3 elements"),
    ],
)  # fmt: skip
def test_matrices_of_a_file(changes: dict[str, Any], words: str) -> None:
    module, claim, certificate = minimal.lmi()
    assert words in verdict(module, edit(claim, **changes), certificate)


def test_matrices_must_be_symmetric() -> None:
    good = [1.0, 2.0, 3.0, 2.0, 5.0, 6.0, 3.0, 6.0, 9.0]
    block = {"constant": ONE, "left": encode([0.0] * 3), "right": encode([0.0] * 3), "slopes": ONE}
    for place in (None, 3, 6, 7):
        S = [v + 0.5 * (i == place) for i, v in enumerate(good)]
        data = {"S": encode(S), "Y": "", "z": ONE, "blocks": [block]}
        claim = {"elements": 1, "variables": [3, 0, 1], "orders": [1], "data": data}
        if place is None:
            assert _lmi.evaluate(claim, {}).pivot == 2.0
        else:
            with pytest.raises(
                FileFormatError, match=r"data\.S: expected a symmetric matrix, got another in element 0"
            ):
                _lmi.evaluate(claim, {})


def test_stated_pivots() -> None:
    assert finish(*minimal.lmi())["claims"][0]["worst"] == {"pivot": encode(0.4375), "element": 1, "block": 0}
    for name, value in (("pivot", encode(0.5)), ("element", 0), ("block", 1)):
        assert "worst: the claim says" in stated(minimal.lmi, **{f"worst__{name}": value})
    broken = _lmi.evaluate(edit(minimal.lmi()[1], data__z=encode([-3.0, 1.0])), {})
    assert (broken.elements, broken.blocks, broken.element, broken.block) == (2, 4, 0, 1)
    # the smallest of several, wherever it is
    module, claim, certificate = minimal.lmi()
    found = module.evaluate(edit(claim, data__z=encode([-1.75, 1.0])), certificate)
    assert (found.pivot, found.element, found.block) == (0.25, 0, 1)


def test_modules_say_what_they_found() -> None:
    assert _sampled.SampledAccount(3, 0, 0, 0, None).verdict == "consistent"
    assert _sampled.SampledAccount(3, 0, 0, 1, None).verdict == "inconclusive"
    assert _sampled.SampledAccount(3, 1, 0, 1, "bad").verdict == "counterexample"
