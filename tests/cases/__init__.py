"""The registry: one row for each public set, layer, certificate, plant and controller."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

import pytest

from tests.cases._rows import (
    BadCall,
    CertificateCase,
    ControllerCase,
    Edge,
    FlowCase,
    LayerCase,
    PlantCase,
    SetCase,
)

CaseT = TypeVar("CaseT")

_ROWS: list[Any] = [
    row
    for module in iter_modules(__path__)
    if not module.name.startswith("_")
    for row in import_module(f"{__name__}.{module.name}").ROWS
]


def rows(kind: type[CaseT]) -> list[CaseT]:
    """All rows of one kind."""
    return [row for row in _ROWS if isinstance(row, kind)]


def every(kind: type, argument: str = "case", where=lambda row: True, typed=lambda row: True):
    """Decorator: run a contract on all rows of one kind; in the typed pass, on those with `typed(row)`."""
    picked = [
        pytest.param(row, id=row.name, marks=() if typed(row) else pytest.mark.once)
        for row in rows(kind)
        if where(row)
    ]
    return pytest.mark.parametrize(argument, picked)


__all__ = [
    "BadCall",
    "CertificateCase",
    "ControllerCase",
    "Edge",
    "FlowCase",
    "LayerCase",
    "PlantCase",
    "SetCase",
    "every",
    "rows",
]
