"""What every plant promises."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pytest
import torch

from constrained_nn.evidence.tracing import evaluate, program_of, trace_derivative
from control_envs.arrays import constant
from control_envs.checks import check_plant
from control_envs.dynamics import ControlAffine, Quantity, namespace, stack
from control_envs.simulate import RK4, Euler, rollout
from tests.cases import PlantCase, every
from tests.fake_cuda import fake_cuda, on_cuda

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked

BATCH = 5


def draw(case: PlantCase, rng: np.random.Generator, count: int = BATCH):
    plant = case.make()
    x = rng.uniform(-1, 1, (count, plant.state_dim)) * np.array(case.scale)
    u = rng.normal(size=(count, plant.input_dim))
    w = rng.normal(size=(count, len(plant.disturbance))) if plant.disturbance else None
    return plant, x, u, w


@every(PlantCase)
def test_derivative_is_that_of_the_oracle(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng, 50)
    zero = np.zeros(len(plant.disturbance))
    for disturbance in (w, None):
        found = plant.derivative(0.3, x, u, disturbance)
        for i in range(len(x)):
            expected = case.derivative(0.3, x[i], u[i], zero if disturbance is None else disturbance[i])
            np.testing.assert_allclose(found[i], expected, rtol=1e-12, atol=1e-12)


@every(PlantCase, where=lambda row: issubclass(row.kind, ControlAffine))
def test_drift_plus_actuation_times_input(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng)
    affine = plant.drift(0.0, x, w) + (plant.actuation(0.0, x) @ u[..., None])[..., 0]
    np.testing.assert_allclose(affine, plant.derivative(0.0, x, u, w), rtol=1e-12, atol=1e-12)


@every(PlantCase)
def test_numpy_equals_torch(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng)
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, u, w)]
    found = plant.derivative(0.0, *tensors)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), plant.derivative(0.0, x, u, w), rtol=1e-13, atol=1e-13)
    small = plant.derivative(0.0, *[None if t is None else t.float() for t in tensors])
    assert small.dtype == torch.float32


@every(PlantCase)
def test_batch_equals_loop(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng)
    for i in range(BATCH):
        single = plant.derivative(0.0, x[i], u[i], None if w is None else w[i])
        np.testing.assert_allclose(plant.derivative(0.0, x, u, w)[i], single, rtol=1e-13, atol=1e-13)


@every(PlantCase)
def test_poisoned_element_leaves_the_others_alone(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng)
    bad = torch.from_numpy(x).clone()
    bad[2] = torch.nan
    bad.requires_grad_()
    found = plant.derivative(0.0, bad, torch.from_numpy(u), None if w is None else torch.from_numpy(w))
    healthy = np.arange(BATCH) != 2
    expected = plant.derivative(0.0, x, u, w)[healthy]
    np.testing.assert_allclose(found.detach().numpy()[healthy], expected, rtol=1e-13, atol=1e-13)
    (gradient,) = torch.autograd.grad(found[torch.from_numpy(healthy)].sum(), bad)
    assert gradient[torch.from_numpy(healthy)].isfinite().all()


@every(PlantCase)
def test_gradients(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, _ = draw(case, rng, 2)
    hold = torch.from_numpy(u)
    inputs = [torch.from_numpy(a).requires_grad_() for a in ((x, u) if plant.input_dim else (x,))]
    assert torch.autograd.gradcheck(lambda x, u=hold: plant.derivative(0.0, x, u), inputs)
    assert torch.autograd.gradgradcheck(lambda x, u=hold: plant.derivative(0.0, x, u), inputs)


@every(PlantCase)
def test_integrators_have_their_order(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng)
    x = 0.3 * x
    hold = lambda t, x: u  # noqa: E731
    push = None if w is None else (lambda t, x: w)

    def end(integrator, steps: int) -> np.ndarray:
        path = rollout(plant, hold, x, dt=0.4 / steps, horizon=steps, integrator=integrator, disturbance=push)
        return path.x[:, -1]

    reference = end(RK4(substeps=16), 32)
    for integrator, order in ((Euler(), 1), (RK4(), 4)):
        coarse, fine = (np.abs(end(integrator, n) - reference).max() for n in (4, 8))
        # a plant whose motion the integrator solves exactly has nothing but rounding left
        assert fine < 1e-12 or np.log2(coarse / fine) > order - 0.3


@every(PlantCase)
def test_parameters_differ_between_elements(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng)
    for parameter in fields(plant):
        value = getattr(plant, parameter.name)
        if not isinstance(value, float):
            continue
        values = value * (1.0 + 0.1 * np.arange(BATCH))
        batched = replace(plant, **{parameter.name: values}).derivative(0.0, x, u, w)
        for i in range(BATCH):
            single = replace(plant, **{parameter.name: float(values[i])})
            expected = single.derivative(0.0, x[i], u[i], None if w is None else w[i])
            np.testing.assert_allclose(batched[i], expected, rtol=1e-13, atol=1e-13)


@every(PlantCase)
def test_names_and_units(case: PlantCase) -> None:
    plant = case.make()
    for table in (plant.state, plant.input, plant.disturbance):
        names = [quantity.name for quantity in table]
        assert len({*names}) == len(names)
        assert all(quantity.unit for quantity in table)
    assert len(case.scale) == plant.state_dim


@every(PlantCase)
def test_round_trips(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, w = draw(case, rng)
    as_json = json.loads(json.dumps(asdict(plant), default=lambda a: np.asarray(a).tolist()))
    as_json = {name: tuple(v) if isinstance(v, list) else v for name, v in as_json.items()}
    others = (pickle.loads(pickle.dumps(plant)), copy.deepcopy(plant), case.kind(**as_json))
    for other in others:
        assert np.array_equal(other.derivative(0.0, x, u, w), plant.derivative(0.0, x, u, w))


@pytest.mark.untyped
@every(PlantCase)
def test_no_hidden_synchronization(case: PlantCase, rng: np.random.Generator) -> None:
    plant, x, u, _ = draw(case, rng)
    with fake_cuda():
        state, push = on_cuda(torch.from_numpy(x)), on_cuda(torch.from_numpy(u))
        assert plant.derivative(0.0, state, push).device.type == "cuda"
        path = rollout(plant, lambda t, x: push, state, dt=0.01, horizon=2)
        assert path.x.device.type == "cuda"


def test_drift_and_actuation_are_enough() -> None:
    """The physics is written once: the derivative follows, in NumPy and torch, batched and traced."""

    @dataclass(frozen=True)
    class Cart(ControlAffine):
        mass: float = 2.0
        state = (Quantity("p", "m"), Quantity("v", "m/s"))
        input = (Quantity("F", "N"),)

        def drift(self, t, x, w=None, *, xp=None):
            return stack([x[..., 1], -0.1 * x[..., 1] ** 3], xp or namespace(x))

        def actuation(self, t, x, *, xp=None):
            return constant([[0.0], [1.0 / self.mass]], x, xp or namespace(x))

    check_plant(Cart())
    x, u = np.array([1.0, 2.0]), np.array([4.0])
    assert Cart().derivative(0.0, x, u).tolist() == [2.0, 2.0 - 0.8]
    program = program_of(trace_derivative(Cart()))
    assert np.allclose(evaluate(program, np.concatenate([x, u])[None])[0], [2.0, 1.2])
