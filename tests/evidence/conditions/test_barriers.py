"""Barriers under held inputs: every condition by a forged file, every stated number by another."""

from __future__ import annotations

from typing import Any

import pytest

from constrained_nn.verify import encode
from constrained_nn.verify.claims import barrier as _barrier
from tests.evidence.conditions.minimal import (
    barrier,
    edit,
    finish,
    program,
    stated,
    verdict,
)

ZERO, ONE = encode(0.0), encode(1.0)
Changes = dict[str, Any]


def found(kind: Any, changes: Changes, head: Changes | None = None) -> str:
    module, claim, certificate = kind()
    return verdict(module, edit(claim, **changes), edit(certificate, **(head or {})))


SINE = program(1, ["sin", 0], ["affine", 1, ONE, encode([2.0])])  # 2 + sin x
ROUND = {
    "periodic": [0], "lower": encode(-3.25), "upper": encode(3.25), "barriers__0__value": SINE,
    "barriers__0__gains": encode([1.0]),
    "barriers__0__curvature": program(1, ["const", encode([1.5, 0.0])]), "data__cover": "+", "data__witness": ZERO,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "holds: 4 of 6 boxes may meet the safe set; least slack 0.565 in the rows, 0.125 in the curvature"),
        ({"start": None, "data__start": ""}, "holds"), ({"start": None}, "data.start: expected the cover"),
        ({"data__start": ""}, "data.start: expected the cover"),
        ({"data__start": None}, "data.start: expected the cover"), ({"data__start": "0=="}, "holds"),
        ({"data__start": "+"}, "no axis and no leaf"),
        ({"start__upper": encode(1.25)}, "not proved: the safe set contains the start box, at x1 in [-0.5, 1.25]"),
        ({"start__lower": encode(0.75)}, "start.lower <= start.upper"),
        ({"start__upper": encode(2.25)}, "start: expected lower"),
        ({"start__lower": encode(-2.25)}, "start: expected lower"), ({"start__lower": encode(0.5)}, "holds"),
        # the cover
        ({"data__cover": "00.0++00+.."}, "expected 3 numbers, got 4"),
        ({"data__cover": "00.0++00+..", "data__witness": encode([1.0, 0.0, 0.0])},
         "not outside of the set: x1 in [0.55, 1.1]"),
        ({"data__cover": "00+0++00++.", "data__witness": encode([1.0, 1.0, 0.0, -1.0, 0.0])}, "the row of 'wall'"),
        ({"data__cover": 3}, "expected a string"),
        ({"data__witness": encode([1.0, 0.0, 0.0, 1.0])}, "the row of 'wall' at the witness for x1 in [0.55, 1.1]"),
        ({"data__witness": encode([1.0, 0.0, 0.0, -1.5])}, "the witness is beyond the limits"),
        ({"barriers__0__curvature": program(1, ["const", encode([1.75, 0.0])])},
         "not proved: the curvature of 'wall'"),
        ({"lower": encode(-0.5), "upper": encode(0.5), "data__cover": "+", "data__witness": ZERO},
         "the set reaches the face x1 of the box"),
        # numbers
        ({"lower": encode(2.2)}, "lower < upper in every state"),
        ({"low": ONE, "high": encode(-1.0)}, "low <= high"), ({"floor": encode(-1.0)}, "floor >= 0"),
        ({"hold": encode(0.25)}, "hold: expected the step of the task"),
        ({"barriers__0__gains": ZERO}, "one or two positive rates"),
        ({"barriers__0__gains": encode([1.0, -1.0])}, "one or two positive rates"),
        ({"barriers__0__gains": encode([1.0] * 3)}, "one or two positive rates"),
        ({"barriers__0__gains": encode(8.0)}, "holds"), ({"barriers__0__gains": encode(8.5)}, "rate * hold <= 1"),
        ({"barriers__0__gains": encode([9.0, 8.5])}, "rate * hold <= 1"),
        ({"barriers": []}, "at least one, got none"),
        ({"barriers__0__value": program(1, ["join", 0, 0])}, "of 1 outputs"),
        ({"barriers__0__curvature": program(1, ["const", ONE])}, "of 2 outputs"),
        ({"plant": program(1)}, "of 2 inputs"), ({"periodic": [1]}, "from 0 to 0"),
        # periodic states
        (ROUND | {"start": None, "data__start": ""}, "holds: 1 of 1"),
        (ROUND | {"upper": encode(3.0)}, "x1 is not periodic: the box is less than a whole turn"),
        (ROUND | {"barriers__0__value": program(1, ["affine", 0, ZERO, ONE])},
         "x1 is not periodic: it enters by more than its sine and cosine"),
    ],
)  # fmt: skip
def test_barrier(changes: Changes, words: str) -> None:
    assert words in found(barrier, changes)


