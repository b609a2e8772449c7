"""Energies of states: coordinates, determinants, coverage of data, symmetry and transfer between grids."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from constrained_nn.certificates import (
    DenseEnergy,
    DiagonalEnergy,
    FourierEnergy,
    LowRankEnergy,
    NeuralEnergy,
    energy_report,
)
from constrained_nn.errors import ShapeError
from tests.cases.energies import fitted
from tests.cases.sets import randn
from tests.oracles import numpy


def test_coordinates_and_determinants(generator: torch.Generator) -> None:
    for energy in fitted(generator):
        x = 3.0 * randn(generator, 7, 16)
        z = energy.coordinates(x)
        torch.testing.assert_close(z.square().sum(-1), energy.value(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(energy.state(z), x, rtol=1e-9, atol=1e-9)
        hessian = torch.autograd.functional.hessian(lambda x, e=energy: e.value(x), x[0])
        torch.testing.assert_close(torch.logdet(0.5 * hessian) / 16, energy.log_det(), rtol=1e-9, atol=1e-9)
        wild = energy.sublevel(energy.level).from_coordinates(3.0 * randn(generator, 7, z.shape[-1]))
        assert wild.isfinite().all()


def test_volume_is_per_dimension_where_determinants_overflow() -> None:
    small = DiagonalEnergy(torch.full((2,), 4.0).double(), level=1.0)
    assert small.log_volume().item() == pytest.approx(0.5 * math.log(math.pi / 4.0), rel=1e-12)
    for scale in (1e-3, 1e3):
        large = DiagonalEnergy(torch.full((4096,), scale), level=1.0)
        gradient = torch.autograd.grad(large.log_volume(), large.log_weights)[0]
        assert large.log_volume().isfinite()
        torch.testing.assert_close(gradient, torch.full((4096,), -0.5 / 4096))


def test_energies_take_weights_and_level_from_the_data(generator: torch.Generator) -> None:
    """Against NumPy: `1 / variance / n`, the inverse of the covariance over `n`, and the quantile of `V`."""
    n, rank = 6, 2
    x = randn(generator, 500, n) @ randn(generator, n, n) + torch.linspace(-2, 2, n).double()
    data = numpy(x)

    def matrix(energy) -> np.ndarray:
        return numpy(torch.autograd.functional.hessian(energy.value, x[0])) / 2

    diagonal = DiagonalEnergy.from_data(x, quantile=0.9, headroom=1.5)
    np.testing.assert_allclose(matrix(diagonal), np.diag(1 / data.var(0) / n), rtol=1e-10, atol=1e-14)
    dense = DenseEnergy.from_data(x, quantile=0.9, headroom=1.5)
    covariance = np.cov(data.T, bias=True)
    assert np.linalg.eigvalsh(covariance)[0] > 1e-3 * np.trace(covariance) / n, "no variance is at the floor"
    np.testing.assert_allclose(matrix(dense), np.linalg.inv(covariance) / n, rtol=1e-9, atol=1e-11)
    low = LowRankEnergy.from_data(x, rank=rank, quantile=0.9, headroom=1.5)
    deviation = data.std(0)
    found = np.linalg.eigvalsh(matrix(low) * np.outer(deviation, deviation) * n)
    least = np.linalg.eigvalsh(np.corrcoef(data.T))[:rank]
    assert 1e-2 < least.min() <= least.max() < 1
    np.testing.assert_allclose(found, [*np.ones(n - rank), *np.sort(1 / least)], rtol=1e-9)

    for energy in (diagonal, dense, low):
        center = numpy(energy.center)
        np.testing.assert_allclose(center, data.mean(0), rtol=1e-12, atol=1e-14)
        values = np.einsum("ki,ij,kj->k", data - center, matrix(energy), data - center)
        expected = 1.5 * np.quantile(values, 0.9, method="inverted_cdf")
        assert float(energy.level) == pytest.approx(expected, rel=1e-9)


def test_a_direction_without_variance_is_not_forbidden(generator: torch.Generator) -> None:
    """It counts as one with a thousandth of the mean variance."""
    x = randn(generator, 200, 4) * torch.tensor([1.0, 2.0, 3.0, 0.0]).double()
    variance = numpy(x).var(0)
    weights = 1 / np.maximum(variance, 1e-3 * variance.mean()) / 4
    np.testing.assert_allclose(numpy(DiagonalEnergy.from_data(x).log_weights.exp()), weights, rtol=1e-9)
    axis = torch.tensor([0.0, 0.0, 0.0, 1.0]).double()
    dense = DenseEnergy.from_data(x)
    assert dense.value(dense.center + axis).item() == pytest.approx(weights[3], rel=1e-6)


def test_data_are_covered_and_forbidden_transitions_counted(generator: torch.Generator) -> None:
    x = randn(generator, 2000, 6) * torch.linspace(1, 3, 6).double()
    before, after = x[:-1], x[1:]
    energy = DiagonalEnergy.from_data(x, quantile=0.9, headroom=1.0)
    report = energy_report(energy, before, after, alpha=0.99)
    values = energy.value(x)
    level = float(energy.level)
    assert report.coverage == pytest.approx(0.9, abs=2e-3)
    expected = values[1:] > 0.99 * values[:-1].clamp_min(level)
    assert report.forbidden == pytest.approx(float(expected.double().mean()))
    assert "true transitions forbidden" in str(report)
    energy.set_level(report.level_without * (1 + 1e-9))
    assert energy_report(energy, before, after, alpha=0.99).forbidden == 0.0
    energy.set_level(report.level_without * 0.99)
    assert energy_report(energy, before, after, alpha=0.99).forbidden > 0.0


def test_fourier_energy_is_the_same_for_translated_fields_and_fits_their_spectrum(generator) -> None:
    for shape in ((1, 12), (1, 9), (4, 6), (3, 5)):
        n = shape[0] * shape[1]
        noise = torch.fft.rfft2(randn(generator, 4000, *shape), norm="ortho")
        size = 1.0 / (1.0 + torch.arange(shape[1] // 2 + 1).double())
        fields = torch.fft.irfft2(noise * size, s=shape, norm="ortho")
        energy = FourierEnergy.from_data(fields.reshape(-1, n), shape if shape[0] > 1 else shape[1])
        moved = fields.roll((1, 2), (-2, -1)).reshape(-1, n)
        torch.testing.assert_close(
            energy.value(moved), energy.value(fields.reshape(-1, n)), rtol=1e-10, atol=1e-12
        )
        assert energy.value(moved).mean().item() == pytest.approx(1.0, abs=0.02)


def test_neural_energy_is_the_same_function_on_a_finer_grid(generator: torch.Generator) -> None:
    def grid(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        points = torch.arange(n, dtype=torch.float64).unsqueeze(-1) / n
        return points, torch.full((n,), 1.0 / n, dtype=torch.float64)

    def fields(n: int) -> torch.Tensor:
        angle = 2 * math.pi * grid(n)[0].squeeze(-1)
        amplitude = torch.randn(50, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return angle.sin() + amplitude * (1.5 + angle.cos())

    def waves(points: torch.Tensor) -> torch.Tensor:
        return torch.cat([(2 * math.pi * points).sin(), (2 * math.pi * points).cos()], -1)

    coarse = NeuralEnergy.from_data(fields(64), *grid(64), features=waves, hidden=(32,))
    fine = coarse.on(*grid(128))
    torch.testing.assert_close(fine.value(fields(128)), coarse.value(fields(64)), rtol=1e-6, atol=1e-6)
    assert fine.density_net is coarse.density_net
    assert fine.log_level is coarse.log_level
    variance = fields(64).var(0, correction=0)
    weights = coarse.log_weights().exp() * variance
    assert float(weights.std() / weights.mean()) < 0.05  # the density follows the inverse of the variance


# --- what is no state, no number, or no data ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        DiagonalEnergy.from_data,
        DenseEnergy.from_data,
        lambda x: LowRankEnergy.from_data(x, rank=2),
        lambda x: FourierEnergy.from_data(x, (8,)),
        lambda x: NeuralEnergy.from_data(x, torch.arange(8.0).unsqueeze(-1).double(), torch.ones(8).double()),
    ],
    ids=["diagonal", "dense", "low-rank", "fourier", "neural"],
)
@pytest.mark.untyped  # bad shapes and types are what it is about
def test_data_and_states_that_are_none_are_refused(build, generator: torch.Generator) -> None:
    x = randn(generator, 20, 8)
    energy = build(x)
    assert energy.value(x[:0]).shape == (0,)
    assert energy.gradient(x[:0]).shape == (0, 8)
    for wrong in (x[:, :1], x[:, :7]):
        with pytest.raises(ShapeError, match="expected states of shape"):
            energy.value(wrong)
    for bad in (float("nan"), float("inf")):
        spoiled = x.clone()
        spoiled[3, 1] = bad
        with pytest.raises(ValueError, match="in 1 of 20"):
            build(spoiled)
    for wrong in (x[:0], x[0], x.long()):
        with pytest.raises(ShapeError, match="count, n"):
            build(wrong)
    for level in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="level > 0"):
            energy.set_level(level)


@pytest.mark.untyped  # bad shapes and types are what it is about
def test_a_report_never_counts_what_was_not_measured_as_allowed(generator: torch.Generator) -> None:
    energy, x = DiagonalEnergy(torch.ones(2)), randn(generator, 20, 2)
    spoiled = x.clone()
    spoiled[3] = torch.nan
    for states in (x[:1], spoiled):
        with pytest.raises(ValueError, match="finite transitions"):
            energy_report(energy, states[:-1], states[1:], alpha=0.9)
    with pytest.raises(ShapeError, match="following"):
        energy_report(energy, x, x[:1], alpha=0.9)
    with pytest.raises(ValueError, match="alpha"):
        energy_report(energy, x, x, alpha=0.0)


@pytest.mark.untyped  # bad shapes and types are what it is about
def test_matrices_and_weights_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="symmetric"):
        DenseEnergy(torch.tensor([[1.0, 0.9], [0.0, 1.0]]))
    with pytest.raises(ShapeError, match=r"\(n, n\)"):
        DenseEnergy(torch.ones(3, 2))
    with pytest.raises(ValueError, match="finite"):
        DiagonalEnergy(torch.tensor([1.0, float("inf")]))
    with pytest.raises(ValueError, match="do not vary"):
        DiagonalEnergy.from_data(torch.ones(10, 3))
    with pytest.raises(ValueError, match="quantile"):
        DiagonalEnergy.from_data(torch.eye(3), quantile=99)
    with pytest.raises(ShapeError, match="one or two directions"):
        FourierEnergy(torch.ones(2, 2, 2), (2, 2, 2))
