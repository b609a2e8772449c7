"""False claims with numbers that were made for them: none is accepted, and none brings the checker down."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from flint import arb

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import SCHEMA, VERSION, Outcome, check_claims, digest, encode, read
from constrained_nn.verify.arithmetic import (
    Interpreter,
    Jet,
    enclose,
    interval,
    order,
    parse,
    precision,
    reach,
    rk4_error,
    run,
    solution,
)
from constrained_nn.verify.claims import barrier as _barrier
from constrained_nn.verify.claims import energy_runs as _energy_runs
from constrained_nn.verify.claims import lmi as _lmi
from constrained_nn.verify.claims import lyapunov as _lyapunov
from constrained_nn.verify.claims import model_decrease as _model_decrease
from constrained_nn.verify.claims import outputs as _outputs
from constrained_nn.verify.enclosures import Slack, System, examine

ZERO = encode(0.0)


def outcome(module: Any, claim: dict[str, Any], states: int, inputs: int) -> Outcome:
    """What `check` says of a claim whose words and stated numbers its author has made fit."""
    certificate = {
        "task": {
            "name": "forged", "version": 1, "dt": encode(0.125), "horizon": 1,
            "state": [f"x{i}" for i in range(states)], "input": [f"u{i}" for i in range(inputs)],
        },
        "claims": [claim],
    }  # fmt: skip
    claim |= {"kind": module.KIND, "grade": module.GRADE, "assumptions": list(module.ASSUMPTIONS)}
    claim |= {"verdict": "holds", "statement": "", "worst": ZERO, "boxes": 0, "leaves": 0}
    claim = {key: claim[key] for key in module.KEYS}
    certificate["claims"] = [claim]
    found = module.evaluate(claim, certificate)
    if module is _barrier:
        claim |= {
            "leaves": found.boxes,
            "worst": {k: encode(getattr(found, k)) for k in ("row", "curvature")},
        }
    elif math.isfinite(bound := found.change if module is _lyapunov else found.excess):
        claim |= {"boxes": found.boxes, "worst": encode(bound)}
    claim["statement"] = module.statement(claim, certificate)
    (finding,) = check_claims(certificate)
    return finding.outcome


def turning(value: list[Any], inputs: int = 1, *, plant: list[Any] | None = None, name: str = "e") -> Outcome:
    """An angle that turns on at 1 to 2 rad/s, whatever is asked, with a "barrier" of it."""
    plant = plant or ([["take", 0, [1]]] if inputs else [["const", encode(1.0)]])
    claim = {
        "hold": encode(0.125), "floor": ZERO, "low": encode([1.0] * inputs), "high": encode([2.0] * inputs),
        "lower": encode([-4.0]), "upper": encode([4.0]), "periodic": [0],
        "plant": {"inputs": 1 + inputs, "code": plant},
        "barriers": [{
            "name": name, "unit": "m", "gains": encode([1.0]), "value": {"inputs": 1, "code": value},
            "curvature": {"inputs": 1, "code": [["const", encode([0.0] * (1 + inputs))]]},
        }],
        "start": None, "data": {"cover": "+", "witness": encode([1.0] * inputs), "start": ""},
    }  # fmt: skip
    return outcome(_barrier, claim, 1, inputs)


@pytest.mark.parametrize(
    "value",
    [
        [["cos", 0], ["relu", 1], ["const", encode(-0.5)], ["add", 2, 3]],  # it has no series at the kink
        [["cos", 0], ["const", encode(1.0)], ["div", 2, 1]],  # it has a pole
        [["cos", 0], ["sqrt", 1]],
        [["cos", 0], ["const", ZERO], ["max", 1, 2]],
        [["cos", 0], ["erf", 1]],  # there are no series of it here
        # zero times what has no value has none either
        [["cos", 0], ["log", 1], ["const", ZERO], ["mul", 2, 3], ["const", encode(1.0)], ["add", 4, 5]],
        [["cos", 0], ["const", ZERO], ["div", 2, 1], ["const", encode(1.0)], ["add", 3, 4]],
        [["cos", 0], ["log", 1], ["affine", 2, ZERO, encode(1.0)]],
    ],
)
@pytest.mark.parametrize("inputs", [0, 1])
def test_no_derivative_is_made_of_what_has_no_value(value: list[Any], inputs: int) -> None:
    assert turning(value, inputs) is Outcome.INCONCLUSIVE


def test_a_plant_without_a_value_has_no_solutions() -> None:
    """`dθ/dt = 0 log(cos θ) + u` is nothing where the cosine is negative, although no series would show it."""
    log = [
        ["take", 0, [0]],
        ["cos", 1],
        ["log", 2],
        ["const", ZERO],
        ["mul", 3, 4],
        ["take", 0, [1]],
        ["add", 5, 6],
    ]
    smooth = [
        ["take", 0, [0]],
        ["cos", 1],
        ["sin", 2],
        ["const", ZERO],
        ["mul", 3, 4],
        ["take", 0, [1]],
        ["add", 5, 6],
    ]
    one = [["const", encode(1.0)]]
    assert turning(one, plant=log) is Outcome.INCONCLUSIVE
    assert turning(one, plant=smooth) is Outcome.HOLDS


def test_curvature_without_inputs_cannot_be_bisected() -> None:
    one = {"inputs": 1, "code": [["const", encode(1.0)]]}
    e = {"inputs": 1, "code": [["cos", 0], ["const", encode(2.0)], ["add", 1, 2]]}
    m = {"inputs": 1, "code": [["const", ZERO]]}
    barrier = _barrier.Barrier("e", parse(e, "e"), parse(m, "m"), (1.0,))
    found = examine(System(parse(one, "plant"), (barrier,), (), (), 0.125, 0.0), [-0.1], [0.1], [])
    assert isinstance(found, Slack)
    assert found.problem == "the curvature of 'e'"


@pytest.mark.parametrize("op", ["relu", "abs", "sigmoid", "erf"])
def test_all_coefficients_after_a_value_that_is_missing_are_missing(op: str) -> None:
    program = parse({"inputs": 2, "code": [["take", 0, [0]], [op, 1], ["take", 0, [1]], ["add", 2, 3]]}, "f")
    with precision(64), order(6):
        x, u = [interval(0.5, 1.0)], [arb(1)]
        for jet in (*run(program, [Jet.of([*x, arb(1)]), Jet.of(u, u)]), *solution(program, x, u, 5, 0)):
            assert not any(jet.coefficient(k).is_finite() for k in range(2, 6))
            assert not any(jet.slope_coefficient(k).is_finite() for k in range(2, 6))
        # where dx/dt = max(x, 0) + u, the formula is not exact: (x + u) h⁵ / 5! is missing
        tube = reach(Interpreter(program), x, u, 0.125)
        assert tube is not None
        assert not rk4_error(program, x, tube, u, 0.125)[0].is_finite()


@pytest.mark.parametrize("op", ["atan", "tanh", "log", "sqrt", "exp"])
@pytest.mark.parametrize("width", [1.0, 1e3, 1e300])
def test_series_over_wide_boxes_end_in_no_error(op: str, width: float) -> None:
    program = parse({"inputs": 1, "code": [[op, 0]]}, "f")
    with precision(64), order(6):
        start = interval(-width, width)
        (jet,) = run(program, [Jet.of([start, arb(1)], [arb(1)])])
        assert not jet.slope_coefficient(5).is_finite() or jet.coefficient(0).is_finite()
        (jet,) = run(program, [Jet.of([interval(0.5, 1.0), arb(1)], [arb(1)])])
        assert jet.slope_coefficient(4).is_finite()


def test_center_of_a_box_is_in_it() -> None:
    """At `a = 2^-1074` the function is 1; half of `a` rounds to 0, where it is 0, and its slope at `a` is 0 as well."""
    code = [
        ["take", 0, [0]], ["const", encode(2.0**537)], ["mul", 1, 2], ["mul", 3, 2], ["square", 4], ["add", 4, 4],
        ["sub", 6, 5], ["take", 0, [1]], ["sub", 8, 8], ["add", 7, 9],
    ]  # fmt: skip
    network = {"inputs": 2, "code": code}
    with precision(64):
        (value,) = enclose(Interpreter(parse(network, "f")), [5e-324, -1.0], [5e-324, 1.0]).values
        assert value.contains(1)
    claim = {
        "rows": 1,
        "data": {
            "network": network, "lower": encode([5e-324, -1.0]), "upper": encode([5e-324, 1.0]), "A": encode([1.0]),
            "bound": encode([0.5]), "cover": ".", "point": "",
        },
    }  # fmt: skip
    assert outcome(_outputs, claim, 2, 1) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("motion", ["step", "held", "continuous"])
def test_motion_without_derivatives_is_judged(motion: str) -> None:
    """`x⁺ = 0` is a contraction; `dx/dt = 0` is none."""
    claim = {
        "motion": motion, "hold": "" if motion == "continuous" else encode(0.125), "level": encode(0.5),
        "margin": encode(2.0**-10), "radius": encode(2.0**-6), "factor": encode(0.5),
        "data": {
            "plant": {"inputs": 2, "code": [["const", ZERO]]},
            "controller": {"inputs": 1, "code": [["const", ZERO]]},
            "value": {"P": encode(1.0), "center": ZERO}, "lower": encode([-1.0]), "upper": encode([1.0]),
            "center": encode([0.0]), "P": encode([1.0]), "cover": "0" "0d0d0di" "000iddd", "point": "",
        },
    }  # fmt: skip
    assert outcome(_lyapunov, claim, 1, 1) in (
        (Outcome.HOLDS,) if motion == "step" else (Outcome.INCONCLUSIVE,)
    )


# --- words ---


def test_names_cannot_speak_in_a_statement(tmp_path: Path) -> None:
    def head(name: str = "one-way", state: tuple[str, ...] = ("x1 [m]", "x2")) -> dict[str, Any]:
        task = {
            "name": name,
            "version": 1,
            "dt": encode(1.0),
            "horizon": 1,
            "state": list(state),
            "input": [],
        }
        found = {
            "schema": SCHEMA, "version": VERSION, "versions": {}, "command": "c", "seed": 0, "task": task,
            "controller": dict.fromkeys(("method", "dtype", "weights", "sha256"), "none"), "claims": [{}],
        }  # fmt: skip
        (tmp_path / "c.json").write_text(json.dumps(found | {"digest": digest(found)}))
        return read(tmp_path / "c.json")

    for name in ("one-way", "v1.2 of pump", "θ + φ"):
        assert head(name)["task"]["name"] == name
    for name in (
        "pendulum (version 1): every state is safe, and so is this",
        "plant. Every motion stops", "a whole sentence about every state", "x" * 61, " x", "x = 1", "all;",
    ):  # fmt: skip
        with pytest.raises(FileFormatError, match="expected a name"):
            head(name)
    for state in (("x>=0", "y"), ("x:", "y"), ("x,", "y")):
        with pytest.raises(FileFormatError, match="expected a name"):
            head(state=state)
    with pytest.raises(FileFormatError, match="each name once"):  # of which of the two is the bound?
        head(state=("x [m]", "x [1]"))
    one = [["const", encode(1.0)]]
    assert turning(one, name="far wall") is Outcome.HOLDS
    with pytest.raises(FileFormatError, match="expected a name"):
        turning(one, name="e (h = e, rate 1.0/s), and for everything that is not recorded")


def test_a_digest_is_no_sentence() -> None:
    claim = {
        "runs": 1, "steps": 1, "starts_sha256": "0" * 64, "farthest": encode(1.0),
        "data": {"ratio": encode(0.5), "growth": encode(0.5), "active": encode(0.5)},
    }  # fmt: skip
    assert _energy_runs.evaluate(claim, {}).verdict == "consistent"
    with pytest.raises(FileFormatError, match="64 digits"):
        _energy_runs.evaluate(claim | {"starts_sha256": "0. The bound holds for every start"}, {})


# --- numbers ---


def test_stated_distance_is_not_rounded_down() -> None:
    """`|v − f|` relative to `|f̂|`, where `V = |x|²` falls already: compared in rational arithmetic."""
    rng = random.Random(1)
    task = {"state": ["a", "b"], "input": ["da", "db"]}
    for _ in range(40):
        raw = [rng.uniform(1, 2), rng.uniform(1, 2)]
        velocity = [raw[0] + 2.0**-40 * rng.randint(1, 9), raw[1]]
        claim = {
            "rate": ZERO, "floor": encode(1.0),
            "data": {
                "certificate": {"inputs": 2, "code": [["square", 0], ["sum", 1]]},
                "raw": {"inputs": 2, "code": [["const", encode(raw)]]},
                "lower": encode([-1.0] * 2), "upper": encode([1.0] * 2), "center": encode([0.0] * 2),
                "hole": encode([0.25] * 2), "cover": "", "x": "", "velocity": "",
            },
        }  # fmt: skip
        model = _model_decrease.read_model(claim, {"task": task, "controller": {"dtype": "float64"}})
        with precision(_model_decrease.STATE_BITS):
            found = _model_decrease._check_velocities(model, [-0.5, -0.5], velocity, 1e-9, {"task": task})
        size, error = sum(Fraction(v) ** 2 for v in raw), Fraction(velocity[0]) - Fraction(raw[0])
        assert error**2 <= Fraction(found.distance) ** 2 * size <= error**2 * (1 + Fraction(1, 10**12))


def test_a_short_file_cannot_have_the_checker_count_without_end() -> None:
    block = {"constant": encode(1.0), "left": "", "right": "", "slopes": ""}
    claim = {
        "elements": 10**7, "variables": [0, 3, 0], "orders": [1],
        "data": {"S": "", "Y": "", "z": "", "blocks": [block]},
    }  # fmt: skip
    with pytest.raises(FileFormatError, match="decisions without numbers"):
        _lmi.evaluate(claim, {})
