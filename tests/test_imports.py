"""What an import loads, and what it must leave alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once  # in other processes

PACKAGES = ("constrained_nn", "control_envs")
ROOT = Path(__file__).parents[1]


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


# --- doors ---------------------------------------------------------------------------------------


def imports_of(text: str) -> Iterator[tuple[str, str]]:
    """`(module, name)` of everything that a text imports from our two packages."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    yield alias.name, ""


def is_package(module: str) -> bool:
    return (ROOT / Path(*module.split(".")) / "__init__.py").exists()


def is_module(module: str) -> bool:
    return (ROOT / Path(*module.split("."))).with_suffix(".py").exists()


def behind(module: str, name: str) -> str | None:
    """The room behind whose door an import reaches, if it does.

    A room is a package, its door the package itself. Modules right under the two top packages
    (`constrained_nn.errors`, `control_envs.simulate`) are public, and so have no door.
    """
    if is_package(module):
        door, inner = module, f"{module}.{name}"
        if not is_module(inner) or is_package(inner) or door in PACKAGES or name in listed(door):
            return None
        return door
    door = module.rpartition(".")[0]
    return None if door in PACKAGES else door


def listed(door: str) -> set[str]:
    text = (ROOT / Path(*door.split(".")) / "__init__.py").read_text()
    lists = re.search(r"^__all__ = \[(.*?)\]", text, re.M | re.S)
    return set(re.findall(r'"(\w+)"', lists.group(1))) if lists else set()


def past_doors(path: Path) -> set[tuple[str, str]]:
    """`(room, what was imported)` for the imports of one file that pass the door of a room it is not in."""
    here = path.relative_to(ROOT).with_suffix("").parts
    mine = ".".join(here[:-1] if here[-1] == "__init__" else here)
    found = set()
    for module, name in imports_of(path.read_text()):
        door = behind(module, name)
        inside = door is not None and f"{mine}.".startswith(f"{door}.")
        if door is not None and not inside:
            found.add((door, f"{module}.{name}"))
    return found


def test_rooms_meet_only_at_their_doors() -> None:
    files = [file for top in (*PACKAGES, "examples") for file in sorted((ROOT / top).rglob("*.py"))]
    past = {str(file.relative_to(ROOT)): past_doors(file) for file in files}
    assert not {file: names for file, names in past.items() if names}


# Commands, benchmarks and published tables are found by name: there each module is its own door.
BY_NAME = ("constrained_nn.cli", "constrained_nn.bench", "constrained_nn.experiments.tables")


def test_tests_look_behind_the_doors_of_one_room() -> None:
    """A kernel's own tests may import its modules; a test that needs two rooms uses their doors."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        doors = {door for door, _ in past_doors(file) if not door.startswith(BY_NAME)}
        rooms = {".".join(door.split(".")[:2]) for door in doors}
        assert len(rooms) <= 1, f"{file.relative_to(ROOT)} looks behind several doors: {past_doors(file)}"


def test_the_doors_are_where_the_documents_enter() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
            past = {(door, name) for door, name in map(_reach, imports_of(block)) if door}
            assert not past, f"{page.name}: {past}"


def _reach(imported: tuple[str, str]) -> tuple[str | None, str]:
    return behind(*imported), ".".join(imported)


def test_every_room_says_what_it_shows() -> None:
    """A door has a docstring and a sorted list; and a name stands in it only if it can be imported."""
    from importlib import import_module

    for top in PACKAGES:
        for door in sorted((ROOT / top).rglob("__init__.py")):
            module = import_module(".".join(door.relative_to(ROOT).parent.parts))
            assert (module.__doc__ or "").strip(), f"{door.relative_to(ROOT)} has no docstring"
            for name in getattr(module, "__all__", []):
                assert hasattr(module, name), f"{module.__name__} lists {name} and does not have it"
