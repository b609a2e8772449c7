"""Claims about a controller on its task: rows of recorded runs, and fresh runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.errors import ConvergenceError
from constrained_nn.evidence.head import begin_claim, describe_task, head
from constrained_nn.evidence.runs.recording import record
from constrained_nn.evidence.runs.samples import Sample, sample
from constrained_nn.evidence.runs.subject import Subject
from constrained_nn.files import write_json
from constrained_nn.verify import clopper_pearson, digest, encode
from constrained_nn.verify.claims import rows as rows_claim
from constrained_nn.verify.claims import sampled as sampled_claim


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
    certificate = head(
        command=command,
        seed=seed,
        task=describe_task(task),
        controller={
            "method": subject.method,
            "dtype": dtype,
            "weights": subject.weights,
            "sha256": subject.sha256,
        },
    )
    rtol = rows_claim.MAX_RTOL[dtype] if rtol is None else rtol
    if "proof" in grades:
        certificate["claims"].append(rows(subject, starts, rtol, certificate))
    if "sampled" in grades:
        drawn = sample(subject, runs, seed)
        certificate["claims"].append(closed_loop(drawn, rtol, confidence, certificate))
    certificate["digest"] = digest(certificate)
    return certificate


def write(certificate: dict[str, Any], path: Path) -> Path:
    """Write the file, whole or not at all."""
    return write_json(path, certificate)


def rows(subject: Subject, starts: np.ndarray, rtol: float, certificate: dict[str, Any]) -> dict[str, Any]:
    """The claim about the rows of recorded runs."""
    data = record(subject, starts)
    inputs = sum(data["counts"])
    if not inputs:
        raise ConvergenceError(
            "certify: expected finite inputs along the recorded runs, got NaN or infinity in all. Train again."
        )
    claim: dict[str, Any] = {
        **begin_claim(rows_claim),
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


def closed_loop(drawn: Sample, rtol: float, confidence: float, certificate: dict[str, Any]) -> dict[str, Any]:
    """The claim about fresh runs."""
    runs, whole = len(drawn.starts), drawn.complete
    collisions = int((drawn.margin[whole] < 0).sum())
    violations = int((drawn.excess[whole] > rtol).sum())
    incomplete = int((~whole).sum())
    tightest, loosest = int(drawn.margin.argmin()), int(drawn.excess.argmax())
    claim: dict[str, Any] = {
        **begin_claim(sampled_claim),
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
