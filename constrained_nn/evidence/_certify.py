"""Puts claims together, writes them, and repeats the runs of a certificate."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import constrained_nn
from constrained_nn._files import write_json
from constrained_nn.errors import ConvergenceError, FileFormatError
from constrained_nn.evidence._record import record
from constrained_nn.evidence._sample import Sample, sample
from constrained_nn.evidence._subject import Subject
from constrained_nn.verify import (
    SCHEMA,
    VERSION,
    Finding,
    Outcome,
    clopper_pearson,
    decode,
    decode_one,
    digest,
    encode,
)
from constrained_nn.verify import _rows as rows_claim
from constrained_nn.verify import _sampled as sampled_claim

REPEATED_RTOL = 1e-6  # a repetition on another machine may differ by this much in its numbers


def certify(
    subject: Subject,
    *,
    grades: frozenset[str],
    seed: int,
    runs: int,
    confidence: float,
    starts: np.ndarray,
    command: str,
    rtol: float | None = None,
) -> dict[str, Any]:
    """A certificate as JSON values: proof-grade rows from `starts`, sampled closed loop from `runs` fresh starts.

    Args:
        subject: What it is about.
        grades: `proof`, `sampled`, or both.
        seed: Seed of the fresh start states.
        runs: Number of fresh start states.
        confidence: Confidence of each bound.
        starts: Start states `(k, n)` of the recorded runs.
        command: The command line, kept in the file.
        rtol: Relative tolerance of a row; default the largest that the precision allows.

    Raises:
        SetTypeError: The task has no rows.
        ConvergenceError: No recorded input is finite.
    """
    task, dtype = subject.task, str(subject.dtype).removeprefix("torch.")
    certificate: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "digest": "",
        "versions": {
            "constrained-nn": constrained_nn.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "python-flint")},
        },
        "command": command,
        "seed": seed,
        "task": {
            "name": task.name,
            "version": task.version,
            "dt": encode(task.dt),
            "horizon": task.horizon,
            "state": [f"{q.name} [{q.unit}]" for q in task.plant.state],
            "input": [f"{q.name} [{q.unit}]" for q in task.plant.input],
        },
        "controller": {
            "method": subject.method,
            "dtype": dtype,
            "weights": subject.weights,
            "sha256": subject.sha256,
        },
        "claims": [],
    }
    rtol = rows_claim.MAX_RTOL[dtype] if rtol is None else rtol
    if "proof" in grades:
        certificate["claims"].append(_rows(subject, starts, rtol, certificate))
    if "sampled" in grades:
        drawn = sample(subject, runs, seed)
        certificate["claims"].append(_closed_loop(drawn, rtol, confidence, certificate))
    certificate["digest"] = digest(certificate)
    return certificate


def write(certificate: dict[str, Any], path: Path) -> Path:
    """Write the file, whole or not at all."""
    return write_json(path, certificate)


def _rows(subject: Subject, starts: np.ndarray, rtol: float, certificate: dict[str, Any]) -> dict[str, Any]:
    data = record(subject, starts)
    inputs = sum(data["counts"])
    if not inputs:
        raise ConvergenceError(
            "certify: expected finite inputs along the recorded runs, got NaN or infinity in all. Train again."
        )
    claim: dict[str, Any] = {
        "kind": "rows",
        "grade": "proof",
        "statement": "",
        "assumptions": list(rows_claim.ASSUMPTIONS),
        "verdict": "",
        "rtol": encode(rtol),
        "starts": len(data["counts"]),
        "inputs": inputs,
        "rows": len(data["lower"].split()),
        "bounds": 0,
        "worst": {},
        "data": data,
    }
    found = rows_claim.evaluate(claim, certificate)
    claim["bounds"], claim["verdict"] = found.bounds, found.verdict
    claim["worst"] = {
        "excess": encode(found.excess),
        "input": found.worst.input,
        "row": found.worst.row,
        "side": found.worst.side,
    }
    claim["statement"] = rows_claim.statement(claim, certificate)
    return claim


def _closed_loop(
    drawn: Sample, rtol: float, confidence: float, certificate: dict[str, Any]
) -> dict[str, Any]:
    runs, whole = len(drawn.starts), drawn.complete
    collisions = int((drawn.margin[whole] < 0).sum())
    violations = int((drawn.excess[whole] > rtol).sum())
    incomplete = int((~whole).sum())
    tightest, loosest = int(drawn.margin.argmin()), int(drawn.excess.argmax())
    claim: dict[str, Any] = {
        "kind": "closed-loop",
        "grade": "sampled",
        "statement": "",
        "assumptions": list(sampled_claim.ASSUMPTIONS),
        "verdict": "",
        "rtol": encode(rtol),
        "confidence": encode(confidence),
        "runs": runs,
        "starts_sha256": drawn.starts_sha256,
        "collisions": collisions,
        "violations": violations,
        "incomplete": incomplete,
        "collision_bound": encode(clopper_pearson(collisions + incomplete, runs, confidence)),
        "violation_bound": encode(clopper_pearson(violations + incomplete, runs, confidence)),
        "worst": {
            "margin": encode(drawn.margin[tightest]),
            "margin_run": tightest,
            "margin_start": encode(drawn.starts[tightest].tolist()),
            "excess": encode(drawn.excess[loosest]),
            "excess_run": loosest,
            "excess_start": encode(drawn.starts[loosest].tolist()),
        },
        "data": {
            "margin": encode(drawn.margin.tolist()),
            "excess": encode(drawn.excess.tolist()),
            "complete": "".join("01"[int(c)] for c in whole),
        },
    }
    claim["statement"] = sampled_claim.statement(claim, certificate)
    claim["verdict"] = sampled_claim.evaluate(claim, certificate).verdict
    return claim


def replay(certificate: dict[str, Any], subject: Subject) -> list[Finding]:
    """Repeat the runs of a certificate that was checked, and compare them with what it holds.

    Raises:
        FileFormatError: The controller or the task is not the one that the certificate is about.
    """
    task, controller = certificate["task"], certificate["controller"]
    for what, stated, here in (
        ("weights", controller["sha256"], subject.sha256),
        ("task", (task["name"], task["version"]), (subject.task.name, subject.task.version)),
        ("dtype", controller["dtype"], str(subject.dtype).removeprefix("torch.")),
    ):
        if stated != here:
            raise FileFormatError(f"replay: the certificate is about {what} {stated}, got {here}.")
    repeat = {"rows": _replay_rows, "closed-loop": _replay_closed_loop}
    return [repeat[claim["kind"]](claim, certificate, subject) for claim in certificate["claims"]]


def _replay_rows(claim: dict[str, Any], certificate: dict[str, Any], subject: Subject) -> Finding:
    data, dim = claim["data"], len(certificate["task"]["state"])
    x = np.array(decode(data["x"], "data.x")).reshape(-1, dim)
    firsts = np.concatenate([[0], np.cumsum(data["counts"])[:-1]])
    repeated = record(subject, x[firsts])
    if repeated["counts"] != data["counts"]:
        return Finding("proof", Outcome.INCONCLUSIVE, "not repeated: other sub-steps than recorded", "")
    differences = {
        name: _difference(
            decode(repeated[name], name, infinite=True), decode(data[name], name, infinite=True)
        )
        for name in ("x", "A", "lower", "upper", "u")
    }
    return _repeated("proof", differences, "the recorded rows")


def _replay_closed_loop(claim: dict[str, Any], certificate: dict[str, Any], subject: Subject) -> Finding:
    drawn = sample(subject, claim["runs"], certificate["seed"])
    if drawn.starts_sha256 != claim["starts_sha256"]:
        line = "not repeated: the seed gives other start states than recorded"
        return Finding("sampled", Outcome.INCONCLUSIVE, line, "")
    again = _closed_loop(
        drawn, decode_one(claim["rtol"], "rtol"), decode_one(claim["confidence"], "confidence"), certificate
    )
    counts = ("collisions", "violations", "incomplete")
    if any(again[name] != claim[name] for name in counts):
        line = ", ".join(f"{name} {again[name]} instead of {claim[name]}" for name in counts)
        worse = again["collisions"] + again["violations"] > 0
        return Finding(
            "sampled",
            Outcome.COUNTEREXAMPLE if worse else Outcome.INCONCLUSIVE,
            f"repeated with other results: {line}",
            "",
        )
    differences = {
        name: _difference(
            decode(again["data"][name], name, infinite=True), decode(claim["data"][name], name, infinite=True)
        )
        for name in ("margin", "excess")
    }
    return _repeated("sampled", differences, "all counts and worst margins")


def _difference(ours: list[float], stated: list[float]) -> float:
    """Largest difference relative to the size of the values, infinite where only one is."""
    a, b = np.array(ours), np.array(stated)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite]):
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(1.0, np.abs(b[finite]).max()))


def _repeated(grade: str, differences: dict[str, float], what: str) -> Finding:
    name = max(differences, key=lambda n: differences[n])
    if differences[name] <= REPEATED_RTOL:
        exact = "to the last bit" if differences[name] == 0 else f"to {differences[name]:.1e} in {name}"
        return Finding(grade, Outcome.HOLDS, f"repeated: {what}, {exact}", "")
    line = f"repeated with other numbers: {name} differs by {differences[name]:.3g}"
    return Finding(grade, Outcome.INCONCLUSIVE, line, "")
