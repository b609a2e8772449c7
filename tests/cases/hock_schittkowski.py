"""The collection of Hock and Schittkowski, problems 6 to 114 with constraints, by number."""

from __future__ import annotations

from tests.cases import (
    _hock_schittkowski_6_to_60,
    _hock_schittkowski_61_to_83,
    _hock_schittkowski_84_to_114,
)
from tests.cases._hock_schittkowski import PROBLEMS, Problem

ROWS: list = []  # no rows of the registry: data of tests/numerics/test_hock_schittkowski.py
PARTS = (_hock_schittkowski_6_to_60, _hock_schittkowski_61_to_83, _hock_schittkowski_84_to_114)

__all__ = ["PARTS", "PROBLEMS", "ROWS", "Problem"]
