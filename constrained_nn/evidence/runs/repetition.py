"""Repeats the runs of a certificate and compares them with what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from constrained_nn.errors import FileFormatError
from constrained_nn.evidence.runs.certificate import closed_loop
from constrained_nn.evidence.runs.recording import record
from constrained_nn.evidence.runs.samples import sample
from constrained_nn.evidence.runs.subject import Subject
from constrained_nn.verify import Finding, Outcome, decode, decode_one

REPEATED_RTOL = 1e-6  # a repetition on another machine may differ by this much in its numbers


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
    for claim in certificate["claims"]:
        if claim["kind"] not in REPLAYS:
            raise FileFormatError(f"replay: a claim of kind '{claim['kind']}' has no runs to repeat.")
    return [REPLAYS[claim["kind"]](claim, certificate, subject) for claim in certificate["claims"]]


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
    again = closed_loop(
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


# kind of claim -> how its runs are repeated
REPLAYS: dict[str, Callable[[dict[str, Any], dict[str, Any], Subject], Finding]] = {
    "rows": _replay_rows,
    "closed-loop": _replay_closed_loop,
}
