"""Stacked networks: equal to one network at a time, exact slopes, invariance, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn.control import Linearization, MeanValue
from constrained_nn.training import StackedAffine, StackedMLP, StackedSamples, StateFeatures, descend
from control_envs.dynamics import PlanarBirotor


def model(linear: bool, features: StateFeatures | None = None, seed: int = 0) -> StackedAffine:
    ones = torch.ones(6, dtype=torch.float64)
    features = features or StateFeatures(2.0 * ones)
    units = torch.tensor([[1.0], [2.0], [0.5]], dtype=torch.float64).expand(3, 6)
    middle = torch.tensor([2.0, 3.0], dtype=torch.float64)
    made = StackedAffine(features, units, 0.5 * ones[:2], middle, width=8, seed=seed, linear=linear)
    with torch.no_grad():  # nothing at zero
        for i, p in enumerate(made.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype))
    return made


def states(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, 6, generator=generator, dtype=torch.float64)


def test_stack_is_one_network_at_a_time(generator):
    stack = StackedMLP(3, (6, 8, 5, 4), seed=1)
    x = states(generator, 3, 2, 7)
    found = stack(x)
    for k in range(3):
        y = x[k]
        for i, (W, b) in enumerate(zip(stack.weights, stack.biases, strict=True)):
            y = (torch.tanh(y) if i else y) @ W[k] + b[k]
        torch.testing.assert_close(found[k], y)
    assert not torch.equal(stack.weights[0][0], stack.weights[0][1])
    squares = [sum(p[k].square().sum() for p in stack.parameters()) for k in range(3)]
    torch.testing.assert_close(stack.squares(), torch.stack(squares))


@pytest.mark.untyped
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("invariant", [False, True])
def test_slopes_are_those_of_autograd(linear, invariant, generator):
    half = torch.tensor([10.0, 10.0, 1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    features = StateFeatures.invariant(PlanarBirotor(), half) if invariant else StateFeatures(half)
    plant = model(linear, features)
    x, u = states(generator, 3, 4), torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    exact = torch.autograd.functional.jacobian(lambda x: plant(x, u), x)
    rows = torch.arange(3)[:, None], torch.arange(4)
    expected = exact[rows[0], rows[1], :, rows[0], rows[1], :]
    torch.testing.assert_close(plant.jacobian(x, u), expected)
    affine = plant.drift(0.0, x) + (plant.actuation(0.0, x) @ u.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(affine, plant(x, u))
    moved = x + torch.tensor([5.0, -3.0, 2 * np.pi, 0.0, 0.0, 0.0], dtype=torch.float64)
    same = torch.allclose(plant(moved, u), plant(x, u), rtol=1e-9, atol=1e-9)
    assert same == invariant
    if invariant:
        assert not plant.jacobian(x, u)[..., :2].any()


def test_factorizations_take_stacked_models(generator):
    plant = model(True)
    x, x_ref, u_ref = states(generator, 3, 5), states(generator, 5), torch.ones(5, 2).double()
    A, B = MeanValue(plant, 12)(x, x_ref, u_ref)
    change = plant(x, u_ref.expand(3, 5, 2)) - plant(x_ref.expand(3, 5, 6), u_ref.expand(3, 5, 2))
    torch.testing.assert_close((A @ (x - x_ref).unsqueeze(-1)).squeeze(-1), change, rtol=1e-6, atol=1e-6)
    assert A.shape == (3, 5, 6, 6)
    assert B.shape == (3, 5, 6, 2)
    at, _ = Linearization(plant)(x, x_ref, u_ref)
    torch.testing.assert_close(at, plant.jacobian(x_ref.expand(3, 5, 6), u_ref))


def test_start_is_least_squares(generator):
    """A linear plant is found from its samples, one sample set shorter than the other."""
    L = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    G = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    parts = []
    for count in (30, 60, 40):
        x, u = states(generator, count), torch.randn(count, 2, generator=generator, dtype=torch.float64)
        parts.append((x, u, x @ L.T + u @ G.T))
    samples = StackedSamples(parts)
    ones = torch.ones(6, dtype=torch.float64)
    units, middle = torch.tensor([[2.0, 0.25], [1.0, -3.0]], dtype=torch.float64)
    plant = StackedAffine(
        StateFeatures(3.0 * ones), samples.units(), units, middle, width=4, seed=0, linear=True
    )
    weight = torch.arange(60) < torch.from_numpy(samples.trained)[:, None]
    plant.start(samples.x, samples.u, samples.velocity, weight.double(), ridge=0.0)
    x, u = states(generator, 3, 9), torch.randn(3, 9, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(plant(x, u), x @ L.T + u @ G.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("linear", [False, True])
def test_parts_are_in_si_units(linear, generator):
    """Drift and input matrix entry by entry, from what the network and the linear part add."""
    plant, x = model(linear), states(generator, 3, 4)
    plant.input_units.copy_(torch.tensor([0.5, 4.0]))
    z = plant.features(x)
    y = plant.net(z)
    if linear:
        y = y + plant.constant
        y[..., :6] += torch.einsum("kbf,kfn->kbn", z, plant.linear)
    drift, B = plant.parts(x)
    for k in range(3):
        for i in range(6):
            unit = plant.units[k, i]
            torch.testing.assert_close(drift[k, :, i], unit * y[k, :, i])
            for j, input_unit in enumerate((0.5, 4.0)):
                torch.testing.assert_close(B[k, :, i, j], unit / input_unit * y[k, :, 6 + 2 * i + j])
    u = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    moved = u - torch.tensor([2.0, 3.0])
    torch.testing.assert_close(plant(x, u), drift + torch.einsum("kbnm,kbm->kbn", B, moved))


def test_batches_never_meet_the_held_out_rows(generator):
    parts = [[torch.arange(float(c)).unsqueeze(-1) + 100 * c] * 3 for c in (10, 25)]
    samples = StackedSamples(parts)
    assert samples.trained.tolist() == [9, 22]
    seen = samples.batch(generator, 400)[0][..., 0]
    for rows, count, cut in zip(seen, (10, 25), (9, 22), strict=True):
        assert set((rows - 100 * count).tolist()) == set(range(cut))
    held = samples.held_out()[0][..., 0]
    assert set((held[0] - 1000).tolist()) == {9}
    assert set((held[1] - 2500).tolist()) == {22, 23, 24}


def test_rate_that_falls_is_resumed(tmp_path):
    def fit(steps_before: int | None) -> list[torch.Tensor]:
        net = StackedMLP(2, (1, 3, 1), seed=0)
        x = torch.linspace(-1, 1, 8).double().reshape(1, 8, 1).expand(2, 8, 1)
        calls = 0

        def evaluate(step: int):
            nonlocal calls
            calls += 1
            if steps_before is not None and calls > steps_before:
                raise KeyboardInterrupt
            loss = (net(x) - x.sin()).square().mean((1, 2))
            return loss.sum(), loss.detach(), 0

        try:
            descend(
                net,
                evaluate,
                steps=20,
                learning_rate=0.1,
                final_learning_rate=0.001,
                settings={},
                checkpoint=tmp_path / "net.safetensors" if steps_before is not None else None,
                every=5,
            )
        except KeyboardInterrupt:
            return fit(10_000)
        return [p.detach() for p in net.parameters()]

    whole, resumed = fit(None), fit(12)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
