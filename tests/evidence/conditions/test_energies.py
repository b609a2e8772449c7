"""The share of an energy bound that rounding takes: against the formulas in 100 digits, and every condition."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import encode
from constrained_nn.verify.arithmetic import precision
from constrained_nn.verify.claims import energy as _energy
from tests.evidence.arithmetic.test_balls import ends
from tests.evidence.conditions.minimal import edit, energy, finish, stated, verdict

FORMS = ("diagonal", "low-rank", "fourier", "dense")


def gamma(m: int, u: mpf) -> mpf:
    return m * u / (1 - m * u)


def needed(claim: dict[str, Any], numbers: dict[str, Any], negligible: mpf) -> mpf:
    """`1 - σ` by the analysis in the module's docstring, written once more."""
    u = mpf(2) ** -53
    unit, tiny = (
        (u, mpf(2) ** -1022) if claim["state_dtype"] == "float64" else (mpf(2) ** -24, mpf(2) ** -126)
    )
    eta = u if claim["state_dtype"] == "float64" else u + unit + u * unit
    w, c = [mpf(v) for v in numbers["weights"]], [mpf(v) for v in numbers["center"]]
    n, r, form = math.prod(claim["shape"]), claim["rank"], claim["form"]
    norm = mpmath.sqrt(sum(v * v for v in c))
    if form == "diagonal":
        k, G, size = mpf(1), gamma(n + 1, u), sum(w)
        center = mpmath.sqrt(sum(q * v * v for q, v in zip(w, c, strict=True)))
    elif form == "low-rank":
        F = [[mpf(v) for v in numbers["factor"][i * r : (i + 1) * r]] for i in range(n)]
        a = mpmath.sqrt(sum(v * v / q for row, q in zip(F, w, strict=True) for v in row))
        k, size = mpmath.sqrt(1 + a * a), sum(w) * (1 + a * a)
        G = (1 + gamma(n, u) * a) ** 2 * (1 + gamma(n + r + 2, u)) - 1
        along = [sum(F[i][j] * c[i] for i in range(n)) for j in range(r)]
        center = mpmath.sqrt(sum(q * v * v for q, v in zip(w, c, strict=True)) + sum(v * v for v in along))
    elif form == "fourier":
        k = mpmath.sqrt(max(w) / min(w))
        G = (1 + k * 16 * (n.bit_length() + 2) * u) ** 2 * (1 + gamma(4 * n + 4, u)) - 1
        size, center = max(w) * n, mpmath.sqrt(max(w)) * norm
    else:
        Q = mpmath.sqrt(sum(v * v for v in w))
        k, G, size = (
            mpmath.sqrt(Q / mpf(numbers["floor"])),
            gamma(2 * n, u) * Q / mpf(numbers["floor"]),
            Q * n,
        )
        center = mpmath.sqrt(Q) * norm
    G += negligible
    least = mpmath.sqrt(mpf(numbers["alpha"]) * mpf(numbers["level"]))
    added = k * eta * center / least + 4 * tiny * mpmath.sqrt(size) / least + negligible
    asked = (1 + u) ** 2 * (1 + G) * (1 + k * u) ** 2
    kept = mpf(1) if claim["state_dtype"] == "float64" else (1 - added) / (1 + k * eta)
    inside = (kept * (1 - k * u)) ** 2 * (1 - G) / asked
    moved = ((1 - added) / ((1 + k * eta) * (1 + k * u) * (1 + u) ** 2)) ** 2 * (1 - G) / asked
    return 1 - min(inside, moved)


def near(claim: dict[str, Any], share: mpf) -> bool:
    """Whether the checker's share is that of the formulas, to 60 digits."""
    with precision(256):
        ours = _energy._largest_share(_energy._read(claim))
        assert ours is not None
        least, most = ends(ours)
    return bool(abs(least - 1 + share) < 1e-60 and abs(most - 1 + share) < 1e-60)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_share_of_a_long_factor(dtype: str) -> None:
    """`k = 2^45`: a proposal that is kept is the nearer to its bound, which it is not where `k` is small."""
    _, claim, _ = energy()
    numbers = {
        "weights": [1.0, 4.0],
        "center": [0.0, 0.0],
        "factor": [2.0**45, 0.0],
        "alpha": 0.5,
        "level": 1.0,
    }
    claim = edit(
        claim, form="low-rank", rank=1, state_dtype=dtype, data__factor=encode(numbers["factor"]),
        data__center=encode([0.0, 0.0]),
    )  # fmt: skip
    with mpmath.workprec(300):
        assert near(claim, needed(claim, numbers, mpf(2) ** -300))


