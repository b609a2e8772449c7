"""What every flow promises."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict

import numpy as np
import pytest
import torch

from control_envs.flows import ETDRK4, CrankNicolsonHeun
from tests.cases import FlowCase, every
from tests.fake_cuda import fake_cuda, on_cuda


def draw(case: FlowCase, rng: np.random.Generator, count: int = 4):
    flow = case.make()
    return flow, flow.project(flow.sample(rng, count))


@every(FlowCase)
def test_derivative_is_that_of_the_oracle(case: FlowCase, rng: np.random.Generator) -> None:
    flow, w = draw(case, rng)
    for state, found in zip(w, flow.derivative(w), strict=True):
        expected = case.derivative(flow, state)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@every(FlowCase)
def test_numpy_equals_torch(case: FlowCase, rng: np.random.Generator) -> None:
    flow, w = draw(case, rng)
    path = flow.trajectory(w, 6, case.dt, every=2)
    assert path.shape == (4, 4, *flow.shape)
    found = flow.trajectory(torch.from_numpy(w), 6, case.dt, every=2)
    np.testing.assert_allclose(found.numpy(), path, atol=1e-12)
    small = flow.trajectory(torch.from_numpy(w).float(), 6, case.dt, every=2)
    assert small.dtype == torch.float32
    np.testing.assert_allclose(small.numpy(), path, atol=2e-5)
    assert flow.trajectory(w.astype(np.float32), 1, case.dt).dtype == np.float32
    for none in (w[:0], torch.from_numpy(w[:0])):
        assert tuple(flow.trajectory(none, 6, case.dt, every=2).shape) == (0, 4, *flow.shape)


@every(FlowCase)
def test_batch_equals_loop_and_a_poisoned_element_stays_alone(
    case: FlowCase, rng: np.random.Generator
) -> None:
    flow, w = draw(case, rng)
    path = flow.trajectory(torch.from_numpy(w), 3, case.dt)
    for i in range(len(w)):
        single = flow.trajectory(torch.from_numpy(w[i]), 3, case.dt)
        np.testing.assert_allclose(single.numpy(), path[i].numpy(), atol=1e-13)
    bad = w.copy()
    bad[1] = np.nan
    tensor = torch.from_numpy(bad).requires_grad_()
    found = flow.trajectory(tensor, 3, case.dt)
    healthy = [0, 2, 3]
    torch.testing.assert_close(found[healthy], path[healthy], rtol=0, atol=1e-13)
    (gradient,) = torch.autograd.grad(found[healthy].sum(), tensor)
    assert gradient[healthy].isfinite().all()


@every(FlowCase)
@pytest.mark.parametrize(("method", "order"), [(ETDRK4(), 4), (CrankNicolsonHeun(), 2)])
def test_steppers_have_their_order(case: FlowCase, method, order: int, rng: np.random.Generator) -> None:
    flow, w = draw(case, rng)
    steps = 8

    def end(count: int, method=method) -> np.ndarray:
        return flow.trajectory(w, count, case.dt * steps / count, every=count, method=method)[:, -1]

    reference = end(32 * steps, ETDRK4())
    coarse, fine = (np.abs(end(n) - reference).max() for n in (steps, 2 * steps))
    assert fine > 1e-11
    assert abs(np.log2(coarse / fine) - order) < 0.3


@every(FlowCase)
def test_gradients_of_a_step(case: FlowCase, rng: np.random.Generator) -> None:
    flow, w = draw(case, rng, 1)
    state = torch.from_numpy(w[0]).requires_grad_()
    direction = torch.from_numpy(rng.standard_normal(flow.shape))
    along = lambda w: (flow.step(w, case.dt) * direction).sum()  # noqa: E731
    (gradient,) = torch.autograd.grad(along(state), state)
    h = 1e-6 * direction
    numeric = (along(state + h) - along(state - h)) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-6, atol=1e-8)
    _, tangent = torch.func.jvp(along, (state,), (direction,))
    torch.testing.assert_close(tangent, numeric, rtol=1e-6, atol=1e-8)


@every(FlowCase)
def test_states_live_on_the_kept_modes(case: FlowCase, rng: np.random.Generator) -> None:
    flow = case.make()
    w = rng.standard_normal((2, *flow.shape))
    kept = flow.project(w)
    assert np.abs(kept - w).max() > 0.1
    np.testing.assert_allclose(flow.project(kept), kept, atol=1e-13)
    np.testing.assert_array_equal(flow.trajectory(w, 0, 0.1)[:, 0], kept)
    spectrum = flow.to_spectrum(w)
    assert spectrum.shape[1:] == flow.symbol().shape
    mean = flow.trajectory(w, 5, case.dt).mean(axis=tuple(range(2, w.ndim + 1)))
    np.testing.assert_allclose(mean, mean[:, :1].repeat(6, 1), atol=1e-13)


@every(FlowCase)
def test_round_trips(case: FlowCase, rng: np.random.Generator) -> None:
    flow, w = draw(case, rng, 1)
    for other in (pickle.loads(pickle.dumps(flow)), case.kind(**json.loads(json.dumps(asdict(flow))))):
        assert other == flow
        np.testing.assert_array_equal(other.derivative(w), flow.derivative(w))


@pytest.mark.untyped
@every(FlowCase)
def test_no_hidden_synchronization(case: FlowCase, rng: np.random.Generator) -> None:
    flow, w = draw(case, rng)
    with fake_cuda():
        path = flow.trajectory(on_cuda(torch.from_numpy(w)), 2, case.dt)
        assert path.device.type == "cuda"
        assert path.shape == (4, 3, *flow.shape)
