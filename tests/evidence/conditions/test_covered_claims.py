"""Claims that are proved by a cover: every condition by a forged file, every stated number by another."""

from __future__ import annotations

import math
from typing import Any

import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import encode
from constrained_nn.verify.claims import lyapunov as _lyapunov
from constrained_nn.verify.claims import model_decrease as _model_decrease
from constrained_nn.verify.claims import outputs as _outputs
from tests.evidence.conditions.minimal import (
    edit,
    finish,
    lyapunov,
    model,
    outputs,
    program,
    stated,
    verdict,
)

ZERO, ONE = encode(0.0), encode(1.0)
Changes = dict[str, Any]


def found(kind: Any, changes: Changes, head: Changes | None = None) -> str:
    module, claim, certificate = kind()
    return verdict(module, edit(claim, **changes), edit(certificate, **(head or {})))


# --- outputs ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "holds: 2 boxes, largest A y - bound -0.125, in ball arithmetic"),
        ({"data__bound": encode([1.875, 0.125])}, "box 1, from [0.5] to [1.0], is not proved"),
        ({"data__bound": encode([2.125, -0.125])}, "box 0, from [0.0] to [0.5], is not proved"),
        ({"data__cover": "0.?"}, "1 of 2 boxes are open"), ({"data__cover": "0??"}, "2 of 2 boxes are open"),
        ({"data__cover": "0.d"}, "no axis and no leaf"),
        ({"data__lower": ONE, "data__cover": "."}, "holds: 1 boxes"), ({"data__lower": encode(1.25)}, "no more than"),
        ({"data__cover": "0."}, "ends early"), ({"data__cover": 3}, "printable"),
        ({"data__A": ONE}, "expected 2 numbers"), ({"data__bound": ONE}, "expected 2 numbers"),
        ({"rows": 10**5 + 1}, "from 1 to 100000"),
        ({"data__point": encode(0.5)}, "its output satisfies every row"),
        ({"data__point": encode(2.0)}, "it is not in the box"),
        ({"data__point": encode(-1.0)}, "it is not in the box"),
        ({"data__bound": encode([1.75, 0.125]), "data__point": ONE},
         "counterexample: row 0: A y - bound = 0.25, from x1 = 1.0"),
        ({"data__bound": encode([1.75, -2.125]), "data__point": ONE}, "counterexample: row 0: A y - bound = 0.25"),
        ({"data__bound": encode([1.75, -2.5]), "data__point": ONE}, "counterexample: row 1: A y - bound = 0.5"),
        ({"data__bound": encode([1.75, 0.125]), "data__point": encode(0.875)}, "its output satisfies every row"),
    ],
)  # fmt: skip
def test_outputs(changes: Changes, words: str) -> None:
    assert words in found(outputs, changes)


def test_outputs_of_several_components() -> None:
    """`y = (x1, 2 x1 - x2)`: the rows `y1 + y2 <= 3` and `-y2 <= 1` on [0, 1]²; enough bound, and not enough."""
    _, claim, certificate = outputs()
    network = program(2, ["affine", 0, encode([1.0, 0.0, 2.0, -1.0]), encode([0.0, 0.0])])
    certificate = edit(certificate, task__state=["a", "b"], task__input=["p", "q"])
    for bound, holds in (([3.0, 1.0], True), ([2.9, 1.0], False), ([3.0, 0.9], False)):
        two = edit(
            claim, data__network=network, data__A=encode([1.0, 1.0, 0.0, -1.0]),
            data__bound=encode([b + 1e-6 for b in bound]),
            data__lower=encode([0.0] * 2), data__upper=encode([1.0] * 2), data__cover=".",
        )  # fmt: skip
        words = verdict(_outputs, two, certificate)
        assert words.startswith("holds") is holds
    for key in ("state", "input"):
        with pytest.raises(FileFormatError, match="a context and an output"):
            _outputs.read_rows(claim, edit(outputs()[2], **{f"task__{key}": []}))


def test_stated_outputs() -> None:
    worst = float.fromhex(finish(*outputs())["claims"][0]["worst"])
    assert worst == pytest.approx(-0.125, abs=1e-8)
    for changes, words in (
        ({"boxes": 3}, "boxes: the claim says 3, the cover has 2"),
        ({"worst": encode(math.nextafter(worst, -1))}, "worst: the claim says"),
        ({"worst": encode(worst * (1 - 1e-5))}, "worst: the claim says"),
        ({"worst": encode(worst * (1 - 1e-7))}, "holds"),
    ):  # fmt: skip
        assert words in stated(outputs, **changes)