def drawn(form: str, dtype: str, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    _, claim, _ = energy()
    shape = [3, 4] if form == "fourier" else [int(rng.integers(1, 5))]
    n, rank = math.prod(shape), 2 if form == "low-rank" else 0
    count = {"fourier": 9, "dense": n * n}.get(form, n)
    numbers: dict[str, Any] = {
        "weights": (rng.uniform(0.5, 8, count)).tolist(), "center": rng.normal(size=n).tolist(),
        "factor": rng.normal(size=n * rank).tolist(),
        "floor": 0.25, "alpha": float(rng.uniform(0.2, 1)), "level": float(2.0 ** rng.integers(-200, 20)),
    }  # fmt: skip
    if numbers["level"] < 1e-3:  # else the center alone is too far
        numbers["center"] = [v * math.sqrt(numbers["level"]) for v in numbers["center"]]
    if form == "dense":
        M = rng.normal(size=(n, n))
        numbers["weights"] = (M @ M.T + np.eye(n) + 0.125 * (M - M.T)).ravel().tolist()
    claim = edit(
        claim, form=form, shape=shape, rank=rank, state_dtype=dtype, safety=encode(0.5),
        **{k: encode(numbers[k]) for k in ("alpha", "level")},
        **{f"data__{k}": encode(numbers[k]) for k in _energy.DATA},
    )  # fmt: skip
    return claim, numbers


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("negligible", [2.0**-300, 2.0**-30])
def test_share_that_rounding_takes(
    form: str, dtype: str, negligible: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_energy, "_NEGLIGIBLE", negligible)
    rng = np.random.default_rng(len(form) + len(dtype))
    with mpmath.workprec(300):
        for _ in range(12):
            claim, numbers = drawn(form, dtype, rng)
            share = needed(claim, numbers, mpf(negligible))
            assert near(claim, share)
            found = _energy.evaluate(claim, {})
            assert found.needed == pytest.approx(float(share), rel=1e-9)
            assert found.verdict == ("holds" if share < 0.5 else "inconclusive")
            for safety, holds in ((share * (1 + mpf(2) ** -20), True), (share * (1 - mpf(2) ** -20), False)):
                if 1e-10 < share < 0.5:
                    tight = _energy.evaluate(edit(claim, safety=encode(float(safety))), {})
                    assert (tight.verdict == "holds") is holds
                    assert (tight.lacking is None) is holds


def test_what_the_data_of_every_form_have() -> None:
    for form, shape, rank, counts in (
        ("diagonal", [3], 0, (3, 3, 0)), ("low-rank", [3], 2, (3, 3, 6)), ("fourier", [3, 4], 0, (9, 12, 0)),
        ("fourier", [3, 5], 0, (9, 15, 0)), ("dense", [3], 0, (9, 3, 0)),
    ):  # fmt: skip
        _, claim, _ = energy()
        weights = np.eye(3).ravel().tolist() if form == "dense" else [1.0] * counts[0]
        claim = edit(
            claim, form=form, shape=shape, rank=rank, data__weights=encode(weights),
            data__center=encode([0.0] * counts[1]),
            data__factor=encode([0.5] * counts[2]), data__floor=encode(0.5),
        )  # fmt: skip
        assert _energy.evaluate(claim, {}).verdict == "holds"
        for name, count in zip(("weights", "center", "factor"), counts, strict=True):
            with pytest.raises(FileFormatError, match=f"data.{name}: expected {count} numbers"):
                _energy.evaluate(edit(claim, **{f"data__{name}": encode([1.0] * (count + 1))}), {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"form": "odd"}, "form, state_dtype"), ({"state_dtype": "float16"}, "form, state_dtype"),
        ({"shape": [2, 2]}, "number of components"),
        ({"shape": []}, "number of components"), ({"form": "fourier"}, "number of components"),
        ({"rank": 1}, "factor of low rank only, got 1"),
        ({"form": "low-rank"}, "factor of low rank only, got 0"),
        ({"form": "dense", "shape": [129]}, "at most 128 components"),
        ({"form": "fourier", "shape": [2**11, 2**10]}, "at most 1048576 components"),
        ({"shape": [2**20 + 1]}, "from 1 to 1048576"),
        ({"alpha": encode(0.0)}, "alpha = 0.0 is not in (0, 1]"),
        ({"alpha": encode(1.25)}, "alpha = 1.25 is not in (0, 1]"),
        ({"alpha": encode(-0.5)}, "alpha = -0.5"), ({"alpha": encode(1.0)}, "holds"),
        ({"level": encode(-1.0)}, "level = -1.0 is not positive"),
        ({"level": encode(0.0)}, "level = 0.0 is not positive"),
        ({"safety": encode(1.0)}, "safety = 1.0 is not in [0, 1)"),
        ({"safety": encode(-0.5)}, "safety = -0.5"), ({"safety": encode(0.0)}, "0 are kept free (build the model"),
        ({"data__weights": encode([1.0, -4.0])}, "Q is not positive definite: weight 1 is -4.0"),
        ({"data__weights": encode([0.0, 4.0])}, "Q is not positive definite: weight 0 is 0.0"),
        ({"data__weights": encode([1.0, 2.0**301])}, "too badly conditioned"),
        ({"data__weights": encode([1.0, 2.0**-301])}, "too badly conditioned"),
        ({"data__weights": encode([1.0, 2.0**299]), "data__center": encode([0.0, 0.0])}, "holds"),
        ({"data__weights": encode([1.0, 2.0**-299])}, "holds"),
        ({"level": encode(2.0**-301), "data__center": encode([0.0, 0.0])}, "too badly conditioned"),
        ({"level": encode(2.0**-299), "data__center": encode([0.0, 0.0])}, "holds"),
        ({"data__center": encode([0.0, 2.0**60])}, "too badly conditioned"),
        ({"data__center": encode([0.0, -(2.0**301)])}, "too badly conditioned"),
    ],
)  # fmt: skip
def test_energies_that_are_refused(changes: dict[str, Any], words: str) -> None:
    module, claim, certificate = energy()
    assert words in verdict(module, edit(claim, **changes), certificate)


