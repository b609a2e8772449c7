"""Certificates that several tests start from."""

from __future__ import annotations

import copy

import pytest

from tests.evidence.subjects import Filtered, make, subject


@pytest.fixture(scope="session")
def _small() -> dict:
    return make(subject(Filtered()))


@pytest.fixture
def small(_small) -> dict:
    """A certificate that holds: 4 recorded runs, 60 sampled ones."""
    return copy.deepcopy(_small)
