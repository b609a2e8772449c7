"""Nothing public without a case, a docs page and a complete docstring; every error that is documented is raised."""

from __future__ import annotations

import inspect
import re
from abc import ABC
from importlib import import_module
from pathlib import Path

import pytest

import constrained_nn
from constrained_nn.control import Controller
from constrained_nn.layers import ProjectionLayer
from constrained_nn.sets import ConstraintSet
from control_envs.dynamics import Dynamics
from control_envs.flows import Flow
from tests.cases import (
    BadCall,
    CertificateCase,
    ControllerCase,
    FlowCase,
    LayerCase,
    PlantCase,
    SetCase,
    every,
    rows,
)

pytestmark = pytest.mark.once  # names and texts

ROOT = Path(__file__).parents[1]
DOCS = {path: path.read_text() for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts}
MODULES = (
    "constrained_nn.sets",
    "constrained_nn.solvers",
    "constrained_nn.operators",
    "constrained_nn.layers",
    "constrained_nn.certificates",
    "constrained_nn.control",
    "constrained_nn.models",
    "constrained_nn.training",
    "constrained_nn.evidence",
    "constrained_nn.statistics",
    "constrained_nn.experiments",
    "constrained_nn.plotting",
    "control_envs.dynamics",
    "control_envs.flows",
    "control_envs.tasks",
)
FAMILIES = {
    "constrained_nn.sets": (ConstraintSet, SetCase),
    "constrained_nn.layers": (ProjectionLayer, LayerCase),
    "constrained_nn.control": (Controller, ControllerCase),
    "control_envs.dynamics": (Dynamics, PlantCase),
    "control_envs.flows": (Flow, FlowCase),
    "constrained_nn.certificates": (object, CertificateCase),
}
PARTS = ("Guarantee:", "Args:", "Example:", "References:")


def public(module: str) -> list[tuple[str, object]]:
    loaded = import_module(module)
    return [(name, getattr(loaded, name)) for name in getattr(loaded, "__all__", [])]


def concrete(module: str) -> list[type]:
    """The classes that must have a case: of the family, public and not abstract."""
    base = FAMILIES[module][0]
    return [
        kind
        for _, kind in public(module)
        if inspect.isclass(kind)
        and issubclass(kind, base)
        and kind is not base
        and not inspect.isabstract(kind)
        and ABC not in kind.__bases__
        and not getattr(kind, "_is_protocol", False)
        and (base is not object or hasattr(kind, "gradient"))
    ]


FAMILY_CLASSES = [(module, kind) for module in FAMILIES for kind in concrete(module)]
each_class = pytest.mark.parametrize(
    ("module", "kind"), FAMILY_CLASSES, ids=[kind.__name__ for _, kind in FAMILY_CLASSES]
)


@each_class
def test_has_a_case(module: str, kind: type) -> None:
    row = FAMILIES[module][1]
    covered = [case.kind for case in rows(row)]
    assert kind in covered, f"{kind.__name__} has no {row.__name__} in tests/cases/"


@each_class
def test_docstring_is_complete(module: str, kind: type) -> None:
    text = inspect.getdoc(kind) or ""
    assert text, f"{kind.__name__} has no docstring"
    first, rest = text.split("\n", 1)[0], text.split("\n", 1)[-1]
    assert first.endswith("."), f"{kind.__name__}: the first line is not one sentence"
    assert re.search(r"^\S*`[^`]+`|^\s*`", rest, re.M), f"{kind.__name__}: no line of mathematics"
    needed = [part for part in PARTS if part != "Args:" or takes_arguments(kind)]
    missing = [part for part in needed if not re.search(rf"^{part}", text, re.M)]
    assert not missing, f"{kind.__name__} lacks {', '.join(missing)}"
    example = text[text.index("Example:") :].split("References:")[0]
    lines = [line for line in example.splitlines()[1:] if line.strip()]
    assert any(">>>" in line for line in lines)
    assert len(lines) <= 8, f"{kind.__name__}: the example has {len(lines)} lines"


def takes_arguments(kind: type) -> bool:
    return any(p.name != "self" for p in inspect.signature(kind.__init__).parameters.values())


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring_and_a_page(module: str) -> None:
    pages = "\n".join(DOCS.values())
    assert f"automodule:: {module}\n" in pages, f"no page of docs/api shows {module}"
    for name, value in public(module):
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"


def test_every_layer_has_a_page_on_its_method() -> None:
    methods = "\n".join(text for path, text in DOCS.items() if "methods" in path.parts)
    guides = "\n".join(text for path, text in DOCS.items() if "guides" in path.parts)
    for kind in concrete("constrained_nn.layers"):
        assert kind.__name__ in methods, f"{kind.__name__} has no page in docs/methods"
        assert kind.__name__ in guides or "layer-table" in guides, f"no guide helps to choose {kind.__name__}"


def test_top_level_names_resolve() -> None:
    for name in constrained_nn.__all__:
        assert getattr(constrained_nn, name) is not None
    assert set(constrained_nn.__all__) <= set(dir(constrained_nn))


# --- errors ------------------------------------------------------------------------------------------------


def documented_errors() -> set[tuple[str, str]]:
    """`(qualified name, error)` for each entry of a `Raises:` section of the families."""
    found = set()
    for _, kind in FAMILY_CLASSES:
        found |= entries(kind.__name__, kind)
        for owner in kind.__mro__:
            if owner.__module__.startswith(("constrained_nn", "control_envs")):
                for name, method in vars(owner).items():
                    method = method.__func__ if isinstance(method, classmethod) else method
                    if inspect.isfunction(method) and not name.startswith("_"):
                        found |= entries(f"{owner.__name__}.{name}", method)
    return found


def entries(where: str, value: object) -> set[tuple[str, str]]:
    text = value.__doc__ or ""
    text = inspect.cleandoc(text)
    match = re.search(r"^Raises:\n((?:[ ]+.*\n?|\n)+)", text, re.M)
    return {(where, name) for name in re.findall(r"^ {4}(\w+):", match.group(1), re.M)} if match else set()


@pytest.mark.parametrize(("where", "error"), sorted(documented_errors()))
def test_documented_error_has_a_row(where: str, error: str) -> None:
    raised = {(row.where, row.error.__name__) for row in rows(BadCall)}
    assert (where, error) in raised, f"no BadCall in tests/cases/ triggers {error} of {where}"


@pytest.mark.untyped
@pytest.mark.parametrize("row", rows(BadCall), ids=lambda row: f"{row.where}-{row.error.__name__}")
def test_error_is_raised_and_says_what_to_do(row: BadCall) -> None:
    with pytest.raises(row.error) as caught:
        row.call()
    message = str(caught.value)
    assert row.says in message
    assert re.match(r"[\w.\[\]]+: expected .*, got ", message), f"not of the house's form: {message}"
    assert message.endswith((".", ")", "`")), message


@every(SetCase)
def test_rows_build_what_they_name(case: SetCase, generator) -> None:
    assert type(case.build(generator, (2,))) is case.kind
