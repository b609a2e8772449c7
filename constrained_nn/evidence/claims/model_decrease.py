"""Proofs that a learned model decreases its Lyapunov function: over a box, and as computed at recorded states."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.certificates import LyapunovFunction, NeuralLyapunov, QuadraticLyapunov
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence.head import begin_claim, head, read_record
from constrained_nn.evidence.search import Examination, Examiner, Report, cover, quiet
from constrained_nn.evidence.tracing import trace_closed_loop, trace_module
from constrained_nn.files import write_values
from constrained_nn.layers import HardNetAffine
from constrained_nn.models import CoILS, StableDynamics
from constrained_nn.verify import decode, digest, encode
from constrained_nn.verify.claims import MAX_RTOL
from constrained_nn.verify.claims import model_decrease as claims
from constrained_nn.verify.file import integer, sequence, text

MODEL = "stable_model.json"
_SCHEMA = "constrained-nn/stable-model"
_DATA = ("certificate", "raw", "lower", "upper", "center", "hole", "x", "velocity")
_KEYS = ("schema", "name", "names", "rate", "floor", "states", *_DATA)
_SLACK = 2.0**-40  # relative, between a maximum that was found and the one that is stated


@torch.no_grad()
def save_model(
    folder: Path,
    name: str,
    model: CoILS | StableDynamics,
    *,
    states: Float[Tensor, "count n"],
    lower: Sequence[float],
    upper: Sequence[float],
    hole: float | Sequence[float],
) -> Path:
    """A model that is stable by construction, and its velocities, for `constrained-nn certify FOLDER`.

    Args:
        folder: Where `stable_model.json` goes.
        name: What it is called in the certificate.
        model: The model in float64, with `HardNetAffine`, and parts that `trace_module` knows.
        states: States `(count, n)` in the box, not in the hole, at which its velocity is computed and recorded.
        lower: Lower ends of the box of states `(n)`.
        upper: Upper ends.
        hole: Half widths of the box around the equilibrium that is left out, where the gradient vanishes.

    Raises:
        SetTypeError: A part of the model is not known, or is not in float64.
    """
    V = model.certificate
    if not isinstance(V, NeuralLyapunov | QuadraticLyapunov) or type(model.layer) is not HardNetAffine:
        raise SetTypeError(
            f"save_model: expected NeuralLyapunov or QuadraticLyapunov behind HardNetAffine(), got "
            f"{type(V).__name__} and {type(model.layer).__name__}. Others have no program here."
        )
    floats = [t for t in (*model.parameters(), *model.buffers(), states) if t.is_floating_point()]
    if any(t.dtype != torch.float64 for t in floats):
        raise SetTypeError("save_model: expected a model and states in float64. Call model.double().")
    n = states.shape[-1]
    raw = _trace_uncorrected(model, V, n)  # first: it refuses parts that it does not know
    loop = model.closed_loop(states) if isinstance(model, CoILS) else model.solve(states)
    widths = [float(hole)] * n if isinstance(hole, int | float) else list(hole)
    return write_values(
        folder / MODEL,
        {
            "schema": _SCHEMA,
            "name": name,
            "names": [f"x{i + 1}" for i in range(n)],
            "rate": encode(V.rate),
            # half of it, so that the proof has room where V has hardly more
            "floor": encode(0.5 * V.floor),
            "states": len(states),
            "certificate": trace_module(V, n),
            "raw": raw,
            "lower": encode(list(lower)),
            "upper": encode(list(upper)),
            "center": encode(V.origin.tolist()),
            "hole": encode(widths),
            "x": encode(states.flatten().tolist()),
            "velocity": encode(loop.value.flatten().tolist()),
        },
    )


def _trace_uncorrected(model: CoILS | StableDynamics, V: LyapunovFunction, n: int) -> dict[str, Any]:
    """The program of the model before the correction, as a function of the state."""
    if isinstance(model, CoILS):
        return trace_closed_loop(model.model, model.policy, n)
    return trace_module(model.model, n)


def certify_model(
    path: Path, *, command: str, seconds: float = 300.0, jobs: int = 1, report: Report = quiet
) -> dict[str, Any]:
    """A certificate about a model that is stable by construction, as JSON values: the claim `model-decrease`.

    Args:
        path: The file that `save_model` wrote.
        command: The command line, kept in the certificate.
        seconds, jobs, report: As for `cover`; boxes that are left open make the claim inconclusive.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
    """
    saved = read_record(path, _KEYS, _SCHEMA, what="stable model", writer="save_model")
    names = [text(v, "names") for v in sequence(saved["names"], "names")]
    certificate = head(
        command=command,
        seed=0,
        # a differential equation without input: its velocities take the place of the input
        task={
            "name": text(saved["name"], "name"),
            "version": 1,
            "dt": encode(1.0),
            "horizon": 1,
            "state": names,
            "input": [f"d{name}/dt" for name in names],
        },
        controller={
            "method": "stable model",
            "dtype": "float64",
            "weights": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
    )
    claim = _begin(saved)
    model = claims.read_model(claim, certificate)
    ends = [decode(saved[k], k) for k in ("lower", "upper")]
    # what the recorded velocities refute needs no cover
    if claims.evaluate(claim, certificate).verdict != "counterexample" and model.least_is_in_hole():
        found = cover(_make_examiner, (claim, certificate), *ends, seconds=seconds, jobs=jobs, report=report)
        claim["data"]["cover"] = found.tree
    account = claims.evaluate(claim, certificate)
    if account.verdict == "holds":
        for key, value in (("excess", account.excess), ("distance", account.distance)):
            claim[key] = encode(value + _SLACK * abs(value))
    claim["boxes"], claim["verdict"] = account.boxes, account.verdict
    claim["statement"] = claims.statement(claim, certificate)
    certificate["claims"].append(claim)
    certificate["digest"] = digest(certificate)
    return certificate


def _begin(saved: dict[str, Any]) -> dict[str, Any]:
    """The claim, before anything is searched."""
    return {
        **begin_claim(claims),
        "rate": saved["rate"],
        "floor": saved["floor"],
        "rtol": encode(MAX_RTOL["float64"]),
        "boxes": 0,
        "states": integer(saved["states"], "states", least=1),
        "states_sha256": claims.fingerprint(saved),
        "excess": encode(0.0),
        "distance": encode(0.0),
        "data": {k: saved[k] for k in _DATA} | {"cover": "?"},
    }


def _make_examiner(claim: dict[str, Any], certificate: dict[str, Any]) -> Examiner:
    model = claims.read_model(claim, certificate)

    def examine(lower: Sequence[float], upper: Sequence[float]) -> Examination:
        if model.is_hole(lower, upper):
            return Examination("o")
        if model.is_proved(lower, upper):
            return Examination(".")
        widths = [(b - a) / r for a, b, r in zip(lower, upper, model.hole, strict=True)]
        return Examination(None, widths.index(max(widths)))

    return examine
