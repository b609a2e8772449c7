"""A certificate of every kind of claim, written by hand: small enough to be right at sight, and quick to check."""

from __future__ import annotations

import copy
import math
from typing import Any

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import SCHEMA, VERSION, check_claims, clopper_pearson, encode
from constrained_nn.verify.claims import barrier as _barrier
from constrained_nn.verify.claims import energy as _energy
from constrained_nn.verify.claims import energy_runs as _energy_runs
from constrained_nn.verify.claims import lmi as _lmi
from constrained_nn.verify.claims import lyapunov as _lyapunov
from constrained_nn.verify.claims import model_decrease as _model_decrease
from constrained_nn.verify.claims import outputs as _outputs
from constrained_nn.verify.claims import rows as _rows
from constrained_nn.verify.claims import sampled as _sampled

INF = math.inf


def head(state: int, input: int, *, dt: float = 0.125, horizon: int = 1) -> dict[str, Any]:
    """A certificate without claims."""
    return {
        "schema": SCHEMA, "version": VERSION, "versions": {}, "command": "by hand", "seed": 0,
        "task": {
            "name": "hand", "version": 1, "dt": encode(dt), "horizon": horizon,
            "state": [f"x{i + 1} [m]" for i in range(state)], "input": [f"u{i + 1}" for i in range(input)],
        },
        "controller": {"method": "none", "dtype": "float64", "weights": "none", "sha256": "none"},
    }  # fmt: skip


def program(inputs: int, *code: list[Any]) -> dict[str, Any]:
    return {"inputs": inputs, "code": list(code)}


