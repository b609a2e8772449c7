"""References: minimum-derivative splines against a dense solution, derivatives, loops, winds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from control_envs.disturbances import Bump, Ramp, held
from control_envs.references import Loops, minimum_derivative_spline, proportional_times, random_walk
from control_envs.scenarios import Scenarios
from control_envs.tasks import make_task

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked


def dense(times: np.ndarray, knots: np.ndarray, d: int, degree: int) -> np.ndarray:
    """Coefficients in time since the piece's start, from the whole quadratic program with its constraints."""
    pieces, n = len(times) - 1, degree + 1

    def row(k: int, t: float, order: int) -> np.ndarray:
        out = np.zeros(pieces * n)
        for j in range(order, n):
            out[k * n + j] = math.perm(j, order) * t ** (j - order)
        return out

    h, cost = np.diff(times), np.zeros((pieces * n, pieces * n))
    nodes, weights = np.polynomial.legendre.leggauss(n)
    for k in range(pieces):
        for s, w in zip(nodes, weights, strict=True):
            r = row(k, 0.5 * h[k] * (s + 1), d)
            cost += 0.5 * h[k] * w * np.outer(r, r)
    A, b = [], []
    for k in range(pieces):
        A += [row(k, 0.0, 0), row(k, h[k], 0)]
        b += [knots[k], knots[k + 1]]
    for order in range(1, d):
        A += [row(0, 0.0, order), row(pieces - 1, h[-1], order)]
        b += [0.0, 0.0]
    for k in range(pieces - 1):
        for order in range(1, d + 1):
            A.append(row(k, h[k], order) - row(k + 1, 0.0, order))
            b.append(0.0)
    A, b = np.array(A), np.array(b)
    kkt = np.block([[cost, A.T], [A, np.zeros((len(A), len(A)))]])
    return np.linalg.lstsq(kkt, np.r_[np.zeros(pieces * n), b], rcond=1e-13)[0][: pieces * n].reshape(
        pieces, n
    )


@pytest.mark.parametrize(("d", "degree"), [(2, 3), (2, 6), (3, 5), (4, 7)])
def test_spline_is_the_minimizer(d, degree, rng):
    knots = random_walk(1, 1, (2.0,), pieces=4)[0]
    times = np.r_[0.0, np.cumsum(0.6 + rng.random(4))]
    spline = minimum_derivative_spline(times, knots, (d,), order=1)
    expected, t = dense(times, knots[:, 0], d, degree), np.linspace(0, times[-1], 37)
    piece = np.clip(np.searchsorted(times, t, side="right") - 1, 0, 3)
    powers = (t - times[piece])[:, None] ** np.arange(degree + 1)
    np.testing.assert_allclose(spline.sample(t)[:, 0, 0], (expected[piece] * powers).sum(-1), atol=2e-6)


