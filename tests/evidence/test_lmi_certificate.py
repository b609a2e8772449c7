"""Proofs of decisions under linear matrix inequalities: certified, checked, and not to be forged."""

from __future__ import annotations

import copy
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from constrained_nn.cli import build, certify
from constrained_nn.cli.shell import Command
from constrained_nn.errors import FileFormatError
from constrained_nn.evidence import certify_decisions, load_decisions, save_decisions, write
from constrained_nn.experiments.tables.lmi import problems as systems
from constrained_nn.layers import LMINet
from constrained_nn.sets import LMI
from constrained_nn.verify import Outcome, check, check_claims, decode, digest, encode
from constrained_nn.verify.claims.lmi import _smallest_pivot
from tests.cases.lmi import stable


@pytest.fixture
def folder(tmp_path: Path, generator: torch.Generator) -> Path:
    """Eight controllers with their inequalities."""
    data = systems.joint_systems("train", 8, 3)
    set = systems.controller(*data)
    y = LMINet().solve(torch.randn(8, 5, generator=generator, dtype=torch.float64), set).value
    save_decisions(tmp_path, "eight", set, y)
    return tmp_path


def certificate(folder: Path) -> dict:
    return certify_decisions(folder / "decisions.safetensors", command="test")


def forged(original: dict, change) -> dict:
    """A certificate with a change to its claim, and a digest that fits."""
    other = copy.deepcopy(original)
    change(other["claims"][0])
    other["digest"] = digest(other)
    return other


@pytest.mark.once  # in other processes
def test_command_line_certifies_and_checks(folder: Path) -> None:
    for words in (["certify", str(folder)], ["check", str(folder / "certificate.json")]):
        done = CliRunner().invoke(build(), words)
        assert done.exit_code == 0, done.output
        assert "16 blocks factored in exact arithmetic" in done.output


@pytest.mark.parametrize(
    "option",
    ["--grade=sampled", "--runs=5", "--seed=1", "--confidence=0.95", "--starts=3", "--jobs=2", "--seconds=9"],
)
def test_options_about_runs_are_refused(folder: Path, option: str) -> None:
    app = typer.Typer()
    app.command(cls=Command)(certify.command)
    result = CliRunner().invoke(app, [str(folder), option])
    assert result.exit_code == 2
    assert option.partition("=")[0] in result.output
    assert not (folder / "certificate.json").exists()


def test_decisions_survive_the_file(folder: Path) -> None:
    name, set, y = load_decisions(folder / "decisions.safetensors")
    assert name == "eight"
    assert set.certified(y).all()
    S = decode(certificate(folder)["claims"][0]["data"]["S"], "S")
    assert set.variables(y)[0].flatten().tolist() == S


def test_a_decision_outside_is_a_counterexample(folder: Path) -> None:
    original = certificate(folder)

    def shrink(claim: dict) -> None:
        S = decode(claim["data"]["S"], "S")
        claim["data"]["S"] = encode([*S[:8], *(-s for s in S[8:12]), *S[12:]])

    (finding,) = check_claims(forged(original, shrink))
    assert finding.outcome is Outcome.COUNTEREXAMPLE
    assert "element 2" in finding.text


@pytest.mark.once  # samples of what the same functions refuse
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["worst"].update(pivot=encode(1.0)), "worst"),
        (lambda c: c["worst"].update(element=(c["worst"]["element"] + 1) % 8), "worst"),
        (lambda c: c.update(statement="All is well."), "statement"),
        (lambda c: c.update(assumptions=["None."]), "assumptions"),
        (lambda c: c.update(elements=7), "expected"),
        (lambda c: c.update(orders=[2, 3]), "expected"),
        (lambda c: c["data"]["blocks"].pop(), "blocks"),
        (lambda c: c["data"].update(S=c["data"]["S"].replace("0x1", "0x1.8", 1)), ""),
        (lambda c: c["data"]["blocks"][0].update(constant=encode([float("inf")] * 9)), "infinity"),
    ],
)
def test_forgeries_are_refused(folder: Path, change, says: str) -> None:
    (finding,) = check_claims(forged(certificate(folder), change))
    assert finding.outcome is not Outcome.HOLDS
    assert says in finding.text


def test_edited_files_and_strangers_are_refused(folder: Path, tmp_path: Path) -> None:
    path = write(certificate(folder), tmp_path / "c.json")
    path.write_text(path.read_text().replace('"elements": 8', '"elements": 9'))
    with pytest.raises(FileFormatError, match="digest"):
        check(path)
    with pytest.raises(FileFormatError, match="no such file"):
        load_decisions(tmp_path / "nothing.safetensors")
    set = LMI.lyapunov(-torch.eye(2).double())
    save_decisions(tmp_path, "bad", set, torch.full((1, 3), torch.nan))
    with pytest.raises(FileFormatError, match="NaN"):
        certify_decisions(tmp_path / "decisions.safetensors", command="test")


@pytest.mark.parametrize(
    ("matrix", "holds"),
    [
        ([[1, 2], [2, 4]], True),  # singular, and semidefinite
        ([[0, 0], [0, 3]], True),
        ([[0, 1], [1, 3]], False),
        ([[2, 0, 1], [0, 0, 0], [1, 0, 1]], True),
        ([[1, 2], [2, 3]], False),
        ([[-1]], False),
    ],
)
def test_semidefinite_is_decided_at_the_boundary(matrix: list[list[int]], holds: bool) -> None:
    assert (_smallest_pivot(matrix)[0] is None) == holds


def test_pivots_are_those_of_fractions(rng) -> None:
    for _ in range(50):
        root = rng.integers(-4, 5, (4, 3 + rng.integers(3)))
        F = (root @ root.T - rng.integers(0, 2) * rng.integers(0, 3)).tolist()
        A, good = [[Fraction(v) for v in row] for row in F], True
        for i in range(4):
            if A[i][i] < 0 or (A[i][i] == 0 and any(A[i][i + 1 :])):
                good = False
                break
            for j in range(i + 1, 4) if A[i][i] else ():
                ratio = A[j][i] / A[i][i]
                A[j] = [a - ratio * b for a, b in zip(A[j], A[i], strict=True)]
        assert (_smallest_pivot(F)[0] is None) == good


def test_order_32_is_checked_within_a_second(tmp_path: Path, generator: torch.Generator) -> None:
    A = stable(generator, (), 16, 0.5)
    B = 0.3 * torch.randn(16, 16, generator=generator, dtype=torch.float64)
    set = LMI.invariant_ellipsoid(A, B, multiplier=0.1)
    solution = LMINet().solve(torch.randn(1, set.dim, generator=generator, dtype=torch.float64), set)
    assert solution.ok.all()
    save_decisions(tmp_path, "large", set, solution.value)
    path = write(certificate(tmp_path), tmp_path / "c.json")
    start = time.process_time()
    (finding,) = check(path)
    assert finding.outcome is Outcome.HOLDS
    assert time.process_time() - start < 1.0
