"""Next states learned from trajectories: the losses by hand, resumption, penalties, and a system that is recovered."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from constrained_nn.certificates import DiagonalEnergy
from constrained_nn.models import ECO
from constrained_nn.training import Sobolev, SoftDissipativity, fit_operator, mean_square, multistep_loss
from constrained_nn.training.operators import windows


def rotation(angle: float = 0.3) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]])


def circles(count: int = 6, samples: int = 20) -> np.ndarray:
    """Trajectories of a rotation."""
    w = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    states = [w := w @ rotation().T if k else w for k in range(samples)]
    return torch.stack(states, 1).numpy()


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def test_windows_cover_all_and_stay_inside() -> None:
    found = windows(2, 5, 2)
    assert found.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert windows(1, 6, 1, every=2).tolist() == [[0, 0], [0, 2], [0, 4]]


def test_multistep_loss_is_the_mean_error_of_the_steps() -> None:
    model = linear().double()
    window = torch.randn(3, 4, 2, dtype=torch.float64)
    w, by_hand = window[:, 0], 0.0
    for k in range(1, 4):
        w = model(w)
        by_hand = by_hand + (w - window[:, k]).square().mean(-1) / 3
    torch.testing.assert_close(multistep_loss(model, window), by_hand)
    only_last = multistep_loss(model, window, pushforward=True)
    torch.testing.assert_close(only_last, (w - window[:, 3]).square().mean(-1))


def test_pushforward_differentiates_the_last_step_only() -> None:
    model = linear().double()
    window = torch.randn(1, 3, 2, dtype=torch.float64)
    multistep_loss(model, window, pushforward=True).sum().backward()
    assert model.weight.grad is not None
    found = model.weight.grad.clone()
    model.zero_grad()
    multistep_loss(model, torch.stack([model(window[:, 0]).detach(), window[:, 2]], 1)).sum().backward()
    torch.testing.assert_close(found, model.weight.grad)


@pytest.mark.parametrize("shape", [(12,), (9,), (6, 8)])
def test_sobolev_counts_derivatives(shape: tuple[int, ...]) -> None:
    e = torch.randn(3, math.prod(shape), dtype=torch.float64)
    torch.testing.assert_close(Sobolev(shape, 0.0)(e), mean_square(e))
    axis = torch.arange(shape[-1], dtype=torch.float64) * 2 * math.pi / shape[-1]
    wave = torch.cos(3 * axis).expand(shape).flatten()
    torch.testing.assert_close(Sobolev(shape, 1.0, cutoff=2.0)(wave), (1 + 9 / 4) * mean_square(wave))


def test_fit_finds_a_rotation_and_resumes(tmp_path) -> None:
    options = {
        "batch": 16,
        "learning_rate": 3e-2,
        "final_learning_rate": 1e-3,
        "horizon": 2,
        "max_norm": 10.0,
    }
    whole = linear()
    losses = fit_operator(whole, circles(), epochs=40, **options)
    assert losses[-1] < 1e-4 < losses[0]
    torch.testing.assert_close(whole.weight.detach(), rotation(), rtol=0, atol=2e-2)
    parts = linear()

    class Stop(Exception):
        pass

    def stop(epoch: int, loss: float) -> None:
        if epoch == 15:
            raise Stop

    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stop):
        fit_operator(parts, circles(), epochs=40, checkpoint=file, progress=stop, **options)
    again = linear()
    fit_operator(again, circles(), epochs=40, checkpoint=file, **options)
    assert torch.equal(again.weight, whole.weight)


def test_soft_dissipativity_pulls_far_states_in() -> None:
    far = SoftDissipativity(2.0, 4.0, contraction=0.5)
    like = torch.zeros(50, 2)
    assert far(lambda z: 0.5 * z, like).max() == 0.0
    excess = far(lambda z: 1.5 * z, like)
    torch.testing.assert_close(excess, torch.full((50,), math.log(2.0)))
    seen = []
    far(lambda z: seen.append(z) or z, like)  # type: ignore[func-returns-value]
    assert 2.0 <= seen[0].norm(dim=-1).min() <= seen[0].norm(dim=-1).max() <= 4.0


def test_volume_shrinks_the_level_set_until_the_data_object() -> None:
    data = circles()
    loose = ECO(linear(), DiagonalEnergy(torch.full((2,), 1e-2), level=1.0), alpha=1.0)
    before = loose.energy.log_volume().item()
    fit_operator(loose, data, epochs=30, batch=16, learning_rate=3e-2, volume=1e-2)
    assert loose.energy.log_volume().item() < before - 0.5


def test_noise_moves_the_first_state_only() -> None:
    seen = []

    class Watch(nn.Linear):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    data = circles(1, 2)
    fit_operator(Watch(2, 2), data, epochs=1, batch=4, learning_rate=1e-3, noise=0.1)
    assert 1e-3 < (seen[0] - torch.from_numpy(data[0, :1])).abs().max() < 1.0


def test_volume_needs_an_energy() -> None:
    with pytest.raises(TypeError, match="volume=0"):
        fit_operator(linear(), circles(), epochs=1, batch=4, learning_rate=1e-3, volume=0.1)


def test_trajectories_without_a_window_are_refused() -> None:
    for horizon in (3, 4):
        with pytest.raises(ValueError, match="shorten the horizon"):
            fit_operator(linear(), circles()[:, :3], epochs=1, batch=4, learning_rate=1e-3, horizon=horizon)


@pytest.mark.untyped
@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch": 0}, {"horizon": 0}, {"every": 0}])
def test_numbers_below_one_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=f"expected {next(iter(bad))} >= 1"):
        fit_operator(linear(), circles(), **({"epochs": 1, "batch": 4, "learning_rate": 1e-3} | bad))


@pytest.mark.untyped
@pytest.mark.parametrize("bad", [np.zeros((5, 2)), np.full((2, 5, 2), np.nan), np.zeros((2, 5, 2, 2))])
def test_what_is_no_trajectory_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite trajectories"):
        fit_operator(linear(), bad.astype(np.float32), epochs=1, batch=4, learning_rate=1e-3)


def test_a_long_gradient_is_cut() -> None:
    """With a cut of zero length nothing moves: the cut applies to the gradient that Adam sees."""
    model = linear()
    before = model.weight.detach().clone()
    fit_operator(model, circles(), epochs=1, batch=16, learning_rate=1e-2, max_norm=0.0)
    assert torch.equal(model.weight, before)