def test_spline_interpolates_and_its_rows_are_its_derivatives():
    limits = (np.inf, np.inf, 0.6)
    knots = random_walk(3, 4, (2.0, 2.0, 0.5), limits=limits)
    times = proportional_times(knots, 10.0)
    spline = minimum_derivative_spline(times, knots, (4, 4, 2), order=4, limits=limits)
    at_knots = np.stack([spline.sample(times[i])[:, i, 0] for i in range(4)])
    np.testing.assert_allclose(at_knots, knots, atol=1e-10)
    t, h = np.linspace(0.03, 9.97, 200), 1e-5
    up, down, middle = (spline.sample(t + s) for s in (h, -h, 0.0))
    slope = (up - down) / (2 * h)
    inner = abs(middle[:, :, :1, 2]) < 0.59
    for k in range(3):
        np.testing.assert_allclose(slope[:, :, k, :2], middle[:, :, k + 1, :2], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose((slope[:, :, 0, 2] - middle[:, :, 1, 2]) * inner[..., 0], 0.0, atol=1e-4)
    assert abs(middle[:, :, 0, 2]).max() <= 0.6
    at_limit = abs(middle[:, :, 0, 2]) == 0.6
    assert at_limit.any()
    assert (middle[:, :, 1:, 2][at_limit] == 0.0).all()
    ends = spline.sample(np.array([0.0, 10.0, 12.0]))
    np.testing.assert_allclose(ends[:, :, 1:2], 0.0, atol=1e-9)
    np.testing.assert_array_equal(ends[1, :, 0], ends[2, :, 0])


def test_knots_do_not_depend_on_their_number():
    np.testing.assert_array_equal(random_walk(5, 3, (1.0, 2.0)), random_walk(5, 9, (1.0, 2.0))[:3])
    assert abs(np.diff(random_walk(5, 50, (1.0, 2.0)), axis=1)).max((0, 1))[1] > 1.5


def test_loops_and_their_derivatives():
    loops, t, h = Loops(roll=math.pi / 3, order=4), np.linspace(0.0, 10.0, 21), 1e-5
    values = loops.sample(t)
    np.testing.assert_allclose(values[:, 0, 0], 2 * np.sin(2 * np.pi * t / 10) + 0.4 * t, atol=1e-12)
    np.testing.assert_allclose(values[:, 0, 1], 3 * (1 - np.cos(2 * np.pi * t / 10)), atol=1e-12)
    np.testing.assert_allclose(values[:, 0, 2], 4 * np.pi / 3 * t / 10 * (1 - t / 10), atol=1e-12)
    slope = (loops.sample(t + h) - loops.sample(t - h)) / (2 * h)
    np.testing.assert_allclose(slope[:, :4], values[:, 1:], atol=1e-8)


def test_table_is_the_reference():
    loops = Loops(roll=0.3)
    table = loops.table(0.1, 10, stages=2, t0=1.0)
    for t in (1.0, 1.05, 1.7, 2.0):
        np.testing.assert_allclose(table(t), loops(t), atol=1e-12)


def test_bad_knots_are_named():
    with pytest.raises(ValueError, match="expected increasing times"):
        minimum_derivative_spline(np.array([0.0, 1.0, 1.0]), np.zeros((3, 1)), (2,))
    with pytest.raises(ValueError, match="expected times"):
        minimum_derivative_spline(np.array([0.0, 1.0]), np.zeros((3, 1)), (2,))


def test_winds_in_scenarios(rng):
    bump = Bump().draw(rng, 2500, 0.01, 1)[:, 0]
    t = 0.01 * np.arange(2500)
    inside = t < 20
    np.testing.assert_allclose(
        bump[inside], 8 * (t[inside] / 15) ** 2 * ((20 - t[inside]) / 5) ** (2 / 3), rtol=1e-12
    )
    assert bump.max() == pytest.approx(8.0)
    assert t[bump.argmax()] == pytest.approx(15.0)
    assert (bump[~inside] == 0).all()
    ramp = Ramp(6.0, 1.0, 3.0).draw(rng, 500, 0.01, 1)[:, 0]
    np.testing.assert_allclose(ramp[[0, 100, 200, 300, 499]], [0.0, 0.0, 3.0, 6.0, 6.0], atol=1e-12)
    table = Scenarios.draw(make_task("pvtol"), seed=1, count=3, steps=300, disturbance=Ramp(5.0, 0.0, 2.0))
    wind = held(table.disturbances, 0.02)
    np.testing.assert_allclose(wind(0.05, None), table.disturbances[:, 2])
    np.testing.assert_allclose(wind(99.0, None), table.disturbances[:, -1])
    for dt, t0 in ((0.02, 0.0), (0.1, 0.7), (1 / 3, -5.0)):
        rows = np.arange(200.0)[:, None]
        wind = held(rows, dt, t0)  # a row begins at its own time, however that is rounded
        assert [wind(t0 + k * dt, None).item() for k in range(200)] == list(range(200))
        assert [wind(t0 + (k + 0.99) * dt, None).item() for k in range(200)] == list(range(200))