# --- decrease of a learned model ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "holds: 6 boxes; 2 computed velocities"),
        # V >= floor |e|², its gradient, f̂, the hole
        ({"floor": encode(1.25)}, "is not proved"),
        ({"data__hole": encode(0.125)}, "box 2, from [-0.25] to [0.0], is not proved"),
        ({"data__certificate": program(1, ["square", 0], ["affine", 1, ONE, encode([-0.125])]), "rate": ZERO,
          "data__velocity": encode([0.0, 0.0])},
         "is not proved"),
        ({"data__certificate": program(1, ["const", ONE]), "rate": ZERO}, "by inf of the largest"),
        ({"data__raw": program(1, ["log", 0])}, "a recorded velocity is not the model's, by inf of the largest"),
        ({"data__certificate": program(1, ["abs", 0])}, "data.certificate.code[0]: expected a smooth V, got 'abs'"),
        ({"data__cover": "00.0.?00o.."}, "1 of 6 boxes are open"),
        ({"data__cover": "0" "0.0oo" "00o.."}, "box 1, from [-0.5] to [-0.25], is not proved"),
        ({"data__cover": "00.0..00o.."}, "box 2, from [-0.25] to [0.0], is not proved"),
        ({"data__cover": "00.0.o00o.?"}, "1 of 6 boxes are open"),
        ({"data__certificate": program(1, ["square", 0], ["affine", 1, ONE, encode([0.015625])]), "rate": ZERO,
          "data__velocity": encode([0.0, 0.0])},
         "V(center) is not below"),
        # the box
        ({"data__center": ONE}, "inside the box"), ({"data__center": encode(-1.0)}, "inside the box"),
        ({"data__hole": ZERO}, "the others positive"),
        ({"rate": encode(-1.0)}, "rate >= 0"), ({"floor": ZERO}, "the others positive"),
        ({"rtol": encode(1e-8)}, "not rounding"),
        # the velocities
        ({"data__x": encode([0.5, -1.25])}, "data.x: state 1 is not in the box"),
        ({"data__x": encode([1.25, -0.5])}, "data.x: state 0 is not"),
        ({"data__x": encode([0.5, 0.125])}, "data.x: state 1 is not in the box, or in the hole"),
        ({"data__x": encode([0.5, -0.25])}, "state 1 is not"),
        ({"states": 3}, "expected 3 numbers"), ({"data__velocity": ONE}, "expected 2 numbers"),
        ({"data__velocity": encode([0.25, 0.375])},
         "counterexample: state 0: grad V . v + rate V = 0.5, relative excess 1 above 9.09495e-13, at x1 = 0.5"),
        ({"data__velocity": encode([-0.25, 0.25])},
         "counterexample: state 1: grad V . v + rate V = 0.1875, relative excess 0.2"),
        ({"data__velocity": encode([-0.5, 0.375])},
         "a recorded velocity is not the model's, by 0.333 of the largest"),
        ({"data__velocity": encode([-0.25, 0.75])}, "a recorded velocity is not the model's, by 0.5 of the largest"),
        ({"data__velocity": encode([-0.25, 0.375 + 2.0**-44])}, "holds"),
        ({"data__velocity": encode([-0.25 + 2.0**-40, 0.375])}, "counterexample"),
        ({"data__velocity": encode([-0.25 + 2.0**-44, 0.375])}, "holds"),
        # V = 16 x²: the scale of the first row is 8
        ({"data__certificate": program(1, ["square", 0], ["affine", 1, encode([16.0]), ZERO]),
          "data__velocity": encode([-0.25 + 2.0**-42, 0.375])}, "holds"),
    ],
)  # fmt: skip
def test_model(changes: Changes, words: str) -> None:
    assert words in found(model, changes)


@pytest.mark.parametrize("op", ["relu", "max", "min"])
def test_functions_with_kinks_are_refused(op: str) -> None:
    code = [op, 0] if op == "relu" else [op, 0, 0]
    words = found(model, {"data__certificate": program(1, ["square", 0], ["sum", 1], code)})
    assert f"code[2]: expected a smooth V, got '{op}'" in words


