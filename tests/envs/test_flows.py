"""Flows against exact solutions, balances, an independent integrator, and their recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from control_envs.errors import NonFiniteError, ShapeError
from control_envs.flows import ETDRK4, KolmogorovFlow, KuramotoSivashinsky, gaussian_field, record


def mean_square(w):
    return (w**2).mean()


def test_coefficients_are_their_taylor_series_near_zero():
    z = np.array([0.0, -1e-9, -1e-4, 1e-4])
    _, _, phi, f1, f2, f3 = ETDRK4().coefficients(z, 1.0)
    np.testing.assert_allclose(phi, 0.5 + z / 8 + z**2 / 48, rtol=1e-11)
    np.testing.assert_allclose(f1, 1 / 6 + z / 6 + 3 * z**2 / 40, rtol=1e-10)
    np.testing.assert_allclose(f2, 2 * (1 / 6 + z / 12 + z**2 / 40), rtol=1e-10)
    np.testing.assert_allclose(f3, 1 / 6 - z**2 / 120, rtol=1e-10)


def test_coefficients_are_the_closed_forms_away_from_zero():
    z = np.array([-2.0, -30.0, -1e4])
    _, _, phi, f1, f2, f3 = ETDRK4().coefficients(z / 0.1, 0.1)
    e = np.exp(z)
    np.testing.assert_allclose(phi, 0.1 * (np.exp(z / 2) - 1) / z, rtol=1e-12)
    np.testing.assert_allclose(f1, 0.1 * (-4 - z + e * (4 - 3 * z + z**2)) / z**3, rtol=1e-12)
    np.testing.assert_allclose(f2, 0.2 * (2 + z + e * (z - 2)) / z**3, rtol=1e-12)
    np.testing.assert_allclose(f3, 0.1 * (-4 - 3 * z - z**2 + e * (4 - z)) / z**3, rtol=1e-12)


def test_kuramoto_sivashinsky_balances_its_energy(rng):
    """d/dt ½ ⟨u²⟩ = ⟨u_x²⟩ − ⟨u_xx²⟩: the transport term moves energy and makes none."""
    flow = KuramotoSivashinsky(length=40.0, points=64)
    u = flow.trajectory(flow.sample(rng, 1, scale=2.0), 200, 0.1, every=200)[0, -1]
    k = 2 * np.pi / flow.length * np.fft.fftfreq(64, 1 / 64)
    slope, curvature = (np.fft.ifft((1j * k) ** p * np.fft.fft(u)).real for p in (1, 2))
    rate = (u * flow.derivative(u)).mean()
    assert rate == pytest.approx(mean_square(slope) - mean_square(curvature), rel=1e-11)


def test_kolmogorov_flow_balances_energy_and_enstrophy(rng):
    flow = KolmogorovFlow(points=32)
    w = flow.trajectory(flow.sample(rng, 1), 100, 0.02, every=100)[0, -1]
    rate = flow.derivative(w)
    u, change = flow.velocity(w), flow.velocity(rate)
    y = 2 * np.pi / 32 * np.arange(32)
    power = (u[0] * np.sin(4 * y)).mean()
    energy_rate = (u * change).sum(0).mean()
    assert energy_rate == pytest.approx(power - mean_square(w) / 40, rel=1e-10)
    k = 1j * np.fft.fftfreq(32, 1 / 32)
    gradient = [np.fft.ifft2(factor * np.fft.fft2(w)).real for factor in (k[:, None], k[None])]
    palinstrophy = sum(mean_square(g) for g in gradient)
    injected = (w * -4 * np.cos(4 * y)).mean()
    assert (w * rate).mean() == pytest.approx(injected - palinstrophy / 40, rel=1e-10)


def test_velocity_has_no_divergence_and_the_given_curl(rng):
    flow = KolmogorovFlow(points=32)
    w = flow.project(flow.sample(rng, 1)[0])
    u, v = flow.velocity(w)
    k = 1j * np.fft.fftfreq(32, 1 / 32)
    dx, dy = (
        (lambda f: np.fft.ifft2(k[:, None] * np.fft.fft2(f)).real),
        (lambda f: np.fft.ifft2(k[None] * np.fft.fft2(f)).real),
    )
    np.testing.assert_allclose(dx(u) + dy(v), 0, atol=1e-12)
    np.testing.assert_allclose(dx(v) - dy(u), w, atol=1e-12)


def test_taylor_green_vortices_decay_exactly():
    """ω = 2 a cos(a x) cos(a y) e^{−2 a² t/Re} solves the unforced equations: u · ∇ω vanishes."""
    flow = KolmogorovFlow(reynolds=10.0, points=32, forcing=0.0)
    x = 2 * np.pi / 32 * np.arange(32)
    start = 6.0 * np.cos(3 * x)[:, None] * np.cos(3 * x)
    path = flow.trajectory(start, 20, 0.1, every=10)
    np.testing.assert_allclose(path, start * np.exp(-1.8 * np.arange(3))[:, None, None], atol=1e-13)


def test_laminar_kolmogorov_flow_is_steady():
    flow = KolmogorovFlow(reynolds=5.0, points=32)
    y = 2 * np.pi / 32 * np.arange(32)
    steady = np.broadcast_to(-5.0 / 4.0 * np.cos(4 * y), (32, 32))
    np.testing.assert_allclose(flow.derivative(steady), 0, atol=1e-13)


def test_shift_of_a_state_shifts_its_trajectory(rng):
    flow = KuramotoSivashinsky(length=22.0, points=32)
    u = flow.sample(rng, 1)[0]
    path = flow.trajectory(u, 50, 0.1, every=50)
    np.testing.assert_allclose(
        flow.trajectory(np.roll(u, 5), 50, 0.1, every=50), np.roll(path, 5, -1), atol=1e-11
    )


def test_kuramoto_sivashinsky_against_an_implicit_integrator_on_finite_differences(rng):
    """Radau on central differences of order 2: the difference falls as the square of the grid's spacing."""
    flow = KuramotoSivashinsky(length=12.0, points=64)
    start = 2.0 * np.cos(2 * np.pi * flow.x / 12.0) + np.sin(4 * np.pi * flow.x / 12.0)
    expected = flow.trajectory(start, 50, 0.04, every=50)[-1]

    def differences(points):
        h = 12.0 / points
        u0 = 2.0 * np.cos(2 * np.pi * np.arange(points) / points)
        u0 = u0 + np.sin(4 * np.pi * np.arange(points) / points)

        def rate(t, u):
            second = (np.roll(u, -1) - 2 * u + np.roll(u, 1)) / h**2
            fourth = (np.roll(second, -1) - 2 * second + np.roll(second, 1)) / h**2
            return -(np.roll(u, -1) ** 2 - np.roll(u, 1) ** 2) / (4 * h) - second - fourth

        end = solve_ivp(rate, (0.0, 2.0), u0, method="Radau", rtol=1e-7, atol=1e-8).y[:, -1]
        return np.abs(end[:: points // 64] - expected).max()

    coarse, fine = differences(64), differences(128)
    assert fine < 0.01
    assert abs(np.log2(coarse / fine) - 2.0) < 0.15


def test_kuramoto_sivashinsky_against_an_independent_integrator_in_fourier_space(rng):
    flow = KuramotoSivashinsky(length=22.0, points=32)
    start = flow.project(flow.sample(rng, 1)[0])
    solution = solve_ivp(
        lambda t, u: flow.derivative(u), (0.0, 5.0), start, method="BDF", rtol=1e-9, atol=1e-10
    )
    end = flow.trajectory(start, 200, 0.025, every=200)[-1]
    np.testing.assert_allclose(end, solution.y[:, -1], atol=2e-6)


def test_error_in_space_falls_faster_than_any_power():
    def end(points):
        flow = KuramotoSivashinsky(length=16.0, points=points)
        start = np.cos(2 * np.pi * flow.x / 16.0) * (1 + np.sin(2 * np.pi * flow.x / 16.0))
        return flow.trajectory(start, 60, 0.05, every=60)[-1, :: points // 16]

    reference = end(128)
    errors = [np.abs(end(points) - reference).max() for points in (16, 32, 64)]
    assert errors[1] < 2e-3 * errors[0]
    assert errors[2] < 1e-4 * errors[1] or errors[2] < 1e-10


def test_random_fields_have_their_covariance():
    field = gaussian_field(np.random.default_rng(1), 4000, (32,), (8.0,), 0.8, 1.5)
    np.testing.assert_allclose(field.mean(-1), 0.0, atol=1e-12)
    covariance = (field * np.roll(field, -2, 1)).mean() / (field**2).mean()
    assert field.std() == pytest.approx(1.5, rel=0.02)
    # the mean over the period is taken away: 2 0.8/8 of the variance
    expected = (np.exp(-np.pi / 4 * (0.5 / 0.8) ** 2) - 0.2) / 0.8
    assert covariance == pytest.approx(expected, abs=0.02)


ASK = dict(seed=3, count=5, samples=7, interval=0.5, dt=0.1, transient=1.0, batch=3, chunk=2)
SMALL = KuramotoSivashinsky(length=22.0, points=32)


def test_recording_is_the_trajectory():
    states = record(SMALL, **ASK)
    assert states.shape == (5, 7, 32)
    assert states.dtype == np.float32
    rows = [np.random.Generator(np.random.Philox(key=np.array([3, i], dtype=np.uint64))) for i in range(5)]
    start = np.concatenate([SMALL.sample(row, 1) for row in rows])
    expected = SMALL.trajectory(start, 40, 0.1, every=5)[:, 2:]
    np.testing.assert_allclose(states, expected, atol=1e-5)
    np.testing.assert_array_equal(record(SMALL, **ASK, start=start), states)


def test_recording_goes_on_where_it_stopped(tmp_path):
    whole = record(SMALL, **ASK)
    calls = []

    def stop(done, total):
        calls.append((done, total))
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(SMALL, **ASK, folder=tmp_path, progress=stop)
    calls.extend([None] * 3)
    states = record(SMALL, **ASK, folder=tmp_path, progress=stop)
    np.testing.assert_array_equal(states, whole)
    assert calls[:3] == [(6, 35), (12, 35), (18, 35)]
    assert calls[6:] == [(21, 35), (25, 35), (29, 35), (33, 35), (35, 35)]
    calls.clear()
    again = record(SMALL, **ASK, folder=tmp_path, progress=stop)
    np.testing.assert_array_equal(again, whole)
    assert not calls
    assert not again.flags.writeable
    assert len(list(tmp_path.iterdir())) == 1


def flip_a_bit(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def test_recording_from_before_there_were_digests_is_kept(tmp_path):
    whole = np.array(record(SMALL, **ASK, folder=tmp_path))
    for batch in tmp_path.glob("*/batch-*.npz"):
        with np.load(batch) as data:
            np.savez(batch, kept=data["kept"], spectrum=data["spectrum"])
    again = record(SMALL, **ASK, folder=tmp_path, progress=lambda done, total: pytest.fail("made again"))
    np.testing.assert_array_equal(again, whole)


def test_damaged_recording_is_made_again(tmp_path):
    whole = np.array(record(SMALL, **ASK, folder=tmp_path))
    folder = next(tmp_path.iterdir())
    parts = sorted(folder.glob("batch-*.npz"))
    for file, damage in [
        (parts[0], lambda f: f.write_bytes(f.read_bytes()[:50])),
        (parts[0], lambda f: f.write_bytes(b"")),
        (parts[1], lambda f: np.savez(f, kept=np.array(99), spectrum=np.zeros((2, 3)))),
        (folder / "states.npy", lambda f: f.write_bytes(f.read_bytes()[:-40])),
        (folder / "states.npy", lambda f: f.unlink()),
        (folder / "states.npy", lambda f: flip_a_bit(f, 1000)),
        (folder / "states.npy", lambda f: flip_a_bit(f, -1)),
        (parts[1], lambda f: flip_a_bit(f, 150)),
    ]:
        damage(file)
        np.testing.assert_array_equal(record(SMALL, **ASK, folder=tmp_path), whole)


def test_recording_of_what_cannot_be_recorded_is_refused():
    start = SMALL.sample(np.random.default_rng(0), 6)
    for wrong in (start[:1], start, start[:5, :16], start[0]):
        with pytest.raises(ShapeError, match="for 5 trajectories"):
            record(SMALL, **ASK, start=wrong)
    for name, value in {"dt": 0.0, "transient": -0.5, "batch": 0, "chunk": 0}.items():
        with pytest.raises(ValueError, match="expected dt > 0"):
            record(SMALL, **{**ASK, name: value})


@pytest.mark.parametrize("wavenumber", [-4, 6])
def test_force_that_the_grid_does_not_resolve_is_refused(wavenumber):
    with pytest.raises(ValueError, match="wavenumber from 0 to 5"):
        KolmogorovFlow(points=16, wavenumber=wavenumber)


def test_recording_that_runs_away_says_so():
    with pytest.raises(NonFiniteError, match=r"trajectory 0 with dt 1\.0"):
        record(KolmogorovFlow(points=16), seed=0, count=2, samples=100, interval=1.0, dt=1.0)
    with pytest.raises(ValueError, match=r"got interval 0\.25 and dt 0\.1"):
        record(SMALL, seed=0, count=1, samples=1, interval=0.25, dt=0.1)
