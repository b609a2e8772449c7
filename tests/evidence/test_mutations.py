"""Altered certificates: an exact oracle that shares nothing with the checker says which claims became false."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import re
import struct
from fractions import Fraction

import pytest
from scipy.stats import beta

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import Outcome, check, check_claims, conclusion, digest
from constrained_nn.verify.claims import (  # for the forger alone; the oracle has its own mathematics
    rows as _rows,
)
from constrained_nn.verify.claims import sampled as _sampled
from tests.evidence.subjects import TASK, Filtered, make, subject

ALTERATIONS = 300
ARRAYS = ("t", "dt", "x", "A", "lower", "upper", "u")


# --- the oracle: whether every claim is true of, and covered by, the data of its own file ---


def numbers(text: str) -> list[float]:
    return [float.fromhex(token) for token in text.split()]


def exact(value: float) -> Fraction:
    return Fraction(*value.as_integer_ratio())


def rows_are_true(certificate: dict, claim: dict) -> bool:
    d = claim["data"]
    t, dt, x, A, lower, upper, u = (numbers(d[name]) for name in ARRAYS)
    inputs, n = len(t), len(certificate["task"]["input"])
    rows = len(lower) // inputs
    sizes = [len(v) for v in (dt, x, A, lower, upper, u)]
    state = len(certificate["task"]["state"])
    if sizes != [inputs, inputs * state, inputs * rows * n, inputs * rows, inputs * rows, inputs * n]:
        return False
    if any(math.isnan(v) for v in t + dt + x + A + lower + upper + u):
        return False
    if any(math.isinf(v) for v in t + dt + x + A + u):
        return False
    rtol = float.fromhex(claim["rtol"])
    if not 0 <= rtol <= {"float64": 1e-9, "float32": 1e-4}.get(certificate["controller"]["dtype"], -1):
        return False
    if certificate["controller"]["dtype"] == "float32" and any(single(v) != v for v in A + lower + upper + u):
        return False
    worst, bounds = None, 0
    for k in range(inputs * rows):
        y = u[k // rows * n : k // rows * n + n]
        terms = [exact(a) * exact(v) for a, v in zip(A[k * n : k * n + n], y, strict=True)]
        value, size = sum(terms), sum(abs(v) for v in terms)
        for bound, sign, free in ((upper[k], 1, math.inf), (lower[k], -1, -math.inf)):
            if bound == free:
                continue
            if math.isinf(bound):
                return False
            bounds += 1
            excess, scale = sign * (value - exact(bound)), size + abs(exact(bound))
            if excess > exact(rtol) * scale:
                return False
            ratio = excess / scale if scale else Fraction(0)
            worst = ratio if worst is None else max(worst, ratio)
    counts = {"starts": len(d["counts"]), "inputs": inputs, "rows": inputs * rows, "bounds": bounds}
    if any(claim[name] != value for name, value in counts.items()) or sum(d["counts"]) != inputs:
        return False
    if worst is None or exact(float.fromhex(claim["worst"]["excess"])) < worst:
        return False
    return covered(certificate["task"], d["counts"], t, dt)


def single(value: float) -> float:
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.nan


def covered(task: dict, counts: list[int], t: list[float], dt: list[float]) -> bool:
    """Every run is a chain of intervals from 0 to the horizon, to a thousand-millionth of a control interval."""
    step = exact(float.fromhex(task["dt"]))
    slack, first = step / 10**9, 0  # of a float32 run, which is genuine in none of these, it would be larger
    for count in counts:
        reached = Fraction(0)
        for begin, length in list(zip(t, dt, strict=True))[first : first + count]:
            if length <= 0 or abs(exact(begin) - reached) > slack:
                return False
            reached = exact(begin) + exact(length)
        if abs(reached - task["horizon"] * step) > slack:
            return False
        first += count
    return True


def sample_is_true(certificate: dict, claim: dict) -> bool:
    d, runs = claim["data"], claim["runs"]
    margin, excess, complete = numbers(d["margin"]), numbers(d["excess"]), d["complete"]
    if not len(margin) == len(excess) == len(complete) == runs or any(map(math.isnan, margin + excess)):
        return False
    rtol, confidence = float.fromhex(claim["rtol"]), float.fromhex(claim["confidence"])
    if not 0 <= rtol <= {"float64": 1e-9, "float32": 1e-4}.get(certificate["controller"]["dtype"], -1):
        return False
    whole = [i for i in range(runs) if complete[i] == "1"]
    events = {
        "collision": sum(margin[i] < 0 for i in whole),
        "violation": sum(excess[i] > rtol for i in whole),
    }
    lost = runs - len(whole)
    if (claim["collisions"], claim["violations"], claim["incomplete"]) != (*events.values(), lost):
        return False
    if any(events.values()) or lost or not 0.5 < confidence < 1:
        return False
    for name, count in events.items():
        least = beta.ppf(confidence, count + 1, runs - count)
        if float.fromhex(claim[f"{name}_bound"]) < least * (1 - 1e-11):
            return False
    worst = claim["worst"]
    return float.fromhex(worst["margin"]) <= min(margin) and float.fromhex(worst["excess"]) >= max(excess)


def words_are_true(certificate: dict, claim: dict) -> bool:
    """Every number in the statement is the one that the fields hold."""
    said = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w(])", claim["statement"])
    task = certificate["task"]
    rtol = float.fromhex(claim["rtol"])
    if claim["kind"] == "rows":
        end = task["horizon"] * float.fromhex(task["dt"])
        held = [
            claim["starts"],
            task["version"],
            claim["inputs"],
            0,
            end,
            rtol,
            claim["rows"],
            claim["bounds"],
        ]
    else:
        held = [claim["runs"], task["version"], claim["collisions"], 0, claim["violations"], rtol]
        held += [claim["incomplete"]]
        held += [float.fromhex(claim[f]) for f in ("collision_bound", "violation_bound", "confidence")]
    said = [float(number) for number in said]
    same = len(said) == len(held) and all(
        math.isclose(a, b, rel_tol=1e-5) for a, b in zip(said, held, strict=True)
    )
    return same and task["name"] in claim["statement"]


def is_true(certificate: dict) -> bool:
    kinds = {"rows": ("proof", rows_are_true), "closed-loop": ("sampled", sample_is_true)}
    try:
        for claim in certificate["claims"]:
            grade, decide = kinds[claim["kind"]]
            if (
                claim["grade"] != grade
                or not words_are_true(certificate, claim)
                or not decide(certificate, claim)
            ):
                return False
    except (KeyError, ValueError, OverflowError, TypeError):
        return False
    return True


# --- the alterations ---


def bit_flipped(value: float, rng: random.Random) -> float:
    (word,) = struct.unpack("<Q", struct.pack("<d", value))
    return struct.unpack("<d", struct.pack("<Q", word ^ (1 << rng.randrange(64))))[0]


CHANGES = (
    bit_flipped,
    lambda v, rng: -v,
    lambda v, rng: v * (1 + rng.choice([1e-12, 1e-8, 1e-3, 0.5, 10.0])),
    lambda v, rng: v - abs(v) * rng.choice([1e-12, 1e-8, 1e-3, 0.5]),
    lambda v, rng: 0.0,
    lambda v, rng: rng.choice([math.inf, -math.inf, math.nan]),
    lambda v, rng: rng.choice([1e308, -1e308, 5e-324]),
)


def hexadecimal(values: list[float]) -> str:
    def one(v: float) -> str:
        mantissa, p, exponent = v.hex().partition("p")
        return mantissa.rstrip("0").rstrip(".") + p + exponent if p else mantissa

    return " ".join(map(one, values))


def change_number(holder: dict, key: str, rng: random.Random) -> None:
    values = numbers(holder[key])
    i = rng.randrange(len(values))
    values[i] = rng.choice(CHANGES)(values[i], rng)
    holder[key] = hexadecimal(values)


def change_integer(holder: dict, key: str, rng: random.Random) -> None:
    holder[key] += rng.choice([-1, 1, 1000])


def drop_inputs(claim: dict, certificate: dict, gone: set[int]) -> None:
    """Leave out held inputs from every array and count, as a careful forger would."""
    d, inputs = claim["data"], claim["inputs"]
    for name in ARRAYS:
        values = numbers(d[name])
        width = len(values) // inputs
        d[name] = hexadecimal([v for k, v in enumerate(values) if k // width not in gone])
    first, counts = 0, []
    for count in d["counts"]:
        counts.append(sum(i not in gone for i in range(first, first + count)))
        first += count
    rows = claim["rows"] // inputs
    d["counts"] = counts
    claim["inputs"] -= len(gone)
    claim["rows"] -= rows * len(gone)
    claim["bounds"] -= rows * len(gone)


def alter(certificate: dict, rng: random.Random) -> dict:
    """One alteration, of a kind and at a place drawn by `rng`."""
    altered = copy.deepcopy(certificate)
    rows, loop = altered["claims"]
    kind = rng.randrange(16)
    if kind < 5:
        change_number(
            rows["data"], rng.choice(["A", "u", "upper", "lower", "A", "u", "upper", "t", "dt", "x"]), rng
        )
    elif kind == 5:
        holder, key = rng.choice(
            [
                (rows, "rtol"),
                (loop, "rtol"),
                (loop, "confidence"),
                (rows["worst"], "excess"),
                (altered["task"], "dt"),
            ]
        )
        change_number(holder, key, rng)
    elif kind == 6:
        change_number(loop, rng.choice(["collision_bound", "violation_bound"]), rng)
    elif kind == 7:
        change_number(loop["worst"], rng.choice(["margin", "excess", "margin_start"]), rng)
    elif kind in (8, 9):
        change_number(loop["data"], rng.choice(["margin", "excess"]), rng)
    elif kind == 10:
        holder, keys = rng.choice(
            [
                (rows, ["starts", "inputs", "rows", "bounds"]),
                (loop, ["runs", "collisions", "violations", "incomplete"]),
                (altered["task"], ["version", "horizon"]),
                (altered, ["seed"]),
            ]
        )
        change_integer(holder, rng.choice(keys), rng)
    elif kind == 11:
        drop_inputs(rows, altered, {rng.randrange(rows["inputs"])})
    elif kind == 12:
        counts = rows["data"]["counts"]
        if rng.random() < 0.5:
            counts[0] += 1
            counts[1] -= 1
        else:
            drop_inputs(rows, altered, set(range(counts[0])))
            rows["data"]["counts"] = rows["data"]["counts"][1:]
            rows["starts"] -= rng.choice([0, 1])
    elif kind == 13:
        holder = rng.choice([rows, loop])
        digits = [m.span() for m in re.finditer(r"\d", holder["statement"])]
        start, end = rng.choice(digits)
        holder["statement"] = (
            holder["statement"][:start] + rng.choice("0123456789") + holder["statement"][end:]
        )
    elif kind == 14:
        holder, key, value = rng.choice(
            [
                (rows, "grade", "sampled"),
                (loop, "grade", "proof"),
                (loop, "kind", "rows"),
                (loop["data"], "complete", "0" + loop["data"]["complete"][1:]),
                (loop["data"], "complete", loop["data"]["complete"][1:]),
                (altered["controller"], "dtype", "float32"),
                (altered["controller"], "dtype", "float16"),
                (altered["task"], "name", "pendulum"),
                (altered["controller"], "sha256", "0" * 64),
            ]
        )
        holder[key] = value
    else:  # one u pushed over a bound, by less or by more than the tolerance
        push_over(rows, certificate, rng)
    if rng.random() < 0.5:
        reword(altered)
    return altered


def reword(certificate: dict) -> None:
    """A forger who rewrites the words, so that they say what the altered numbers say."""
    for claim, module in zip(certificate["claims"], (_rows, _sampled), strict=True):
        with contextlib.suppress(ValueError, OverflowError, KeyError, TypeError):
            claim["statement"] = module.statement(claim, certificate)


def push_over(claim: dict, certificate: dict, rng: random.Random) -> None:
    """Move one input across one bound by a little less or a little more than the tolerance."""
    d, n = claim["data"], len(certificate["task"]["input"])
    A, upper, u = numbers(d["A"]), numbers(d["upper"]), numbers(d["u"])
    rows = claim["rows"] // claim["inputs"]
    k = rng.randrange(claim["rows"])
    i, a = k // rows, A[k * n : k * n + n]
    y = u[i * n : i * n + n]
    scale = sum(abs(p * q) for p, q in zip(a, y, strict=True)) + abs(upper[k])
    beyond = upper[k] + rng.choice([0.5e-9, 0.999e-9, 1.001e-9, 2e-9, 1e-6]) * scale
    missing = (beyond - sum(p * q for p, q in zip(a, y, strict=True))) / sum(p * p for p in a)
    for j in range(n):
        u[i * n + j] += missing * a[j]
    d["u"] = hexadecimal(u)


# --- the tests ---


@pytest.fixture(scope="module")
def altered() -> list[dict]:
    rng = random.Random(20)
    genuine = make(subject(Filtered()), starts=TASK.published_starts()["test"][:2], runs=40)
    assert is_true(genuine)
    assert conclusion(check_claims(genuine), frozenset({"proof", "sampled"})) is Outcome.HOLDS
    found = []
    while len(found) < ALTERATIONS:
        candidate = alter(genuine, rng)
        if candidate != genuine:
            found.append(candidate)
    return found


@pytest.mark.untyped  # pure Python, and the same twice
def test_digest_gives_away_every_alteration(altered, tmp_path):
    for certificate in altered:
        file = tmp_path / "certificate.json"
        file.write_text(json.dumps(certificate))
        with pytest.raises(FileFormatError, match="digest does not match"):
            check(file)


@pytest.mark.untyped
def test_mathematics_rejects_every_false_claim(altered, tmp_path):
    false = accepted = 0
    for number, certificate in enumerate(altered):
        certificate = copy.deepcopy(certificate)
        certificate["digest"] = digest(certificate)
        file = tmp_path / "certificate.json"
        file.write_text(json.dumps(certificate))
        try:
            holds = conclusion(check(file), frozenset({"proof", "sampled"})) is Outcome.HOLDS
        except FileFormatError:
            holds = False
        if not is_true(certificate):
            false += 1
            assert not holds, f"alteration {number} made the claim false, and the checker accepts it"
        accepted += holds
    print(f"{ALTERATIONS} altered, {false} false by the oracle, all rejected; {accepted} true ones accepted")
    assert false >= 150
    assert accepted >= 5  # the checker is no wall: harmless changes (another seed, another state) pass