def test_steps_that_are_no_time() -> None:
    for dt in (0.0, -0.125):
        assert "hold > 0" in found(barrier, {"hold": encode(dt)}, {"task__dt": encode(dt)})
    many = [f"u{i}" for i in range(11)]
    assert "at most 10 inputs, got 11" in found(barrier, {}, {"task__input": many})
    assert "expected 10 numbers" in found(barrier, {}, {"task__input": many[:10]})


def test_states_that_enter_by_sine_and_cosine() -> None:
    from constrained_nn.verify.arithmetic import parse

    for code, j, by_sine in (
        ([["take", 0, [0]], ["sin", 1]], 0, True), ([["take", 0, [0]], ["cos", 1]], 0, True),
        ([["take", 0, [0]], ["tan", 1]], 0, False),
        ([["take", 0, [1]], ["exp", 1]], 0, True), ([["take", 0, [1]], ["exp", 1]], 1, False),
        ([["sin", 0], ["add", 1, 0]], 0, False),
        ([["join", 0, 0], ["take", 1, [1, 3]], ["sum", 2]], 0, True),
        ([["join", 0, 0], ["take", 1, [2]], ["sum", 2]], 0, False),
        ([["take", 0, [0, 1]]], 0, False), ([["take", 0, [1]]], 0, True),
        ([["sin", 0], ["const", ONE], ["mul", 1, 2], ["sum", 3]], 0, True),
    ):  # fmt: skip
        assert _barrier._enters_by_sine(parse(program(2, *code), "f"), j) is by_sine


def test_faces_of_the_domain() -> None:
    """Of both ends of both states, and not of a periodic one; `h = x2 + 1/2` reaches the upper end of x2 alone."""
    _, claim, certificate = barrier()
    certificate = edit(certificate, task__state=["a", "b"])
    value = program(2, ["affine", 0, encode([0.0, 1.0]), encode([0.5])])
    claim = edit(
        claim, lower=encode([-1.0] * 2), upper=encode([1.0] * 2), plant=program(3, ["take", 0, [2, 2]]),
        barriers__0__value=value,
        barriers__0__curvature=program(2, ["const", encode([0.0, 0.0])]),
    )  # fmt: skip
    system = _barrier.read_system(claim, certificate)
    ends = [-1.0, -1.0], [1.0, 1.0]
    for low, high, periodic, face in (
        ((0.0, 0.0), (0.5, 0.5), [], None), ((0.0, 0.0), (1.0, 0.5), [], 0), ((0.0, 0.0), (1.0, 0.5), [0], None),
        ((-1.0, 0.0), (0.0, 0.5), [], 0),
        ((0.0, 0.5), (0.5, 1.0), [], 1), ((0.0, 0.5), (0.5, 1.0), [1], None), ((0.0, -1.0), (0.5, -0.75), [], None),
        ((0.5, -1.0), (1.0, -0.75), [], None),
        ((0.5, 0.5), (1.0, 1.0), [0], 1), ((0.0, -1.0), (0.5, 1.0), [0], 1),
    ):  # fmt: skip
        assert _barrier.open_face(system, low, high, *ends, periodic) == face


def test_stated_barriers() -> None:
    (claim,) = finish(*barrier())["claims"]
    row, curvature = (float.fromhex(claim["worst"][k]) for k in ("row", "curvature"))
    assert row == pytest.approx(1 - 0.55**2 - 2.125 / 16, abs=1e-6)
    assert curvature == pytest.approx(0.125, abs=1e-6)
    assert "leaves: the claim says 7, the cover has 6" in stated(barrier, leaves=7)
    for name, value in (("row", row), ("curvature", curvature)):
        for other, words in (
            (value * (1 + 1e-9), f"worst.{name}: the claim says"), (value * (1 - 1e-7), "holds"),
            (value * (1 - 1e-5), f"worst.{name}: the claim says"),
        ):  # fmt: skip
            assert words in stated(barrier, **{f"worst__{name}": encode(other)})


def test_words_about_barriers() -> None:
    words = finish(*barrier())["claims"][0]["statement"]
    assert "let S be the states with x1 in [-2.2, 2.2] at which h >= -0.0" in words
    assert "wall (h = e, rate 1.0/s)" in words
    assert words.endswith(
        "S contains every state with x1 in [-0.5, 0.5]: no closed loop that starts there ever leaves S."
    )
    turning = edit(
        barrier()[1], **(ROUND | {"barriers__0__gains": encode([2.0, 1.0])}), start=None, data__start=""
    )
    claim, head = turning, barrier()[2]
    words = _barrier.statement(claim, head)
    assert "x1 in [-3.25, 3.25] and its turns at which" in words
    assert "wall (h = e' + 2.0 e, rate 1.0/s)" in words
    assert words.endswith("to the layer that enforces the rows.")
