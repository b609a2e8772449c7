"""The experiments on learned chaos at tiny sizes: what they report, and that an interruption changes nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from constrained_nn.certificates import DenseEnergy, DiagonalEnergy, FourierEnergy
from constrained_nn.evidence import certify_evolution
from constrained_nn.evidence.claims.energy import EVOLUTION
from constrained_nn.experiments import load
from constrained_nn.experiments.tables.eco.models import ClippedToBall, shadow, vorticity
from constrained_nn.operators import resample
from constrained_nn.verify import Outcome, check_claims

PUBLISHED = {"physical_kl", "pca_kl", "log_spectral"}


def test_lorenz_stays_bounded_and_reports_what_it_shows(tmp_path) -> None:
    experiment = load("eco-lorenz63").fast()
    known = {column.name for column in experiment.columns}
    found = experiment.run("eco", 1, tmp_path / "eco-seed1")
    assert known <= set(found)
    assert found["bounded_steps"] == 100
    assert found["far_violation"] <= 0.0
    assert found["learned_level_forbids"] < 5.0
    again = experiment.run("eco", 1, tmp_path / "eco-seed1")  # from the checkpoints
    assert again == found
    proof, *others = check_claims(certify_evolution(tmp_path / "eco-seed1" / EVOLUTION, command="test"))
    assert proof.grade == "proof"
    assert proof.outcome is Outcome.HOLDS
    assert not others
    level = np.load(tmp_path / "eco-seed1" / "level_set.npz")
    assert np.linalg.eigvalsh(level["shape"]).min() > 0


def test_trained_fields_are_proved(tmp_path) -> None:
    experiment = load("eco-ks").fast()
    experiment.run("eco", 1, tmp_path / "eco-seed1")
    (proof,) = check_claims(certify_evolution(tmp_path / "eco-seed1" / EVOLUTION, command="test"))
    assert proof.outcome is Outcome.HOLDS


def test_exponent_of_a_model_in_float32_is_that_of_its_map() -> None:
    """Eigenvalue 1.02 of a linear map with weights in float32, steps of 0.05 s: `log(1.02) / 0.05`."""
    experiment = load("eco-lorenz63").fast()

    class Map(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)

    model = Map(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([1.02, 0.0, 0.0])))
    found = experiment.extra(model, np.full((100, 3), 20.0, np.float32))
    assert found["lyapunov"] == pytest.approx(math.log(1.02) / 0.05, rel=1e-3)


def test_rows_without_a_stage_of_their_own_share_the_backbone(tmp_path) -> None:
    experiment = load("eco-lorenz63").fast()
    (tmp_path / "clip-seed1").mkdir()
    clipped = experiment.run("clip", 1, tmp_path / "clip-seed1")
    alone = experiment.run("backbone", 1, tmp_path / "backbone-seed1")
    assert clipped["train_minutes"] == alone["train_minutes"] > 0
    assert not (tmp_path / "clip-seed1" / "stage1.safetensors").exists()
    assert clipped["largest_norm"] <= 1.1 * clipped["largest_data_norm"]


@pytest.mark.parametrize("name", ["eco-ks", "eco-ks-deeponet", "eco-kolmogorov"])
def test_fields_are_measured_as_published(name: str, tmp_path) -> None:
    experiment = replace(load(name).fast(), samples=4)
    truth = experiment.run("truth", None, tmp_path / "truth")
    assert set(truth) >= PUBLISHED
    assert all(math.isfinite(truth[key]) for key in PUBLISHED)
    assert {column.name for column in experiment.columns} >= PUBLISHED
    json.dumps(experiment.settings(), allow_nan=False)


def test_the_full_experiment_asks_for_a_device() -> None:
    full = load("eco-kolmogorov-full")
    assert full.on("cuda").settings() == full.settings()
    with pytest.raises(ValueError, match="CPU only"):
        load("safe-control").on("cuda")


def test_clipped_to_a_ball() -> None:
    center = torch.tensor([1.0, 0.0])
    clip = ClippedToBall(torch.nn.Identity(), center, 2.0)
    w = torch.tensor([[1.0, 1.0], [5.0, 3.0], [1.0, 0.0]])
    torch.testing.assert_close(clip(w)[0], w[0])
    torch.testing.assert_close(clip(w)[1], center + torch.tensor([1.6, 1.2]))
    torch.testing.assert_close(clip(w)[2], center)


@pytest.mark.parametrize("kind", [DiagonalEnergy, DenseEnergy, FourierEnergy])
def test_shadow_is_that_of_the_level_set(kind, generator: torch.Generator) -> None:
    x = torch.randn(200, 8, generator=generator, dtype=torch.float64) * torch.linspace(1, 2, 8).double()
    energy = kind.from_data(x, 8) if kind is FourierEnergy else kind.from_data(x)
    plane = torch.linalg.qr(torch.randn(8, 2, generator=generator, dtype=torch.float64))[0].T
    center, shape = shadow(energy, x.mean(0), plane)
    # the farthest point of the level set along `p`, by Lagrange: d = Q⁻¹ Pᵀ p, scaled to V = c
    p = torch.tensor([0.6, -0.8], dtype=torch.float64)
    middle = energy.state(torch.zeros_like(energy.coordinates(x[0])))
    Q = torch.func.hessian(energy.value)(middle).detach() / 2
    d = torch.linalg.solve(Q, plane.T @ p)
    farthest = middle + d * (energy.level / (d @ Q @ d)).sqrt()
    reach = p @ (plane @ (farthest - x.mean(0)) - center)
    torch.testing.assert_close(reach.square(), p @ shape @ p, rtol=1e-5, atol=0)


def test_vorticity_keeps_the_frequencies_of_the_solver() -> None:
    torch.manual_seed(0)
    states = torch.randn(1, 20, 32 * 32)
    model = vorticity(states, 32, 16, 4, 1, wavenumber=4)
    w = states[:, 0].double()
    after = model(w).reshape(1, 32, 32)
    torch.testing.assert_close(resample(resample(after, (21, 21)), (32, 32)), after, rtol=0, atol=1e-10)
    torch.testing.assert_close(after.mean(), w.mean(), rtol=0, atol=1e-5)
