"""The nominal controller of regulation tasks: its gain stabilizes, or it says that there is none."""

from __future__ import annotations

import numpy as np
import pytest

from control_envs.errors import NotStabilizableError
from control_envs.tasks import CartPoleTask, PendulumTask


@pytest.mark.parametrize("task", [CartPoleTask, PendulumTask])
def test_gain_stabilizes_the_linearization(task):
    task = task()
    A, B = task.plant.linearize(task.goal, task.goal_input)
    assert np.linalg.eigvals(A - B @ task.gain).real.max() < 0


def test_a_cost_that_leaves_a_mode_on_the_boundary_has_no_gain():
    """The position of the cart has no weight: nothing brings it to rest."""
    task = CartPoleTask()
    task.state_weights = np.where(np.arange(len(task.goal)) == 0, 0.0, task.state_weights)
    with pytest.raises(NotStabilizableError, match=r"CartPoleTask\.gain: expected a linearization"):
        _ = task.gain
