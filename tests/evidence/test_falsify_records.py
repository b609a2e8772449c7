"""The search before a proof of a recorded loop, network or barrier: exit code 3, and a command that repeats it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from constrained_nn.cli import build
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence import save_loop, save_network
from constrained_nn.evidence.claims import load_loop, save_barrier
from constrained_nn.evidence.search import worst_of
from constrained_nn.evidence.search.falsification import by_differences
from constrained_nn.sets import Box
from constrained_nn.verify import encode
from control_envs.tasks import DoubleIntegratorTask
from tests.evidence.loops import clipped_mass
from tests.evidence.test_lyapunov import turned


def shell(*words: object):
    return CliRunner().invoke(build(), [str(w) for w in words])


def repeat(output: str):
    line = next(line for line in output.splitlines() if line.startswith("repeat it: "))
    return shell(*shlex.split(line.removeprefix("repeat it: constrained-nn ")))


def numbers(output: str) -> tuple[list[float], list[float]]:
    """The state that was printed, from hexadecimal and from decimals."""
    line = next(line for line in output.splitlines() if line.startswith("at "))
    exact, _, decimal = line.removeprefix("at ").partition(", that is ")
    return [float.fromhex(v) for v in exact.split()], [float(v) for v in decimal.split()]


def test_gradient_steps_find_what_samples_miss(rng: np.random.Generator) -> None:
    """Values below 0 fill a millionth of the box."""

    def bowl(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x - [0.3, -0.4], axis=-1) - 2e-3

    low, high = np.full(2, -2.0), np.full(2, 2.0)
    points = rng.uniform(low, high, (500, 2))
    assert bowl(points).min() > 0
    found = worst_of(lambda x: bowl(x) - 0.05, low, high, points)
    assert found.margin < bowl(points).min() - 0.05
    x = torch.tensor([[1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    margin = by_differences(lambda x: (x**2).sum(-1), np.full(2, 1e-6))
    (slope,) = torch.autograd.grad(margin(x).sum(), x)
    np.testing.assert_allclose(slope.numpy(), [[2.0, 1.0]], rtol=1e-6)


@pytest.mark.untyped
@pytest.mark.parametrize("which", ["level too high", "unstable"])
def test_loop_ends_with_a_counterexample_that_simulate_repeats(which: str, tmp_path: Path) -> None:
    task, loop, level = clipped_mass()
    width, value = 1.0, loop.value
    if which == "unstable":
        turned(loop.controller)
    else:  # far out the clipped force is too weak for this V
        width, level = 40.0, level * 1600.0
    save_loop(
        tmp_path,
        task,
        loop.controller,
        value,
        lower=width * loop.lower,
        upper=width * loop.upper,
        level=level,
    )
    made = shell("certify", tmp_path, "--seconds", 5)
    assert made.exit_code == 3, made.output
    exact, decimal = numbers(made.output)
    assert exact == decimal
    _, _, again, _ = load_loop(tmp_path / "loop.json")
    assert again.change(np.array(exact)) >= 0
    assert again.lyapunov(np.array(exact)) <= level
    repeated = repeat(made.output)
    assert repeated.exit_code == 0, repeated.output
    assert "counterexample: V does not decrease" in repeated.output
    near = shell("simulate", tmp_path, "--start", encode([1e9, 0.0]))
    assert "nothing is claimed of it" in near.output
    if which != "unstable":
        assert "V decreases" in shell("simulate", tmp_path, "--start", encode([0.1, 0.0])).output
    assert shell("simulate", tmp_path).exit_code == 2


@pytest.mark.untyped
def test_barrier_ends_with_a_counterexample_that_simulate_repeats(tmp_path: Path, monkeypatch) -> None:
    def weak(name: str) -> DoubleIntegratorTask:
        task = DoubleIntegratorTask()
        task.clearances = tuple(
            dataclasses.replace(c, curvature=lambda x, xp, c=c: -5.0 * c.curvature(x, xp))
            for c in task.clearances
        )
        return task

    save_barrier(tmp_path, "double-integrator")
    monkeypatch.setattr("control_envs.tasks.make_task", weak)
    made = shell("certify", tmp_path)
    assert made.exit_code == 3, made.output
    exact, decimal = numbers(made.output)
    assert exact == decimal
    assert len(exact) == 3  # position, speed, proposed force
    assert not (tmp_path / "certificate.json").exists()
    repeated = repeat(made.output)
    assert "counterexample: the set is left" in repeated.output, repeated.output
    monkeypatch.undo()
    assert "the set is kept" in shell("simulate", tmp_path, "--start", encode([-1.0, 0.0, 0.5])).output


@pytest.mark.untyped
def test_network_ends_with_a_counterexample(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 2)).double()
    small = Box(torch.full((2,), -0.01).double(), torch.full((2,), 0.01).double())
    save_network(tmp_path, "net", network, small, lower=[-1.0, -0.5], upper=[1.0, 0.5])
    made = shell("certify", tmp_path)
    assert made.exit_code == 3, made.output
    exact, decimal = numbers(made.output)
    assert exact == decimal
    assert (network(torch.tensor(exact).double()).abs() > 0.01).any()
    repeated = repeat(made.output)
    assert repeated.exit_code == 0, repeated.output
    assert "counterexample: the output is outside" in repeated.output
    assert "nothing is claimed of it" in shell("simulate", tmp_path, "--start", "3 0").output
    assert "expected 2 numbers (x1, x2)" in shell("simulate", tmp_path, "--start", "3").output
    wide = Box(torch.full((2,), -9.0).double(), torch.full((2,), 9.0).double())
    save_network(tmp_path, "net", network, wide, lower=[-1.0, -0.5], upper=[1.0, 0.5])
    assert "the output is inside" in shell("simulate", tmp_path, "--start", "0 0").output


@pytest.mark.untyped
def test_wrong_words_for_a_record_are_refused(tmp_path: Path) -> None:
    """A number that is not finite, a folder that is none (whatever the options), a task in place of its name."""
    save_barrier(tmp_path, "double-integrator")
    for start in ("nan 0 1", "0 inf 1"):
        ended = shell("simulate", tmp_path, "--start", start)
        assert ended.exit_code == 2
        assert "expected finite numbers" in ended.output
    ended = shell("certify", tmp_path / "none", "--seconds", "5")
    assert ended.exit_code == 2
    assert "expected the folder" in ended.output
    with pytest.raises(SetTypeError, match=r"Pass task\.name"):
        save_barrier(tmp_path, DoubleIntegratorTask())  # pyright: ignore[reportArgumentType]
