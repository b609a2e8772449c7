"""The search for the worst state: it finds planted ones, stays in its box, and a bad element hurts nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn.evidence.runs.subject import simulate
from constrained_nn.evidence.search import falsify, falsify_closed_loop, falsify_rows
from constrained_nn.evidence.search.falsification import closed_loop_margin
from tests.evidence.subjects import TASK, Filtered, Nominal, subject

BOX = np.array([-2.0, -2.0]), np.array([2.0, 2.0])


def points(rng: np.random.Generator, count: int = 16) -> np.ndarray:
    return rng.uniform(*BOX, (count, 2))


def test_finds_the_bottom_of_a_narrow_bowl(rng) -> None:
    """States with a negative margin fill 0.02 % of the box."""
    center = torch.tensor([1.3, -0.7], dtype=torch.float64)
    found = falsify(lambda x: (x - center).norm(dim=-1) - 0.03, *BOX, points(rng, 32), steps=30)
    assert found.is_counterexample
    assert np.linalg.norm(found.state - center.numpy()) < 0.03
    assert found.tried == 32 * 31


def test_stays_in_the_box_and_reaches_its_corner(rng) -> None:
    found = falsify(lambda x: x.sum(-1) + 4.5, *BOX, points(rng), steps=40)
    np.testing.assert_array_equal(found.state, [-2.0, -2.0])
    assert found.margin == pytest.approx(0.5)


def test_goes_to_the_edge_of_what_counts(rng) -> None:
    """Only states with `x₀ >= 0` count, and the smallest margin is at their edge."""
    found = falsify(
        lambda x: torch.where(x[:, 0] >= 0, x[:, 0] + 0.1, torch.inf), *BOX, points(rng), steps=30
    )
    assert 0.1 <= found.margin < 0.11


def test_nan_is_the_worst_and_hurts_nobody(rng) -> None:
    def margin(x):
        return torch.where(x[:, 0] > 1.9, torch.nan, 1.0 + x[:, 1] ** 2)

    quiet = falsify(margin, *BOX, np.clip(points(rng), -1.0, 1.0), steps=5)
    assert 1.0 <= quiet.margin < 1.3
    assert falsify(margin, *BOX, np.array([[2.0, 0.0], [0.0, 0.0]]), steps=5).margin == -np.inf


def test_worst_start_of_a_closed_loop(rng) -> None:
    about = subject(Nominal())
    found = falsify_closed_loop(about, count=6, seed=0, steps=3)
    assert found is not None
    assert found.is_counterexample
    assert (found.state >= TASK.start_low).all()
    assert (found.state <= TASK.start_high).all()
    # the margin is that of the ordinary simulation
    extremes = {c.name: c.g for c in TASK.constraints}
    run = simulate(about, found.state[None], lambda sub: None, extremes=extremes)
    assert -max(float(v) for v in run.worst.values()) == pytest.approx(found.margin, rel=1e-12)
    safe = falsify_closed_loop(subject(Filtered()), count=4, seed=0, steps=2)
    assert safe is not None
    assert not safe.is_counterexample


def test_margin_is_differentiable_and_ignores_states_that_are_no_starts() -> None:
    x = torch.tensor([[-3.8, 0.2, -0.5, 0.0, 0.0], [-2.25, 0.5, 0.0, 0.0, 0.0]], dtype=torch.float64)
    x.requires_grad_()
    value = closed_loop_margin(subject(Nominal()), x)
    assert value[1] == torch.inf
    (slope,) = torch.autograd.grad(value[0], x)
    assert slope[0].abs().sum() > 0
    assert slope.isfinite().all()


def test_worst_row() -> None:
    bad = falsify_rows(subject(Nominal()), count=200, seed=0, steps=8)
    good = falsify_rows(subject(Filtered()), count=50, seed=0, steps=5)
    assert bad is not None and bad.is_counterexample  # noqa: PT018
    assert good is not None and not good.is_counterexample  # noqa: PT018
