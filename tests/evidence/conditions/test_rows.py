"""Recorded rows: every number against rationals, every condition by a forged file."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import pytest

from constrained_nn.verify import encode
from constrained_nn.verify.claims import rows as _rows
from tests.evidence.conditions import minimal
from tests.evidence.conditions.minimal import edit, finish, stated, verdict

INF = math.inf


# --- rows ---


def drawn(rng: random.Random) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[float]]]:
    """Four held inputs of two components, three rows each; some bounds are infinite."""
    number = lambda: rng.randint(-16, 16) / 8  # noqa: E731
    data = {"A": [number() for _ in range(24)], "u": [number() for _ in range(8)]}
    data["upper"] = [rng.choice((INF, number())) for _ in range(12)]
    data["lower"] = [rng.choice((-INF, number())) for _ in range(12)]
    _, claim, _ = minimal.rows()
    claim = edit(
        claim, rows=12, data__x=encode([0.0] * 8), **{f"data__{k}": encode(v) for k, v in data.items()}
    )
    return claim, minimal.head(2, 2, dt=0.5, horizon=2), data


def test_rows_in_rationals() -> None:
    rng = random.Random(0)
    for _ in range(60):
        claim, certificate, data = drawn(rng)
        excesses: list[tuple[Fraction, int, int, str]] = []
        for k in range(12):
            a, u = data["A"][2 * k : 2 * k + 2], data["u"][2 * (k // 3) : 2 * (k // 3) + 2]
            terms = [Fraction(p) * Fraction(q) for p, q in zip(a, u, strict=True)]
            for side, bound, sign in (("upper", data["upper"][k], 1), ("lower", data["lower"][k], -1)):
                if math.isfinite(bound):
                    size = sum(map(abs, terms)) + abs(Fraction(bound))
                    excess = sign * (sum(terms) - Fraction(bound))
                    excesses.append((excess / size if size else Fraction(0), k // 3, k % 3, side))
        found = _rows.evaluate(claim, certificate)
        worst = max(e[0] for e in excesses)
        first = next(e for e in excesses if e[0] == worst)
        assert found.bounds == len(excesses)
        assert found.violated == sum(e[0] > Fraction(2) ** -40 for e in excesses)
        assert (found.worst.input, found.worst.row, found.worst.side) == first[1:]
        assert Fraction(found.excess) >= worst
        assert Fraction(math.nextafter(found.excess, -INF)) < worst
        assert (found.verdict == "counterexample") is (found.violated > 0)


def test_description_of_a_broken_row() -> None:
    module, claim, certificate = minimal.rows()
    claim = edit(
        claim, data__upper=encode([INF, 4.0, INF, 3.0, INF, 5.0, INF, 2.0]), data__A=encode([1.0] * 7 + [2.0]),
    )  # fmt: skip
    bad = edit(claim, data__u=encode([-1.0, 0.5, 0.75, 3.0]))
    words = verdict(module, bad, certificate)
    assert "1 of 8 bounds fail; worst in run 1 at t = 0.5 s, row 1: A u = 6 beyond upper = 2" in words
    assert words.endswith("relative excess 0.5 above 9.09495e-13, at x1 = 0.75")
    bad = edit(claim, data__u=encode([-3.0, 0.5, 0.75, 1.0]))
    assert "worst in run 0 at t = 0 s, row 0: A u = -3 beyond lower = -1" in verdict(module, bad, certificate)
    bad = edit(claim, data__u=encode([-1.0, 1e308, 0.75, 1.0]), data__A=encode([1.0, 1e308] * 4))
    assert "A u = inf beyond" in verdict(module, bad, certificate)
    bad = edit(claim, data__u=encode([-1.0, -1e308, 0.75, 1.0]), data__A=encode([1e308, 2.0] * 4))
    assert "A u = -inf beyond" in verdict(module, bad, certificate)


def test_tolerance_of_a_row() -> None:
    """`2 u <= 2` at `u = 1 + t`: the excess is `t / (2 + t)` of the scale, allowed up to `rtol`."""
    module, claim, certificate = minimal.rows()
    for t, holds in ((2.0**-40, True), (2.0**-39, True), (2.0**-38, False)):
        words = verdict(module, edit(claim, data__u=encode([-1.0, 0.5, 0.75, 1 + t])), certificate)
        assert words.startswith("holds") is holds
    float32 = edit(certificate, controller__dtype="float32")
    for rtol, dtype, words in (
        (1e-9, certificate, "holds"), (1.1e-9, certificate, "at most 1e-09"), (1e-4, float32, "holds"),
        (1.1e-4, float32, "at most 0.0001"), (-1e-12, certificate, "at most"), (0.0, certificate, "holds"),
        (0.0, edit(certificate, controller__dtype="float16"), "float64 or float32"),
    ):  # fmt: skip
        assert words in verdict(module, edit(claim, rtol=encode(rtol)), dtype)
    for name in ("A", "lower", "upper", "u"):
        odd = claim["data"][name].split()
        odd[-1] = encode(0.1)
        words = verdict(module, edit(claim, **{f"data__{name}": " ".join(odd)}), float32)
        assert f"data.{name}: expected float32 numbers" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__t": encode([0.0, 0.5, 0.0, 0.51])}, "run 1 has no input from t = 0.5 s to t = 0.51 s"),
        ({"data__t": encode([0.0, 0.5, 0.0, 0.49])}, "run 1 has no input"),
        ({"data__t": encode([0.01, 0.5, 0.0, 0.5])}, "run 0 has no input from t = 0 s"),
        ({"data__t": encode([0.0, 0.5, 0.0, 0.5 + 2.0**-40])}, "holds"),
        ({"data__dt": encode([0.5, 0.5, 0.5, 0.0])}, "run 1 has no input"),
        ({"data__dt": encode([0.5, 0.5, 1.0, -0.5])}, "run 1 has no input"),
        ({"data__dt": encode([0.5, 0.25, 0.5, 0.5])}, "run 0 ends at t = 0.75 s instead of 1 s"),
        ({"data__dt": encode([0.5, 0.75, 0.5, 0.5])}, "run 0 ends at t = 1.25 s"),
        ({"data__t": encode([0.0, 0.5 + 4e-10, 0.0, 0.5])}, "holds"),
        ({"data__t": encode([0.0, 0.5 + 1e-9, 0.0, 0.5])}, "run 0 has no input"),
        (
            {
                "data__counts": [1, 3],
                "data__t": encode([0.0, 0.0, 0.25, 0.5]),
                "data__dt": encode([1.0, 0.25, 0.25, 0.5]),
            },
            "holds",
        ),
        ({"data__counts": [4, 0]}, "run 0 has no input from t = 1 s"),
        ({"data__counts": [1, 3]}, "run 0 ends"),
        ({"starts": 3}, "starts: the claim says 3, the data hold 2"),
        ({"inputs": 5}, "inputs: the claim says 5"),
        ({"rows": 9}, "rows: the claim says 9"),
        ({"data__lower": encode([-1.0, INF] * 4)}, "bounds that a number can meet"),
        ({"data__upper": encode([INF, -INF] * 4)}, "bounds that a number can meet"),
        ({"data__lower": encode([-1.0, -INF, -1.0])}, "expected the same rows"),
        ({"data__upper": encode([1.0] * 7)}, "expected 8 numbers"),
        ({"data__A": encode([1.0] * 7)}, "expected 8 numbers"),
        ({"data__u": encode([1.0] * 3)}, "expected 4 numbers"),
        ({"data__x": encode([1.0] * 3)}, "expected 4 numbers"),
    ],
)
def test_rows_that_are_refused(changes: dict[str, Any], words: str) -> None:
    module, claim, certificate = minimal.rows()
    assert words in verdict(module, edit(claim, **changes), certificate)


def test_times_of_float32_runs() -> None:
    """A gap of a thousandth of a step is rounding there, and none in float64."""
    module, claim, certificate = minimal.rows()
    late = edit(claim, data__t=encode([0.0, 0.5 + 2.0**-12, 0.0, 0.5]), rtol=encode(2.0**-20))
    assert "no input" in verdict(module, edit(late, rtol=encode(0.0)), certificate)
    assert verdict(module, late, edit(certificate, controller__dtype="float32")).startswith("holds")


def test_stated_rows() -> None:
    assert stated(minimal.rows).startswith("holds")
    words = finish(*minimal.rows())["claims"][0]["statement"]
    assert (
        "In each of 2 recorded runs of hand (version 1) and at each of the 4 inputs u held from 0 to 1 s"
        in words
    )
    assert "8 rows, 8 finite bounds" in words
    place = {"excess": encode(0.0), "input": 0, "row": 0, "side": "lower"}
    assert finish(*minimal.rows())["claims"][0]["worst"] == place
    for name, value, words in (
        ("bounds", 9, "bounds: the claim says 9"), ("worst__excess", encode(0.5), "worst.excess"),
        ("worst__input", 1, "names"),
        ("worst__row", 1, "names"), ("worst__side", "upper", "names"),
    ):  # fmt: skip
        assert words in stated(minimal.rows, **{name: value})
