"""The guide's table is the registry's, and a plant of the user's own takes at most 25 lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from control_envs.checks import check_plant
from control_envs.dynamics import ControlAffine, Dynamics, Quantity
from control_envs.envs import check, env_id, ids, table
from control_envs.tasks import TASKS

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
OURS = [cls for cls in TASKS.values() if cls.__module__.startswith("control_envs")]


def test_table_of_the_guide_is_that_of_the_registry():
    page = (GUIDES / "environments.md").read_text()
    rows = [row for row in table().splitlines() if any(f"`{env_id(cls)}`" in row for cls in OURS)]
    assert len(rows) == len(OURS)
    assert all(row in page for row in rows)


def test_a_plant_takes_at_most_25_lines():
    page = (GUIDES / "your-own-plant.md").read_text()
    first = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    assert len([line for line in first.splitlines() if line.strip()]) <= 25


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.name)
def test_our_own_tasks_pass_the_users_check(cls):
    assert env_id(cls) in ids()
    check(env_id(cls))


@dataclass(frozen=True)
class Wrong(Dynamics):
    kind: str
    state = (Quantity("a", "1"), Quantity("b", "1"))
    input = (Quantity("u", "1"),)

    def derivative(self, t, x, u, w=None, *, xp=None):
        if self.kind == "shape":
            return x[..., :1]
        if self.kind == "dtype":
            return x.astype(np.float32) if isinstance(x, np.ndarray) else x.float()
        if self.kind == "numpy":
            return x if isinstance(x, np.ndarray) else 2 * x
        if self.kind == "batch":
            return x - x.mean(0)
        jumps = np.sign(np.sin(80.0 * x)) if isinstance(x, np.ndarray) else (80.0 * x).sin().sign()
        return 1.0 + 0.9 * jumps


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shape", "expected shape"),
        ("dtype", "expected dtype"),
        ("numpy", "torch and NumPy disagree"),
        ("batch", "in a batch disagree"),
        ("jump", "instead of 4"),
    ],
)
def test_the_check_finds_a_wrong_plant(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_plant(Wrong(kind))


def test_the_check_finds_a_wrong_actuation():
    class WrongInput(Wrong, ControlAffine):
        def derivative(self, t, x, u, w=None, *, xp=None):
            return x + 0 * u

        def drift(self, t, x, w=None, *, xp=None):
            return x

        def actuation(self, t, x, *, xp=None):
            return np.ones((2, 1))

    with pytest.raises(AssertionError, match="drift"):
        check_plant(WrongInput("affine"))