def test_models_in_two_dimensions() -> None:
    """`V = x² + 2 y²`, `f̂ = (1, x)`: the projection, the row and the distance in rationals."""
    _, claim, certificate = model()
    certificate = edit(certificate, task__state=["x", "y"], task__input=["dx", "dy"])
    V = program(2, ["square", 0], ["affine", 1, encode([1.0, 2.0]), encode([0.0])])
    raw = program(2, ["take", 0, [0]], ["const", ONE], ["join", 2, 1])
    base = edit(
        claim, data__certificate=V, data__raw=raw, data__lower=encode([-1.0] * 2), data__upper=encode([1.0] * 2),
        data__center=encode([0.0] * 2), data__hole=encode([0.25] * 2), data__cover="?", states=1,
    )  # fmt: skip
    for x, y in ((0.5, 0.5), (-0.5, -0.25), (0.75, -0.5), (-0.75, 0.5)):
        g, f, value = (2 * x, 4 * y), (1.0, x), x * x + 2 * y * y
        s = g[0] * f[0] + g[1] * f[1] + value
        factor = max(s, 0.0) / (g[0] ** 2 + g[1] ** 2)
        v = [f[0] - g[0] * factor, f[1] - g[1] * factor]
        for extra in (0.0, 0.125):  # downhill
            w = [v[0] - extra * g[0], v[1] - extra * g[1]]
            account = _model_decrease.evaluate(
                edit(base, data__x=encode([x, y]), data__velocity=encode(w)), certificate
            )
            terms = [g[0] * w[0], g[1] * w[1]]
            row, scale = sum(terms) + value, sum(map(abs, terms)) + value
            assert account.counterexample is None
            assert account.excess == pytest.approx(row / scale, abs=1e-15 if extra == 0 else 1e-12, rel=1e-9)
            assert account.distance == pytest.approx(extra * math.hypot(*g) / math.hypot(*f), abs=1e-15)
            assert account.states == 1
        bad = [v[0] + 0.125 * g[0] + max(-s, 0) * g[0], v[1] + 0.125 * g[1] + max(-s, 0) * g[1]]
        account = _model_decrease.evaluate(
            edit(base, data__x=encode([x, y]), data__velocity=encode(bad)), certificate
        )
        assert "grad V . v + rate V" in str(account.counterexample) or s < 0


def test_heads_of_models() -> None:
    for head in ({"task__state": []}, {"task__input": []}, {"task__input": ["a", "b"]}):
        assert "as many velocities as states" in found(model, {}, head)
    assert "computed in float64" in found(model, {}, {"controller__dtype": "float32"})


def test_stated_models() -> None:
    (claim,) = finish(*model())["claims"]
    assert float.fromhex(claim["excess"]) == pytest.approx(0.0, abs=1e-18)
    assert float.fromhex(claim["distance"]) == pytest.approx(0.0, abs=1e-18)
    for changes, words in (
        ({"boxes": 5}, "boxes: the claim says 5"), ({"states_sha256": "0" * 64}, "states_sha256"),
        ({"excess": encode(-1e-9)}, "excess: the claim says"),
        ({"distance": encode(-1e-9)}, "distance: the claim says"),
        ({"excess": encode(1e-15)}, "excess: the claim says"),
    ):  # fmt: skip
        assert words in stated(model, **changes)


# --- decrease along a closed loop ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({},
         "8 boxes (4 with decrease, 2 outside of the sublevel set, 2 in the inner ellipsoid), worst change of V -0.0"),
        ({"data__cover": "000?d0di00id0do"}, "1 boxes are open, 0.125 of the domain"),
        ({"data__cover": "00?0di00id0do"}, "1 boxes are open, 0.25 of the domain"),
        ({"data__cover": "000dd0di00id0do"}, "holds"),
        ({"data__cover": "000oo0di00id0do"}, "box 1, from [-0.75] to [-0.5], is not proved"),
        ({"data__cover": "000od0ii00id0do"}, "box 2, from [-0.5] to [-0.25], is not proved"),
        ({"data__cover": "000od0dd00id0do"}, "box 3"),
        ({"margin": encode(0.5)}, "box 1, from [-0.75] to [-0.5], is not proved"),
        ({"margin": ZERO}, "positive numbers"),
        ({"radius": ZERO}, "positive numbers"), ({"factor": ZERO}, "positive numbers"),
        ({"factor": ONE}, "a factor below 1 of a step"),
        ({"margin": encode(-1.0)}, "positive numbers"), ({"factor": encode(0.125)}, "not proved a contraction"),
        ({"motion": "jump"}, "motion: expected one of step, held, continuous"),
        ({"motion": "continuous"}, "hold: expected the step of the task, and ''"),
        ({"hold": ""}, "hold: expected"), ({"hold": encode(0.25)}, "hold: expected"),
        ({"data__lower": ONE}, "less than data.upper"),
        ({"data__P": encode(-1.0)}, "not proved positive definite"),
        ({"data__value__P": encode(-1.0)}, "data.value.P: expected a positive definite"),
        ({"data__value__P": ZERO}, "expected a positive definite"),
        ({"data__P": encode([1.0, 2.0])}, "expected 1 numbers"),
        ({"data__value__center": ""}, "expected 1 numbers"),
        ({"data__value": program(1, ["square", 0])}, "holds"),
        ({"data__value": program(1, ["square", 0], ["join", 1, 1])}, "expected a program of 1 outputs"),
        ({"data__point": encode(0.5)}, "data.point: V decreases there"),
        ({"data__point": encode(0.875)}, "it is not in the set"),
        ({"data__point": encode(0.5), "data__plant": program(2, ["affine", 0, encode([1.5, 0.0]), ZERO])},
         "counterexample: V changes by 0.3125, above -0.000977, from x1 = 0.5"),
        ({"data__upper": encode(0.25), "data__cover": "?"}, "the inner ellipsoid is not inside the domain"),
    ],
)  # fmt: skip
def test_loop(changes: Changes, words: str) -> None:
    assert words in found(lyapunov, changes)