def rows() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Two runs of two held inputs, `-1 <= u`, `u + x <= 1` with the bound on `u`."""
    claim = {
        "rtol": encode(2.0**-40), "starts": 2, "inputs": 4, "rows": 8,
        "data": {
            "counts": [2, 2], "t": encode([0.0, 0.5, 0.0, 0.5]), "dt": encode([0.5] * 4),
            "x": encode([0.0, 0.5, 0.25, 0.75]), "A": encode([1.0, 2.0] * 4),
            "lower": encode([-1.0, -INF] * 4), "upper": encode([INF, 2.0] * 4),
            "u": encode([-1.0, 0.5, 0.75, 1.0]),
        },
    }  # fmt: skip
    return _rows, claim, head(1, 1, dt=0.5, horizon=2)


def sampled() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    claim = {
        "rtol": encode(2.0**-40), "confidence": encode(0.9375), "runs": 3, "starts_sha256": "0" * 64,
        "worst": {
            "margin": encode(0.25), "margin_run": 1, "margin_start": encode([0.5]),
            "excess": encode(0.0), "excess_run": 0, "excess_start": encode([0.25]),
        },
        "data": {"margin": encode([0.5, 0.25, 0.5]), "excess": encode([0.0, -0.5, -0.25]), "complete": "111"},
    }  # fmt: skip
    return _sampled, claim, head(1, 1)


def lmi() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """`[[1, S], [S, 1]]` and `z - Y S'... >= 0` of two decisions: `S = 1/2, 3/4`."""
    blocks = [
        {  # [[1, S], [S, 1]] = I + left V right + its transpose, left = [[1, 0], [0, 0]], right = [[0, 1]]
            "constant": encode([1.0, 0.0, 0.0, 1.0]), "left": encode([1.0, 0.0, 0.0, 0.0]),
            "right": encode([0.0, 1.0]), "slopes": encode([0.0] * 4),
        },
        {  # 2 Y + z
            "constant": encode([0.0]), "left": encode([0.0, 1.0]), "right": encode([1.0]), "slopes": encode([1.0]),
        },
    ]  # fmt: skip
    claim = {
        "elements": 2, "variables": [1, 1, 1], "orders": [2, 1],
        "data": {"S": encode([0.5, 0.75]), "Y": encode([1.0, -0.25]), "z": encode([0.0, 1.0]), "blocks": blocks},
    }  # fmt: skip
    return _lmi, claim, head(0, 0)


def halved(depth: int, lower: float = -1.0, upper: float = 1.0) -> str:
    """[-1, 1] in equal parts: inside of E, with decrease, outside of the sublevel set."""
    middle = 0.5 * (lower + upper)
    if depth == 0:
        return "i" if abs(middle) < 0.25 else "d" if abs(middle) < 0.75 else "o"
    return "0" + halved(depth - 1, lower, middle) + halved(depth - 1, middle, upper)


def lyapunov(motion: str = "step") -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """`x⁺ = x/2 + u` with `u = -x/4`, or `dx/dt = -x + u`; `V = x²` on [-1, 1], level 1/2, `E = {x² <= 1/16}`."""
    slope = 0.5 if motion == "step" else -1.0
    claim = {
        "motion": motion, "hold": "" if motion == "continuous" else encode(0.125), "level": encode(0.5),
        "margin": encode(2.0**-10), "radius": encode(2.0**-4), "factor": encode(0.5 if motion != "held" else 0.9375),
        "data": {
            "plant": program(2, ["affine", 0, encode([slope, 1.0]), encode([0.0])]),
            "controller": program(1, ["affine", 0, encode([-0.25]), encode([0.0])]),
            "value": {"P": encode([1.0]), "center": encode([0.0])},
            "lower": encode([-1.0]), "upper": encode([1.0]), "center": encode([0.0]), "P": encode([1.0]),
            "cover": halved(5) if motion == "held" else halved(3), "point": "",
        },
    }  # fmt: skip
    return _lyapunov, claim, head(1, 1)


def barrier() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """`dx/dt = u`, `|u| <= 1`, held for 1/8 s: `h = 1 - x²`, `h'' = -2 u² >= -17/8`."""
    value = program(1, ["square", 0], ["affine", 1, encode([-1.0]), encode([1.0])])
    claim = {
        "hold": encode(0.125), "floor": encode(0.0), "low": encode([-1.0]), "high": encode([1.0]),
        "lower": encode([-2.2]), "upper": encode([2.2]), "periodic": [], "plant": program(2, ["take", 0, [1]]),
        "barriers": [{
            "name": "wall", "unit": "m", "gains": encode([1.0]), "value": value,
            "curvature": program(1, ["const", encode([2.125, 0.0])]),
        }],
        "start": {"lower": encode([-0.5]), "upper": encode([0.5])},
        "data": {"cover": "00.0++00++.", "witness": encode([1.0, 0.0, 0.0, -1.0]), "start": "="},
    }  # fmt: skip
    return _barrier, claim, head(1, 1)


def outputs() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """`y = 2 x` for `x` in [0, 1]: `y <= 17/8` and `-y <= 1/8`."""
    claim = {
        "rows": 2,
        "data": {
            "network": program(1, ["affine", 0, encode([2.0]), encode([0.0])]), "lower": encode([0.0]),
            "upper": encode([1.0]), "A": encode([1.0, -1.0]), "bound": encode([2.125, 0.125]),
            "cover": "0..", "point": "",
        },
    }  # fmt: skip
    return _outputs, claim, head(1, 1)


def model() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """`V = x²`, `f̂ = x`, rate 1: `f = f̂ - 2 x (3 x²) / (4 x²) = -x/2`."""
    claim = {
        "rate": encode(1.0), "floor": encode(0.125), "rtol": encode(2.0**-40), "states": 2,
        "data": {
            "certificate": program(1, ["square", 0]), "raw": program(1, ["take", 0, [0]]), "lower": encode([-1.0]),
            "upper": encode([1.0]), "center": encode([0.0]), "hole": encode([0.25]), "cover": "00.0.o00o..",
            "x": encode([0.5, -0.75]), "velocity": encode([-0.25, 0.375]),
        },
    }  # fmt: skip
    return _model_decrease, claim, head(1, 1)


def energy() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    claim = {
        "form": "diagonal", "shape": [2], "rank": 0, "state_dtype": "float64", "alpha": encode(0.5),
        "level": encode(1.0), "safety": encode(2.0**-40),
        "data": {"weights": encode([1.0, 4.0]), "center": encode([0.0, 1.0]), "factor": "", "floor": encode(0.0)},
    }  # fmt: skip
    return _energy, claim, head(0, 0)


def energy_runs() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    claim = {
        "runs": 3, "steps": 5, "farthest": encode(2.0), "confidence": encode(0.9375), "starts_sha256": "0" * 64,
        "data": {
            "ratio": encode([0.5, 1.0, 0.25]), "growth": encode([1.0, 0.5, 0.25]),
            "active": encode([0.0, 1.0, 0.5]),
        },
    }  # fmt: skip
    return _energy_runs, claim, head(0, 0)


def finish(module: Any, claim: dict[str, Any], certificate: dict[str, Any]) -> dict[str, Any]:
    """The certificate with whatever the claim states of itself as its data give it: words, counts, worst numbers.

    Raises:
        FileFormatError: The checker refuses the data.
    """
    claim = copy.deepcopy(claim)
    claim |= {
        "kind": module.KIND,
        "grade": module.GRADE,
        "assumptions": list(module.ASSUMPTIONS),
        "statement": "",
    }
    certificate = copy.deepcopy(certificate) | {"claims": [claim]}
    found = module.evaluate(claim, certificate)
    claim["verdict"] = found.verdict
    for name in ("boxes", "bounds", "collisions", "violations", "incomplete", "exceeded", "unfinished"):
        if name in module.KEYS and hasattr(found, name):
            claim[name] = getattr(found, name)
    if module is _rows:
        place = found.worst
        claim["worst"] = {
            "excess": encode(found.excess), "input": place.input, "row": place.row, "side": place.side,
        }  # fmt: skip
    elif module is _sampled:
        for name, events in (("collision_bound", found.collisions), ("violation_bound", found.violations)):
            claim[name] = encode(clopper_pearson(events + found.incomplete, found.runs, _confidence(claim)))
    elif module is _lmi:
        claim["worst"] = {"pivot": encode(found.pivot), "element": found.element, "block": found.block}
    elif module is _lyapunov:
        claim["worst"] = _finite(found.change)
    elif module is _barrier:
        claim |= {
            "leaves": found.boxes,
            "worst": {k: encode(getattr(found, k)) for k in ("row", "curvature")},
        }
    elif module is _outputs:
        claim["worst"] = _finite(found.excess)
    elif module is _model_decrease:
        claim |= {name: _finite(getattr(found, name)) for name in ("excess", "distance")}
        claim["states_sha256"] = _model_decrease.fingerprint(claim["data"])
    elif module is _energy:
        claim |= {"needed": encode(found.needed), "fingerprint": _energy.fingerprint(claim)}
    elif module is _energy_runs:
        claim["worst"] = encode(found.worst)
        claim["bound"] = encode(
            clopper_pearson(found.exceeded + found.unfinished, found.runs, _confidence(claim))
        )
    claim["statement"] = module.statement(claim, certificate)
    return certificate


def _finite(value: float) -> str:
    return encode(value if math.isfinite(value) else 0.0)


def _confidence(claim: dict[str, Any]) -> float:
    return float.fromhex(claim["confidence"])


def edit(holder: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with other values; `data__u` is `holder["data"]["u"]`."""
    holder = copy.deepcopy(holder)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place: Any = holder
        for parent in parents:
            place = place[int(parent) if parent.isdigit() else parent]
        place[int(last) if last.isdigit() else last] = value
    return holder


def verdict(module: Any, claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """What `check` makes of a claim whose author made its words and numbers fit: its finding, or the refusal."""
    try:
        certificate = finish(module, claim, certificate)
    except FileFormatError as error:
        return f"refused: {error}"
    (finding,) = check_claims(certificate)
    return finding.text


def stated(kind: Any, **changes: Any) -> str:
    """What `check` makes of the certificate of a kind whose claim states something else."""
    certificate = finish(*kind())
    claim = edit(certificate["claims"][0], **changes)
    claim["statement"] = kind()[0].statement(claim, certificate)
    return check_claims(certificate | {"claims": [claim]})[0].text


KINDS = (rows, sampled, lmi, lyapunov, barrier, outputs, model, energy, energy_runs)
