"""Checks a certificate from its file alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.claim import ClaimModule
from constrained_nn.verify.claims import KINDS
from constrained_nn.verify.file import MAX_BYTES, mapping, read, sequence, text


class Outcome(IntEnum):
    """What a check found; the exit code of `constrained-nn check`.

    1 is left out: Python itself ends with it on any error, and a crash must not read as a verdict.
    """

    HOLDS = 0
    INCONCLUSIVE = 2
    COUNTEREXAMPLE = 3


@dataclass(frozen=True)
class Finding:
    """What became of one claim.

    Args:
        grade: `proof` or `sampled`.
        outcome: Of this claim alone.
        text: One line on it.
        statement: The claim in words.
    """

    grade: str
    outcome: Outcome
    text: str
    statement: str


_KINDS = {(module.KIND, module.GRADE): module for module in KINDS}


def check(path: str | Path, *, max_bytes: int = MAX_BYTES) -> list[Finding]:
    """Findings on all claims of a certificate file, from the file alone.

    Raises:
        FileFormatError: The file is damaged as a whole; a damaged claim is a finding.
    """
    return check_claims(read(path, max_bytes=max_bytes))


def check_claims(certificate: dict[str, Any]) -> list[Finding]:
    """Findings on all claims of a certificate that was read."""
    kinds = [claim_module(claim, f"claims[{i}]") for i, claim in enumerate(certificate["claims"])]
    if len(set(kinds)) != len(kinds):
        raise FileFormatError("claims: expected each kind of claim once.")
    findings = []
    for claim, module in zip(certificate["claims"], kinds, strict=True):
        try:
            findings.append(_check_claim(certificate, claim, module))
        except FileFormatError as error:  # the other claims are still worth knowing
            findings.append(Finding(claim["grade"], Outcome.INCONCLUSIVE, f"damaged: {error}", ""))
    return findings


def claim_module(claim: Any, where: str) -> ClaimModule:
    """The module that checks a claim; its keys must be exactly those that the module knows."""
    claim = mapping(claim, None, where)
    kind = (str(claim.get("kind"))[:40], str(claim.get("grade"))[:40])
    if kind not in _KINDS:
        raise FileFormatError(f"{where}: there is no claim of kind {kind[0]!a} with grade {kind[1]!a}.")
    mapping(claim, _KINDS[kind].KEYS, where)
    return _KINDS[kind]


def _check_claim(certificate: dict[str, Any], claim: dict[str, Any], module: ClaimModule) -> Finding:
    found = module.evaluate(claim, certificate)
    grade = claim["grade"]
    if found.verdict == "counterexample":
        return Finding(grade, Outcome.COUNTEREXAMPLE, f"counterexample: {found.counterexample}", "")
    if found.verdict == "inconclusive":
        return Finding(grade, Outcome.INCONCLUSIVE, f"inconclusive: {found.line}", "")
    module.check_stated(claim, found)
    words = module.statement(claim, certificate)
    if text(claim["statement"], "statement") != words:
        raise FileFormatError("statement: the words do not say what the numbers say.")
    if tuple(sequence(claim["assumptions"], "assumptions")) != module.ASSUMPTIONS:
        raise FileFormatError("assumptions: they are not those of this kind of claim.")
    if claim["verdict"] != found.verdict:
        raise FileFormatError(f"verdict: the data give '{found.verdict}', which is not what the claim says.")
    return Finding(grade, Outcome.HOLDS, found.line, words)


def describe(findings: list[Finding], accept: str) -> tuple[list[str], Outcome]:
    """Statement and result of every claim in lines, and the outcome; `accept` is the weakest grade that counts."""
    lines = []
    for finding in findings:
        lines += [finding.statement] if finding.statement else []
        lines.append(f"{finding.grade}: {finding.text}")
    outcome = conclusion(findings, frozenset({"proof", accept}))
    if outcome is Outcome.INCONCLUSIVE and all(finding.outcome is Outcome.HOLDS for finding in findings):
        lines.append("A sampled claim is no proof; pass --accept sampled if sampling is enough for you.")
    return lines, outcome


def conclusion(findings: list[Finding], accept: frozenset[str]) -> Outcome:
    """The outcome of a whole file: a counterexample outweighs all; a `sampled` claim must be accepted by name."""
    outcomes = {f.outcome for f in findings}
    if Outcome.COUNTEREXAMPLE in outcomes:
        return Outcome.COUNTEREXAMPLE
    accepted = all(f.grade == "proof" or f.grade in accept for f in findings)
    return Outcome.HOLDS if outcomes == {Outcome.HOLDS} and accepted else Outcome.INCONCLUSIVE