def test_loops_in_continuous_time() -> None:
    def continuous() -> Any:
        return lyapunov("continuous")

    for changes, words in (
        ({}, "holds"), ({"factor": ONE}, "holds"), ({"hold": encode(0.125)}, "hold: expected"),
        ({"level": encode(1.5), "data__cover": "000dd0di00id0dd"}, "is not proved"),
        ({"data__value": program(1, ["square", 0])}, "continuous motion needs a quadratic function"),
        ({"factor": encode(1.5)}, "not proved a contraction"),
        ({"data__point": encode(0.5), "data__plant": program(2, ["affine", 0, encode([1.0, 0.0]), ZERO])},
         "counterexample: V changes by 0.5"),
    ):  # fmt: skip
        assert words in found(continuous, changes)
    words = {motion: finish(*lyapunov(motion))["claims"][0]["statement"] for motion in _lyapunov.MOTIONS}
    assert "one step of 0.125 s" in words["step"]
    assert "held for 0.125 s lowers V" in words["held"]
    assert "V falls along the motion with continuous feedback" in words["continuous"]


def test_heads_of_loops() -> None:
    for head, words in (
        ({"task__state": []}, "expected a state and an input"),
        ({"task__input": []}, "expected a state and an input"),
        ({"task__state": [f"x{i}" for i in range(11)]}, "at most 10 states, got 11"),
    ):  # fmt: skip
        assert words in found(lyapunov, {}, head)
    ten = found(lyapunov, {}, {"task__state": [f"x{i}" for i in range(10)]})
    assert "expected 10 numbers" in ten


def test_matrices_of_loops_are_symmetric() -> None:
    A = [v for i in range(3) for v in (*(0.5 * (i == j) for j in range(3)), 0.0)]
    changes = {
        "data__plant": program(4, ["affine", 0, encode(A), encode([0.0] * 3)]),
        "data__controller": program(3, ["const", ZERO]), "data__lower": encode([-1.0] * 3),
        "data__upper": encode([1.0] * 3),
        "data__center": encode([0.0] * 3), "data__value__center": encode([0.0] * 3), "data__cover": "?",
        "factor": encode(0.75),
    }  # fmt: skip
    good = [1.0, 0.25, 0.125, 0.25, 1.0, 0.375, 0.125, 0.375, 1.0]
    head = {"task__state": ["a", "b", "c"]}
    for place in (None, 3, 6, 7):
        bad = encode([v + 0.0625 * (i == place) for i, v in enumerate(good)])
        for name in ("data__P", "data__value__P"):
            P = {"data__P": encode(good), "data__value__P": encode(good)} | {name: bad}
            words = "1 boxes are open, 1 of the domain" if place is None else "expected a symmetric matrix"
            assert words in found(lyapunov, changes | P, head)


def test_stated_loops() -> None:
    worst = float.fromhex(finish(*lyapunov())["claims"][0]["worst"])
    assert -0.06 < worst < -(2.0**-10)
    for changes, words in (
        ({"boxes": 9}, "boxes: the claim says 9, the cover has 8"),
        ({"worst": encode(worst * (1 + 1e-9))}, "worst: the claim says"),
        ({"worst": encode(worst * (1 - 1e-5))}, "worst: the claim says"),
        ({"worst": encode(worst * (1 - 1e-7))}, "holds"),
    ):  # fmt: skip
        assert words in stated(lyapunov, **changes)
