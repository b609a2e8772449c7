"""Proofs that the outputs of a network lie in a set, for every context of a box."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from constrained_nn.errors import ShapeError
from constrained_nn.evidence.head import begin_claim, head, read_record
from constrained_nn.evidence.search import Examination, Examiner, Report, cover, quiet, worst_of
from constrained_nn.evidence.tracing import evaluate, trace_module
from constrained_nn.files import write_values
from constrained_nn.sets import ConstraintSet, Polyhedron
from constrained_nn.verify import decode, digest, encode
from constrained_nn.verify.arithmetic import parse
from constrained_nn.verify.claims import outputs as claims
from constrained_nn.verify.file import integer, sequence, text

NETWORK = "network.json"
SAMPLES = 100_000
_SCHEMA = "constrained-nn/network"
_KEYS = ("schema", "name", "contexts", "outputs", "rows", "network", "lower", "upper", "A", "bound")
_SLACK = 2.0**-40  # relative, between the worst excess that was found and the one that is stated


def save_network(
    folder: Path,
    name: str,
    module: nn.Module,
    set: ConstraintSet,
    *,
    lower: Sequence[float],
    upper: Sequence[float],
) -> Path:
    """A network with a constant set that its outputs shall lie in, for `constrained-nn certify FOLDER`.

    Args:
        folder: Where `network.json` goes.
        name: What it is called in the certificate.
        module: Module `(*batch, n) -> (*batch, m)` whose parts `trace_module` knows.
        set: The set, without batch, made of bounds and rows.
        lower: Lower ends of the box of contexts `(n)`.
        upper: Upper ends.
    """
    program = trace_module(module, len(lower))
    A, bound = _list_rows(set)
    return write_values(
        folder / NETWORK,
        {
            "schema": _SCHEMA,
            "name": name,
            "contexts": [f"x{i + 1}" for i in range(len(lower))],
            "outputs": [f"y{i + 1}" for i in range(A.shape[1])],
            "rows": len(A),
            "network": program,
            "lower": encode(list(lower)),
            "upper": encode(list(upper)),
            "A": encode(A.ravel().tolist()),
            "bound": encode(bound.tolist()),
        },
    )


def _list_rows(set: ConstraintSet) -> tuple[np.ndarray, np.ndarray]:
    """Rows `A y <= bound` of finite bounds."""
    rows = Polyhedron.of(set)
    A, lower, upper = (v.detach().double().cpu().numpy() for v in (rows.A, rows.lower, rows.upper))
    below, above = np.isfinite(lower), np.isfinite(upper)
    return np.concatenate([A[above], -A[below]]), np.concatenate([upper[above], -lower[below]])


def certify_outputs(
    path: Path, *, command: str, seconds: float = 300.0, jobs: int = 1, report: Report = quiet
) -> dict[str, Any]:
    """A certificate about the outputs of a network in a file, as JSON values: the claim `output-set`.

    Args:
        path: The file that `save_network` wrote.
        command: The command line, kept in the certificate.
        seconds, jobs, report: As for `cover`; boxes that are left open make the claim inconclusive.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
    """
    saved = _load(path)
    names = {k: [text(v, k) for v in sequence(saved[k], k)] for k in ("contexts", "outputs")}
    certificate = head(
        command=command,
        seed=0,
        # no time passes: one step; contexts take the place of the state, outputs that of the input
        task={
            "name": text(saved["name"], "name"),
            "version": 1,
            "dt": encode(1.0),
            "horizon": 1,
            "state": names["contexts"],
            "input": names["outputs"],
        },
        controller={
            "method": "network",
            "dtype": "float64",
            "weights": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
    )
    claim: dict[str, Any] = {
        **begin_claim(claims),
        "rows": integer(saved["rows"], "rows", least=1),
        "boxes": 0,
        "worst": encode(0.0),
        "data": {k: saved[k] for k in ("network", "lower", "upper", "A", "bound")}
        | {"cover": "?", "point": ""},
    }
    _search(claim, certificate, seconds, jobs, report)
    account = claims.evaluate(claim, certificate)
    if account.verdict == "holds":
        claim["worst"] = encode(min(account.excess + _SLACK * abs(account.excess), 0.0))
    claim["boxes"], claim["verdict"] = account.boxes, account.verdict
    claim["statement"] = claims.statement(claim, certificate)
    certificate["claims"].append(claim)
    certificate["digest"] = digest(certificate)
    return certificate


def _load(path: Path) -> dict[str, Any]:
    return read_record(path, _KEYS, _SCHEMA, what="network", writer="save_network")


def repeat_outputs(path: Path, numbers: list[float]) -> list[str]:
    """What the network of a file gives for a context, and which rows that violates, in lines.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
        ShapeError: `numbers` are no context.
    """
    saved = _load(path)
    lower, upper, bound = (np.array(decode(saved[k], k)) for k in ("lower", "upper", "bound"))
    if len(numbers) != len(lower):
        names = ", ".join(map(str, saved["contexts"]))
        raise ShapeError(f"--start: expected {len(lower)} numbers ({names}), got {len(numbers)}.")
    x = np.array(numbers)
    y = evaluate(parse(saved["network"], "network"), x)
    room = bound - np.array(decode(saved["A"], "A")).reshape(len(bound), -1) @ y
    lines = [f"from the context {numbers} the network gives {y.tolist()}"]
    if not ((lower <= x) & (x <= upper)).all():
        return [*lines, "the context is not in the box: nothing is claimed of it"]
    worst = int(np.argmin(room))
    lines.append(f"smallest distance to a bound: {room[worst]:.6g}, in row {worst} (the first is 0)")
    return [
        *lines,
        "counterexample: the output is outside" if not room[worst] >= 0 else "the output is inside",
    ]


def _search(
    claim: dict[str, Any], certificate: dict[str, Any], seconds: float, jobs: int, report: Report
) -> None:
    """A context whose output is outside, or a cover."""
    rows, data = claims.read_rows(claim, certificate), claim["data"]
    rng = np.random.default_rng(0)
    x = rng.uniform(rows.lower, rows.upper, (SAMPLES, len(rows.lower)))
    network, A, bound = parse(data["network"], "network"), np.array(rows.A), np.array(rows.bound)

    def room(x: np.ndarray) -> np.ndarray:
        return (bound - evaluate(network, x) @ A.T).min(-1)

    worst = worst_of(room, np.array(rows.lower), np.array(rows.upper), x)
    if worst.margin < -1e-12 * (1.0 + np.abs(bound).max()):
        data["point"] = encode(worst.state.tolist())
        return
    ends = [decode(data[k], k) for k in ("lower", "upper")]
    found = cover(_make_examiner, (claim, certificate), *ends, seconds=seconds, jobs=jobs, report=report)
    data["cover"] = found.tree


def _make_examiner(claim: dict[str, Any], certificate: dict[str, Any]) -> Examiner:
    rows = claims.read_rows(claim, certificate)

    def examine(lower: Sequence[float], upper: Sequence[float]) -> Examination:
        excess, found = rows.excess(lower, upper)
        if excess <= 0:
            return Examination(".")
        widths = np.subtract(upper, lower)
        slopes = np.array([[float(abs(d).upper()) for d in row] for row in found.jacobian or []])
        costs = slopes.max(0) * widths if np.isfinite(slopes).all() else widths
        return Examination(None, int(np.argmax(costs)))

    return examine
