"""What an import loads, and what it must leave alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once  # in other processes

PACKAGES = ("constrained_nn", "control_envs")


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded_after(code: str) -> set[str]:
    listing = run(f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))")
    return {name.partition(".")[0] for name in json.loads(listing.splitlines()[-1])}


def test_the_package_alone_does_not_load_torch() -> None:
    heavy = {"torch", "scipy", "numpy", "cvxpy", "matplotlib", "gymnasium", "flint"}
    assert not loaded_after("import constrained_nn") & heavy
    assert not loaded_after("import control_envs") & heavy


def test_sets_and_layers_load_no_solver_no_drawing_no_plant() -> None:
    loaded = loaded_after("from constrained_nn import Box, Constrained, HardNetAffine, ControlBarrier")
    assert "torch" in loaded
    assert not loaded & {"cvxpy", "cvxpylayers", "matplotlib", "gymnasium", "control_envs", "flint"}


def test_simulation_in_numpy_does_not_load_torch() -> None:
    code = """
import numpy as np
from control_envs.dynamics import Unicycle
from control_envs.simulate import rollout
rollout(Unicycle(), lambda t, x: np.zeros((1, 2)), np.zeros((1, 5)), dt=0.1, horizon=3)
"""
    assert not loaded_after(code) & {"torch", "gymnasium", "matplotlib", "constrained_nn"}


@pytest.mark.parametrize("command", ["--help", "--version", "train --help", "check --help"])
def test_help_does_not_load_torch(command: str) -> None:
    code = f"""
import sys
sys.argv = ["constrained-nn", *{command.split()!r}]
from constrained_nn.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert "torch" not in loaded_after(code)


def test_importing_changes_no_global_state() -> None:
    """Every module of both packages, against the state before."""
    print(
        run(
            """
import pkgutil, random, warnings
import numpy as np, torch

def state():
    return [
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),
        np.geterr(), np.get_printoptions(), torch.is_anomaly_enabled(),
        [f for f in warnings.filters if not any("matplotlib" in str(p) or "pyparsing" in str(p) for p in f)],
    ]

import cvxpy, gymnasium, matplotlib, scipy, rich, typer, pydantic  # their own effects are not ours
before = state()
import constrained_nn, control_envs
for package in (constrained_nn, control_envs):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
after = state()
for k, (a, b) in enumerate(zip(before, after)):
    assert str(a) == str(b), (k, a, b)
"""
        )
    )
