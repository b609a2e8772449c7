"""README, documentation and docstrings: every Python snippet runs."""

from __future__ import annotations

import doctest
import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

import constrained_nn
import control_envs

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in p.parts),
]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]
MODULES = [
    module.name
    for package in (constrained_nn, control_envs)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if not module.name.endswith("__main__")
]


@pytest.mark.untyped
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    text = page.read_text()
    module = ModuleType("page")  # a real one: dataclasses look theirs up
    monkeypatch.setitem(sys.modules, "page", module)
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        line = text[: match.start()].count("\n") + 1
        code = "\n" * line + match.group(1)  # so that a traceback shows the line of the page
        exec(compile(code, str(page), "exec"), vars(module))


@pytest.mark.untyped
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    torch.manual_seed(0)
    module = import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not broken


def test_commands_that_are_shown_exist() -> None:
    from typer.main import get_command

    from constrained_nn.cli import build

    known = set(get_command(build()).commands)  # pyright: ignore[reportAttributeAccessIssue]
    shown = set()
    for page in PAGES:
        shown |= set(re.findall(r"constrained-nn ([a-z]+)", page.read_text()))
    assert {"train", "simulate", "demo"} <= shown
    assert shown <= known, f"shown in the documentation, but not there: {sorted(shown - known)}"