def test_conditioning_of_matrices() -> None:
    """`G >= 1` by itself, while `k u < 1`; and a floor beyond the range."""
    module, claim, certificate = energy()
    dense = edit(
        claim,
        form="dense",
        data__weights=encode([1.0, 0.0, 0.0, 1.0]),
        data__floor=encode(0.5),
        safety=encode(0.25),
    )
    assert verdict(module, dense, certificate).startswith("holds")
    for floor, words in (
        (2.0**-52, "too badly conditioned"), (2.0**-301, "too badly conditioned"),
        (0.0, "floor = 0.0 is not positive"), (-1.0, "floor = -1.0"),
        (1.0, "holds"), (1.25, "Q - floor I is not positive semidefinite: see pivot 0"),
    ):  # fmt: skip
        assert words in verdict(module, edit(dense, data__floor=encode(floor)), certificate)
    low = edit(claim, form="low-rank", rank=1, data__factor=encode([2.0**52, 0.0]))
    assert "too badly conditioned" in verdict(module, low, certificate)
    fourier = edit(
        claim,
        form="fourier",
        shape=[1, 2],
        data__weights=encode([1.0, 2.0**110]),
        data__center=encode([0.0, 0.0]),
    )
    assert "too badly conditioned" in verdict(module, fourier, certificate)


def test_definiteness_of_matrices() -> None:
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(60):
        n = int(rng.integers(1, 4))
        M = np.round(rng.normal(size=(n, n)) * 8) / 8 + 1.5 * np.eye(n)
        floor = float(rng.integers(1, 8)) / 8
        least = np.linalg.eigvalsh(0.5 * (M + M.T)).min() - floor
        _, claim, _ = energy()
        claim = edit(
            claim, form="dense", shape=[n], data__weights=encode(M.ravel().tolist()), data__center=encode([0.0] * n),
            data__floor=encode(floor), safety=encode(0.25),
        )  # fmt: skip
        if abs(least) > 1e-9:
            assert (_energy.evaluate(claim, {}).counterexample is None) is bool(least > 0)
            seen.add(bool(least > 0))
    assert len(seen) == 2


def test_stated_energies() -> None:
    assert stated(energy).startswith("holds")
    certificate = finish(*energy())
    (claim,) = certificate["claims"]
    share = float.fromhex(claim["needed"])
    for value in (math.nextafter(share, 0), math.nextafter(share, 1)):
        assert "needed: the claim says" in stated(energy, needed=encode(value))
    assert "fingerprint: the numbers" in stated(energy, fingerprint="0" * 64)
    assert "decreases to the level and stays there" in claim["statement"]
    one = edit(claim, alpha=encode(1.0))
    assert "never grows above the level or its start" in _energy.statement(one, certificate)
    # every number is in the fingerprint
    before = _energy.fingerprint(claim)
    for name in (*(k for k in _energy.KEYS[5:-3]), *(f"data__{k}" for k in _energy.DATA)):
        assert _energy.fingerprint(edit(claim, **{name: "other"})) != before
    for name in ("needed", "statement", "verdict"):
        assert _energy.fingerprint(edit(claim, **{name: "other"})) == before


def test_precision_does_not_depend_on_the_caller() -> None:
    _, claim, _ = energy()
    with precision(10):
        found = _energy.evaluate(claim, {})
    assert found == _energy.evaluate(claim, {})
    assert found.line.startswith(
        "holds: rounding takes less than 2.63e-15 of the bound, 9.09e-13 are kept free"
    )
