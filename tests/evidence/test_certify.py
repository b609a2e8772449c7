"""`certify` on real runs: what it writes, how it ends, and that `check --replay` repeats it."""

from __future__ import annotations

import json
import shlex

import pytest
import typer
from typer.testing import CliRunner

from constrained_nn.cli import certify, check, simulate
from constrained_nn.cli.shell import Command
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence import Subject
from constrained_nn.training import TrainConfig, make_method, train
from control_envs.tasks import UnicycleObstacles


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Barely trained runs of two methods, and one in float32."""
    folder = tmp_path_factory.mktemp("runs")
    for name, method, dtype in (
        ("hardnet", "hardnet", "float64"),
        ("soft", "soft", "float64"),
        ("single", "hardnet", "float32"),
    ):
        config = TrainConfig(
            UnicycleObstacles(), make_method(method), steps=1, batch=4, eval_every=1, hidden=(8,), dtype=dtype
        )
        train(config, folder / name)
    return folder


@pytest.fixture
def shell():
    app = typer.Typer()
    app.command("certify", cls=Command)(certify.command)
    app.command("check", cls=Command)(check.command)
    app.command("simulate", cls=Command)(simulate.command)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def test_hardnet_run_is_certified_checked_and_repeated(runs, shell):
    made = shell("certify", runs / "hardnet", "--runs", 50, "--seed", 9, "--search", 4)
    assert made.exit_code == 0, made.output
    assert "no counterexample" in made.output
    file = runs / "hardnet" / "certificate.json"
    saved = json.loads(file.read_text())
    assert saved["command"].endswith("--grade all --runs 50 --seed 9 --confidence 0.99")
    assert saved["claims"][0]["starts"] == 84
    assert saved["controller"]["method"] == "hardnet"
    assert len(saved["controller"]["sha256"]) == 64
    assert shell("check", file).exit_code == 2
    assert shell("check", file, "--accept", "sampled").exit_code == 0
    repeated = shell("check", file, "--accept", "sampled", "--replay")
    assert repeated.exit_code == 0, repeated.output
    assert repeated.output.count("to the last bit") == 2
    other = shell("check", file, "--replay", "--run", runs / "soft")
    assert other.exit_code == 2
    assert "weights" in other.output


def test_proof_alone_needs_no_acceptance(runs, shell, tmp_path):
    file = tmp_path / "proof.json"
    assert (
        shell(
            "certify", runs / "hardnet", "--grade", "proof", "--starts", 5, "--search", 0, "--out", file
        ).exit_code
        == 0
    )
    assert shell("check", file).exit_code == 0
    assert json.loads(file.read_text())["claims"][0]["starts"] == 5


def test_soft_run_has_counterexamples(runs, shell):
    found = shell("certify", runs / "soft", "--search", 4)
    assert found.exit_code == 3
    assert "counterexample: g <= 0 fails" in found.output
    assert not (runs / "soft" / "certificate.json").exists()
    words = next(line for line in found.output.splitlines() if line.startswith("repeat it: "))
    arguments = shlex.split(words.removeprefix("repeat it: constrained-nn "))
    repeated = shell(*arguments)
    assert repeated.exit_code == 0, repeated.output
    margin = found.output.partition("margin ")[2].partition(",")[0]
    assert (
        f"counterexample: g > 0 for one of obstacle-1, obstacle-2; smallest -g = {margin}" in repeated.output
    )
    assert "expected 5 numbers" in shell("simulate", runs / "soft", "--start", "1 2").output
    assert "expected numbers" in shell("simulate", runs / "soft", "--start", "1 2 3 x 5").output
    made = shell("certify", runs / "soft", "--runs", 20, "--search", 0)
    assert made.exit_code == 3
    assert made.output.count("counterexample") == 2
    assert shell("check", runs / "soft" / "certificate.json", "--accept", "sampled").exit_code == 3


def test_float32_run(runs, shell):
    made = shell("certify", runs / "single", "--runs", 20, "--search", 3)
    assert made.exit_code == 0, made.output
    assert shell("check", runs / "single" / "certificate.json", "--accept", "sampled").exit_code == 0


def test_bad_input(runs, shell, tmp_path):
    for arguments in (
        (tmp_path / "nowhere",),
        (runs / "hardnet", "--out", runs / "hardnet" / "config.json" / "x.json"),
        (runs / "hardnet", "--runs", 0),
        (runs / "hardnet", "--confidence", 1.5),
        (runs / "hardnet", "--grade", "gold"),
    ):
        result = shell("certify", *arguments)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
    policy = runs / "single" / "policy.safetensors"
    whole = policy.read_bytes()
    policy.write_bytes(whole[:100])
    damaged = shell("certify", runs / "single")
    policy.write_bytes(whole)
    assert damaged.exit_code == 2
    assert "damaged" in damaged.output


@pytest.mark.untyped
def test_task_without_rows_is_refused():
    class Bare:
        name = "bare"

    with pytest.raises(SetTypeError, match="no rows to certify"):
        _ = Subject(Bare(), lambda t, x: x).condition  # pyright: ignore[reportArgumentType]
