"""Long-run statistics of trajectories, where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn.errors import ShapeError
from constrained_nn.statistics import (
    Histogram,
    LeadingWave,
    Reference,
    autocorrelation_time,
    blow_up_times,
    covariance_error,
    kl_divergence,
    largest_lyapunov_exponent,
    leading_plane,
    log_spectral_distance,
    published_log_spectral_distance,
    published_pca_kl,
    published_physical_kl,
    spatial_spectrum,
    temporal_spectrum,
)
from control_envs.dynamics import Lorenz63, Lorenz96
from control_envs.simulate import RK4


def autoregressive(rng, factor, runs, length, points=1):
    """`x⁺ = factor x + √(1 − factor²) noise`, stationary with variance 1."""
    noise = rng.standard_normal((length, runs, points))
    x = [noise[0]]
    for one in noise[1:]:
        x.append(factor * x[-1] + np.sqrt(1.0 - factor**2) * one)
    return np.stack(x, 1)


def waves(shift, points=16, length=300):
    t, x = np.arange(length)[None, :, None], 2 * np.pi * np.arange(points) / points
    return np.cos(x - 0.3 * t + shift) + 0.5 * np.sin(2 * x - 0.7 * t + shift)


# --- histograms --------------------------------------------------------------------------------------------


def test_divergence_of_distributions():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert kl_divergence(p, q) == pytest.approx(np.log(2))
    assert kl_divergence(q, p) == np.inf
    assert kl_divergence(p, p) == 0.0


def test_divergence_of_normal_samples(rng):
    a, b = rng.standard_normal((2, 400_000, 1))
    cells = Histogram.over(a, cells=50)
    shifted = cells.divergence(cells.count(a), cells.count(b + 0.5))
    assert shifted == pytest.approx(0.125, rel=0.03)  # ½ shift²
    assert cells.divergence(cells.count(a), cells.count(b)) < 4e-4


def test_cell_outside_counts_what_left(rng):
    truth = rng.uniform(-1, 1, (1000, 2))
    cells = Histogram.over(truth, cells=10)
    model = truth.copy()
    model[:500] = 1e15
    model[500] = np.nan
    counts = cells.count(model)
    assert counts[-1] == 501
    assert counts.sum() == 1000
    gone = cells.divergence(cells.count(truth), cells.count(np.full((1000, 2), np.inf)))
    assert np.isfinite(gone)
    assert gone == pytest.approx(np.log(0.01 / (0.5 / 1050.5)), rel=0.1)  # all mass where half a count is


def test_leading_plane_is_that_of_the_singular_vectors(rng):
    for shape in ((300, 20), (60, 100), (400, 90)):
        states = rng.standard_normal(shape) * np.linspace(3.0, 0.1, shape[1]) + 5.0
        mean, plane = leading_plane(states)
        expected = np.linalg.svd(states - states.mean(0), full_matrices=False)[2][:2]
        np.testing.assert_allclose(mean, states.mean(0))
        np.testing.assert_allclose(np.abs((plane * expected).sum(1)), 1.0, atol=1e-9)
        assert (plane.max(1) > -plane.min(1)).all()


def test_leading_wave_is_the_plane_of_all_translates(rng):
    x = 2 * np.pi * np.arange(7)[:, None] / 7
    states = rng.standard_normal((40, 7, 4)) + 2.0
    phase = rng.uniform(0, 2 * np.pi, (40, 1, 1))
    states += 3.0 * np.cos(2 * x + np.array([0.0, 0.5, 1.0, 2.0]) - phase)
    every = np.concatenate([np.roll(states, s, 1) for s in range(7)]).reshape(280, 28)
    mean, plane = leading_plane(every)
    wave = LeadingWave.of(states)
    assert wave.wavenumber == 2
    expected = np.linalg.norm((every - mean) @ plane.T, axis=1)
    np.testing.assert_allclose(np.tile(wave.amplitudes(states), 7), expected, rtol=1e-8)
    assert wave.radius(states) == pytest.approx(np.median(expected))


def test_leading_wave_of_a_line_and_of_states_that_are_gone():
    states = waves(0.3)[0]
    wave = LeadingWave.of(states)
    np.testing.assert_allclose(wave.amplitudes(states), np.sqrt(8.0))
    states[3, 2] = np.nan
    assert np.isinf(wave.amplitudes(states)[3])
    assert np.isfinite(wave.amplitudes(states)[[2, 4]]).all()


# --- spectra -----------------------------------------------------------------------------------------------


def test_spatial_spectrum_of_waves_and_its_sum(rng):
    x = 2 * np.pi * np.arange(32) / 32
    power = spatial_spectrum((3.0 * np.cos(4 * x) + 1.0)[None, None])
    np.testing.assert_allclose(power[[0, 4]], [1.0, 4.5])
    np.testing.assert_allclose(np.delete(power, [0, 4]), 0.0, atol=1e-20)
    plane_wave = np.cos(3 * x[:, None] + 4 * x)[None, None]
    np.testing.assert_allclose(spatial_spectrum(plane_wave)[5], 0.5)
    noise = rng.standard_normal((2, 3, 31))
    np.testing.assert_allclose(spatial_spectrum(noise).sum(), (noise**2).mean())
    smooth = rng.standard_normal((1, 1, 5, 5))
    spectrum = np.zeros((24, 24), complex)
    spectrum[:5, :5] = smooth[0, 0]
    field = np.fft.ifft2(spectrum).real[None, None]
    np.testing.assert_allclose(spatial_spectrum(field).sum(), (field**2).mean())


def test_temporal_spectrum_of_noise_and_of_a_line(rng):
    noise = rng.standard_normal((4, 4000, 5))
    power = temporal_spectrum(noise, segment=64)
    np.testing.assert_allclose(power[1:], 1.0, atol=0.08)
    assert 0.8 < power[0] < 0.95  # the mean of the segment takes a part with it
    line = np.cos(2 * np.pi * 0.125 * np.arange(4000.0))[None, :, None]
    assert temporal_spectrum(line, segment=64).argmax() == 7  # frequencies begin at 1/64
    factor = 0.8
    colored = temporal_spectrum(autoregressive(rng, factor, 4, 8000, 5), segment=64)
    frequency = np.arange(1, 33) / 64
    expected = (1 - factor**2) / np.abs(1 - factor * np.exp(-2j * np.pi * frequency)) ** 2
    np.testing.assert_allclose(colored[2:], expected[2:], rtol=0.1)
    assert temporal_spectrum(noise[:, :20]).shape == (10,)


def test_log_spectral_distance_of_a_factor():
    truth = np.array([1.0, 0.1, 1e-12])
    assert log_spectral_distance(truth, 10.0 * truth) == pytest.approx(1.0)
    assert log_spectral_distance(truth, np.array([1.0, 0.1, 1.0])) == 0.0  # below the floor of the truth
    assert log_spectral_distance(truth, np.array([1.0, np.nan, 1.0])) == np.inf
    assert log_spectral_distance(truth, np.zeros(3)) == pytest.approx((20.0**2 + 19.0**2) / 2)


# --- second moments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [3, 200], ids=["covariances", "gram matrices"])
def test_covariance_error_of_scaled_and_of_other_samples(points, rng):
    a, b = rng.standard_normal((2, 100, points))
    assert covariance_error(a, 2.0 * a + 7.0) == pytest.approx(3.0)
    C, D = (np.cov(x.T, bias=True) for x in (a, b[:70]))
    expected = np.linalg.norm(D - C) / np.linalg.norm(C)
    assert covariance_error(a, b[:70]) == pytest.approx(expected, rel=1e-10)
    assert covariance_error(a, np.full((5, points), np.nan)) == np.inf


def test_autocorrelation_time_of_an_autoregressive_process(rng):
    x = autoregressive(rng, 0.9, 20, 20_000)
    assert autocorrelation_time(x, 0.1) == pytest.approx(0.1 * 1.9 / 0.2, rel=0.05)
    assert autocorrelation_time(rng.standard_normal((2, 5000, 3)), 1.0) == pytest.approx(0.5, abs=0.05)
    assert autocorrelation_time(np.ones((1, 10, 2)), 1.0) == np.inf


# --- divergence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", [None, 1e-7], ids=["tangent", "two trajectories"])
def test_exponent_of_the_cat_map(separation, generator):
    A = torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    start = torch.zeros(3, 2, dtype=torch.float64)  # the fixed point: no fold comes between two trajectories
    found = largest_lyapunov_exponent(
        lambda x: x @ A.T,
        start,
        steps=12,
        interval=0.5,
        generator=generator,
        discard=16,
        separation=separation,
    )
    torch.testing.assert_close(
        found, torch.full((3,), 2 * np.log((3 + 5**0.5) / 2), dtype=torch.float64), rtol=1e-4, atol=0
    )


def exponent(plant, start, *, dt, every, steps, discard, generator, separation=None):
    def step(x):
        for _ in range(every):
            x = RK4().step(plant, 0.0, x, None, None, dt, torch)
        return x

    return largest_lyapunov_exponent(
        step,
        start,
        steps=steps,
        interval=every * dt,
        generator=generator,
        discard=discard,
        separation=separation,
    ).mean()


def lorenz_63_states(generator):
    """States on the attractor; the start must not be near an unstable focus, which is left only slowly."""
    start = 1.0 + 0.1 * torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    for _ in range(1000):
        start = RK4().step(Lorenz63(), 0.0, start, None, None, 0.02, torch)
    return start


@pytest.mark.once  # samples of the same functions
def test_exponent_of_lorenz_63(generator):
    start = lorenz_63_states(generator)
    found = exponent(
        Lorenz63(), start, dt=0.01, every=10, steps=100, discard=80, generator=generator, separation=1e-6
    )
    assert found == pytest.approx(0.9056, abs=0.015)  # Sparrow (1982); Viswanath (1998)


@pytest.mark.slow
def test_exponent_of_lorenz_63_by_tangents(generator):
    start = lorenz_63_states(generator)
    found = exponent(Lorenz63(), start, dt=0.01, every=10, steps=500, discard=100, generator=generator)
    assert found == pytest.approx(0.9056, abs=0.005)


@pytest.mark.slow
def test_exponent_of_lorenz_96(generator):
    start = 8.0 + torch.randn(50, 40, generator=generator, dtype=torch.float64)
    found = exponent(
        Lorenz96(), start, dt=0.02, every=2, steps=2500, discard=500, generator=generator, separation=1e-7
    )
    assert found == pytest.approx(1.68, abs=0.02)


def test_times_of_blow_up():
    states = np.ones((4, 10, 2))
    states[1, 6:] = 1e15
    states[2, 3] = np.nan
    states[3, 9] = np.finfo(float).max
    found = blow_up_times(states, bound=5.0, interval=0.5)
    np.testing.assert_array_equal(found, [np.inf, 3.0, 1.5, 4.5])


# --- the published measures --------------------------------------------------------------------------------


def test_published_measures_and_their_flaws(rng):
    truth = rng.standard_normal((2000, 8))
    for measure in (published_physical_kl, published_log_spectral_distance):
        assert measure(truth, truth) == 0.0
    assert published_pca_kl(truth, truth, half_width=5.0) == pytest.approx(0.0, abs=1e-12)
    exploded = truth.copy()
    exploded[0, 0] = 1e15
    assert published_physical_kl(truth, exploded) < 1e-3  # flattered
    assert published_physical_kl(truth, truth + 0.5) == pytest.approx(0.125, rel=0.2)
    other = rng.standard_normal((2000, 8))
    assert published_pca_kl(truth, other, half_width=5.0) > 0.7  # nothing but sampling noise
    half = other.copy()
    half[::2] = 1e3
    dropped = published_pca_kl(truth, half, half_width=5.0)
    assert dropped < 2.0 * published_pca_kl(truth, other[1::2], half_width=5.0)
    assert published_log_spectral_distance(truth, 10.0 * truth) == pytest.approx(4.0)
    assert (
        published_log_spectral_distance(
            truth.reshape(-1, 8)[:64].reshape(8, 8, 8), truth[:64].reshape(8, 8, 8)
        )
        == 0.0
    )
    assert published_log_spectral_distance(truth, np.full_like(truth, np.nan)) == np.inf


# --- all of them -------------------------------------------------------------------------------------------


def test_reference_measures_the_truth_as_itself_and_other_things_as_other():
    truth = Reference.of(waves(np.arange(3.0)[:, None, None]), interval=0.5)
    same = truth.compare(truth.states)
    for name in ("values_outside", "components_outside", "spatial_distance", "temporal_distance"):
        assert same[name] == 0.0
    assert same["values_kl"] < 1e-3
    assert same["components_kl"] < 0.2
    assert same["covariance_error"] < 1e-6
    assert same["autocorrelation_error"] == 0.0
    assert same["blow_up_time"] == np.inf
    assert same["ring_radius"] == pytest.approx(np.sqrt(8.0), rel=0.02)  # √(16/2)
    other = truth.compare(2.0 * truth.states)
    assert other["spatial_distance"] == pytest.approx(np.log10(4) ** 2)
    assert other["temporal_distance"] == pytest.approx(np.log10(4) ** 2)
    assert other["covariance_error"] == pytest.approx(3.0)
    assert other["ring_radius"] == pytest.approx(2 * same["ring_radius"], rel=1e-3)
    assert other["values_outside"] > 0.1


def test_reference_of_a_model_that_blows_up():
    truth = Reference.of(waves(0.0), interval=0.5)
    for value in (1e15, np.inf, np.nan):
        model = truth.states.astype(np.float32)
        model[:, 100:] = value
        found = truth.compare(model)
        assert found["blow_up_time"] == 50.0
        assert found["values_outside"] == pytest.approx(2 / 3)
        assert found["values_kl"] > 1.0
        assert found["spatial_distance"] == found["covariance_error"] == np.inf
        assert set(found) == set(truth.compare(truth.states))


@pytest.mark.untyped
@pytest.mark.parametrize("shape", [(3, 16), (1, 0, 16), (0, 5, 16), (1, 1, 16), (1, 5, 12)])
def test_states_that_are_no_trajectories_on_the_grid_are_refused(shape):
    truth = Reference.of(waves(0.0), interval=1.0)
    with pytest.raises(ShapeError, match=r"expected states of shape \(runs, T, 16\)"):
        truth.compare(np.zeros(shape))


def test_a_model_without_a_finite_value_is_infinitely_far():
    assert published_physical_kl(waves(0.0), np.full((5, 16), np.nan)) == np.inf
