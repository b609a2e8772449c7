"""What is minimized, and how: each number of a training against the same number in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from constrained_nn.errors import ConvergenceError
from constrained_nn.training import (
    DC3,
    ForceData,
    MethodController,
    Samples,
    TrainConfig,
    WorstStates,
    barrier_of,
    descend,
    dynamics_loss,
    evaluate,
    fit,
    fit_ensemble,
    fit_ridge_features,
    make_method,
    sample_dynamics,
    train,
)
from constrained_nn.training.closed_loop import new_run
from constrained_nn.training.closed_loop.loop import ClosedLoop, schedule_of
from constrained_nn.training.meta import force_data
from constrained_nn.training.methods.base import running_excess
from constrained_nn.training.supervised.loop import Fit
from control_envs.dynamics import DoubleIntegrator
from control_envs.tasks import UnicycleObstacles

# small doubles stand in for models and controllers, which the checker of annotations does not take
pytestmark = pytest.mark.untyped

TASK = UnicycleObstacles()


def config(method: str = "hardnet", options=None, **changes) -> TrainConfig:
    settings = {"steps": 1, "batch": 6, "eval_every": 1, "hidden": (8,), "learning_rate": 1e-3}
    return TrainConfig(TASK, make_method(method, options), **{**settings, **changes})


def states(count: int) -> torch.Tensor:
    """Start states, moved towards the obstacles, where rows are violated."""
    x = torch.as_tensor(TASK.published_starts()["test"][:count].copy())
    x[:, 3] += 4.0
    return x


def rows(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The barrier rows `A u <= b` in NumPy."""
    condition = barrier_of(TASK).condition(0.0, x)
    assert condition.lower.isinf().all()
    return condition.A.numpy(), condition.upper.numpy()


# --- methods ---


def test_penalty_on_rows_is_their_squared_excess(rng):
    x, u = states(30), 300.0 * rng.standard_normal((30, 2))
    A, b = rows(x)
    expected = [0.3 * sum(max(0.0, r) ** 2 for r in A[i] @ u[i] - b[i]) for i in range(30)]
    found = running_excess(0.3, barrier_of(TASK).condition)["rows"](0.0, x, torch.from_numpy(u))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert min(expected) == 0.0
    assert max(expected) > 1.0


@pytest.mark.parametrize("name", ["soft", "dc3"])
def test_penalty_begins_after_the_warmup(name):
    method = make_method(name, {"warmup": 3, "weight": 2.0})
    run = new_run("unused", config(name))
    found = [method.penalties(run.proposer, run.condition, step) for step in (1, 3, 4, 9)]
    assert [len(each) for each in found] == [0, 0, 1, 1]
    x, u = states(5), torch.full((5, 2), 900.0).double()
    found = found[2]["rows"](0.0, x, u)
    torch.testing.assert_close(found, running_excess(2.0, barrier_of(TASK).condition)["rows"](0.0, x, u))
    assert found.max() > 0.0


def test_distance_penalty_is_the_squared_way_into_the_set():
    run = new_run("unused", config(options={"distance_weight": 2.5}))
    x = states(20)
    with torch.no_grad():
        for parameter in run.backbone.parameters():
            parameter.mul_(10.0)
        u = run.controller(0.0, x)
        raw = TASK.nominal(0.0, x) + run.backbone(TASK.features(0.0, x))
        found = run.method.penalties(run.proposer, run.condition, 1)["distance"](0.0, x, u)
    expected = 2.5 * ((u - raw) ** 2).sum(-1)
    torch.testing.assert_close(found, expected)
    assert expected.max() > 0.1
    assert make_method("hardnet").penalties(run.proposer, run.condition, 1) == {}


def test_training_minimizes_the_cost_and_the_weighted_penalty(tmp_path):
    """The loss beyond the cost is linear in the weight, and the first step of Adam goes another way."""
    seen, weights = {}, {}
    for weight in (0.0, 1.0, 3.0):
        options = {"distance_weight": weight}
        run = train(
            config(options=options),
            tmp_path / str(weight),
            progress=lambda step, record, w=weight: seen.update({w: record}),
        )
        weights[weight] = torch.cat([p.detach().flatten() for p in run.backbone.parameters()])
    beyond = {w: record["loss"] - record["cost"] for w, record in seen.items()}
    assert beyond[0.0] == pytest.approx(0.0, abs=1e-9 * seen[0.0]["cost"])
    assert beyond[1.0] > 0.0
    assert beyond[3.0] == pytest.approx(3.0 * beyond[1.0], rel=1e-6)
    assert seen[3.0]["cost"] == pytest.approx(seen[0.0]["cost"], rel=1e-12)
    assert (weights[3.0] - weights[0.0]).abs().max() > 1e-4


def test_dc3_descends_on_the_violated_rows(rng):
    x = states(12)
    A, b = rows(x)

    class Constant(nn.Module):
        def forward(self, t, x):
            return torch.full((len(x), 2), 600.0, dtype=x.dtype)

    for normalized in (False, True):
        method = DC3(corrections=3, step=0.1, momentum=0.5, normalized=normalized)
        dc3 = MethodController(Constant(), barrier_of(TASK).condition, method)  # pyright: ignore[reportArgumentType]
        assert (np.einsum("kij,j->ki", A, np.full(2, 600.0)) > b).any()
        for i, found in enumerate(dc3(0.0, x).numpy()):
            y, change = np.full(2, 600.0), np.zeros(2)
            step = 0.1 / (A[i] ** 2).sum() if normalized else 0.1
            for _ in range(3):
                change = A[i].T @ np.maximum(A[i] @ y - b[i], 0.0) + 0.5 * change
                y = y - step * change
            np.testing.assert_allclose(found, y, rtol=1e-9)


# --- the loop ---


def test_batches_are_each_epoch_once_and_shuffled():
    starts = TASK.published_starts()["train"]
    size = math.ceil(len(starts) / 7)
    loop = ClosedLoop(new_run("unused", config(batch=size, seed=5)))
    epochs = [np.concatenate([loop.starts(7 * e + k).numpy() for k in range(1, 8)]) for e in range(2)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), np.unique(starts, axis=0))
        assert len(epoch) == len(starts)
    assert not np.array_equal(*epochs)


def test_rate_follows_a_half_cosine():
    rate = schedule_of(config(steps=11, learning_rate=0.4, final_learning_rate=0.1)).rate
    found = [rate.at(step) for step in (1, 6, 11)]
    assert found[0] == pytest.approx(0.4, rel=0.1)
    assert found[0] > found[1] > found[2] >= 0.1
    assert found[2] == pytest.approx(0.1, rel=0.1)
    assert {schedule_of(config(steps=11)).rate.at(step) for step in (1, 6, 11)} == {1e-3}


def test_adjoint_of_each_run_is_clipped_on_its_own():
    run = new_run("unused", config("none", max_adjoint_norm=2.0))
    x = states(2).requires_grad_()
    state = x * 1.0
    ClosedLoop(run).policy(1)(0.0, state)
    (state * torch.tensor([[100.0], [0.1]])).sum().backward()
    plain = torch.full_like(x, 0.1)[1:]
    torch.testing.assert_close(x.grad[1:], plain)
    assert x.grad[0].norm().item() == pytest.approx(2.0)


def test_metrics_are_those_of_the_trajectory():
    """With one sub-step a control interval all that is measured is in the trajectory."""

    class Plain(UnicycleObstacles):
        substeps = None  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    task = Plain()
    run = new_run("unused", config("none"))
    found = evaluate(task, run.controller.double(), states(9))
    trajectory, metrics = found.trajectory, found.metrics
    x, u = trajectory.x.numpy(), trajectory.u.numpy()
    worst, collided, least = -np.inf, 0, np.inf
    over = []
    for i in range(9):
        excess = []
        for k in range(u.shape[-2]):
            A, b = rows(torch.from_numpy(x[i, k]))
            value = A @ u[i, k] - b
            worst = max(worst, (value / (np.abs(A) @ np.abs(u[i, k]) + np.abs(b))).max())
            excess.append(np.maximum(value, 0.0))
        over.append(task.dt * np.sum(excess, 0))
        g = max(float(np.max(np.asarray(c.g(0.0, x[i], u[i, :1])))) for c in task.constraints)
        collided, least = collided + (g > 0), min(least, -g)
    assert metrics["worst_row"] == pytest.approx(worst, rel=1e-9)
    assert metrics["collisions"] == collided
    assert metrics["margin"] == pytest.approx(least, rel=1e-9)
    assert metrics["max_violation"] == pytest.approx(np.max(over, 1).mean(), rel=1e-6)
    assert metrics["mean_violation"] == pytest.approx(np.mean(over), rel=1e-6)
    assert metrics["violated"] == pytest.approx((np.array(over) > 1e-4).sum(1).mean())
    assert metrics["incomplete"] == 0
    assert metrics["runs"] == 9


# --- descents ---


def test_descent_is_adam_with_a_falling_rate_and_keeps_the_best():
    """Adam written out for one number; the score is least at step 3 of 6."""
    module = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(module.weight, 2.0)
    seen = []

    def evaluation(step):
        w = module.weight.squeeze()
        seen.append(w.item())
        return (w - 1.0) ** 2, torch.tensor(abs(step - 3.0)), 0

    history = descend(module, evaluation, steps=6, learning_rate=0.3, final_learning_rate=0.1, settings={})
    w, first, second, expected = 2.0, 0.0, 0.0, [2.0]
    for k in range(6):
        rate = 0.1 + (0.5 + 0.5 * math.cos(math.pi * k / 6)) * 0.2
        slope = 2.0 * (w - 1.0)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        w -= rate * (first / (1 - 0.9 ** (k + 1))) / (math.sqrt(second / (1 - 0.999 ** (k + 1))) + 1e-8)
        expected.append(w)
    np.testing.assert_allclose(seen, expected, rtol=1e-9)
    np.testing.assert_allclose(history.loss, [(w - 1.0) ** 2 for w in expected], rtol=1e-9)
    assert history.score == [3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0]
    assert module.weight.item() == pytest.approx(expected[3], rel=1e-12)


def test_descent_checkpoints_at_every_so_manieth_step(tmp_path, monkeypatch):
    import constrained_nn.training.checkpoint as place

    steps = []
    monkeypatch.setattr(place, "write_tensors", lambda path, tensors, about: steps.append(about["step"]))
    module = nn.Linear(1, 1)
    loss = lambda step: (module.weight.square().sum(), torch.tensor(1.0), 0)  # noqa: E731
    descend(module, loss, steps=7, learning_rate=0.1, settings={}, checkpoint=tmp_path / "c", every=3)
    assert steps == [3, 6, 8]


@pytest.mark.parametrize("every", [1, 2, 100])
def test_weights_that_overflow_in_the_last_step_are_refused(every, tmp_path):
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(network.weight, -1e308)
    options = {"epochs": 1, "learning_rate": 1.7e308, "seed": 0, "every": every}
    data = [torch.ones(1, 1).double()]
    with pytest.raises(ConvergenceError, match="fit: epoch 1: expected finite weights"):
        fit(network, data, lambda epoch, x: network(x).sum(), checkpoint=tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_fit_checkpoints_at_every_so_manieth_epoch(tmp_path, monkeypatch):
    import constrained_nn.training.checkpoint as place

    epochs, network = [], nn.Linear(1, 1)
    monkeypatch.setattr(place, "write_tensors", lambda path, tensors, about: epochs.append(about["step"]))
    options = {"epochs": 7, "learning_rate": 0.1, "seed": 0, "every": 3}
    data = [torch.ones(4, 1)]
    fit(network, data, lambda e, x: network(x).square().sum(), checkpoint=tmp_path / "c", **options)
    assert epochs == [3, 6, 7]
    fit(network, data, lambda e, x: network(x).square().sum(), **options)
    assert epochs == [3, 6, 7]


def test_fit_is_adam_on_clipped_gradients_with_a_falling_rate():
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(network.weight, 5.0)
    seen = []

    def loss(epoch, x):
        seen.append(network.weight.item())
        return ((network(x) - x) ** 2).sum()

    x = torch.tensor([[1.0], [2.0]]).double()
    options = {"learning_rate": 0.3, "final_learning_rate": 0.1, "max_norm": 1.0}
    losses = fit(network, [x], loss, epochs=5, seed=0, **options)
    w, first, second, expected = 5.0, 0.0, 0.0, []
    for k in range(5):
        expected.append(w)
        slope = 2.0 * (w - 1.0) * 5.0
        slope *= min(1.0, 2.0 / (abs(slope) + 1e-6))  # of the sum over two samples
        rate = 0.1 + (0.5 + 0.5 * math.cos(math.pi * k / 5)) * 0.2
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        w -= rate * (first / (1 - 0.9 ** (k + 1))) / (math.sqrt(second / (1 - 0.999 ** (k + 1))) + 1e-8)
    np.testing.assert_allclose(seen, expected, rtol=1e-7)
    np.testing.assert_allclose(losses, [(w - 1.0) ** 2 * 5.0 / 2.0 for w in expected], rtol=1e-6)


def test_batches_of_a_fit_are_all_samples_once():
    data, network = [torch.ones(11, 1)], nn.Linear(1, 1)
    fits = Fit(network, data, lambda epoch, x: x.sum(), batch=4, seed=3)
    parts = fits.order(1)
    assert sorted(torch.cat(list(parts)).tolist()) == list(range(11))
    assert [len(part) for part in parts] == [4, 4, 3]
    again, later = fits.order(1), fits.order(2)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not torch.equal(parts[0], later[0])


# --- models of forces and of dynamics ---


def test_forces_beyond_the_prior_are_exact_for_constant_ones():
    """A double integrator pushed by u + f: its velocity is linear in time, so that differences are exact."""
    dt, force = 0.1, torch.tensor([0.7, -0.4]).double()
    plant = DoubleIntegrator()
    x0 = torch.tensor([[1.0, 0.5], [0.0, -1.0]]).double()
    u = torch.tensor([[2.0] * 8, [-1.0] * 8]).double().unsqueeze(-1)
    mass = plant.derivative(0.0, x0, u[:, 0])[:, 1] / u[:, 0, 0]
    a = u[:, 0, 0] * mass + force
    t = dt * torch.arange(9).double()
    position = x0[:, :1] + x0[:, 1:] * t + 0.5 * a[:, None] * t**2
    x = torch.stack([position, x0[:, 1:] + a[:, None] * t], -1)
    for held, count in ((True, 8), (False, 7)):
        data = force_data(plant, x, u, dt, held=held)
        torch.testing.assert_close(data.acceleration, force[:, None, None].expand(2, count, 1))
        torch.testing.assert_close(data.x, (0.5 * (x[:, 1:] + x[:, :-1]))[:, :count])


def test_inputs_that_are_not_held_count_at_the_middle():
    """An input that grows evenly: between two samples its mean acts."""
    dt, plant = 0.1, DoubleIntegrator()
    u = torch.arange(6).double().reshape(1, 6, 1)
    x = torch.zeros(1, 7, 2).double()
    found = force_data(plant, x, u, dt, held=False)
    gain = plant.derivative(0.0, x[:, 0], torch.ones(1, 1).double())[0, 1]
    torch.testing.assert_close(found.acceleration.flatten(), -gain * (torch.arange(5).double() + 0.5))


@pytest.fixture
def forces(generator) -> ForceData:
    x = torch.randn(2, 24, 3, generator=generator, dtype=torch.float64)
    return ForceData(x, torch.sin(x[..., :2]) + 0.5 * x[..., 1:])


def test_split_is_three_quarters_and_the_rest(forces):
    few, rest = forces.split(4)
    assert (few.x.shape[1], rest.x.shape[1]) == (18, 6)
    both = torch.cat([few.x, rest.x], 1)
    torch.testing.assert_close(both.sort(1).values, forces.x.sort(1).values)
    torch.testing.assert_close(few.acceleration, torch.sin(few.x[..., :2]) + 0.5 * few.x[..., 1:])


def test_ensemble_minimizes_the_squared_error_of_its_batch(forces):
    batches, decay = 3, 0.5
    start = fit_ensemble(forces, seed=2, epochs=0, weight_decay=decay)[0]
    _, history = fit_ensemble(
        forces, seed=2, epochs=1, batches=batches, weight_decay=decay, learning_rate=1e-12
    )
    few, rest = forces.split(2)
    size = 18 // batches
    for step in range(batches):
        order = torch.randperm(18, generator=torch.Generator().manual_seed(2_000_006))
        part = order[step * size : (step + 1) * size]
        error = (start(few.x[:, part]) - few.acceleration[:, part]).numpy()
        squares = sum(float((p**2).sum()) for p in start.parameters())
        expected = (error**2).sum(-1).mean(-1).sum() + decay / size * squares
        assert history.loss[step] == pytest.approx(expected, rel=1e-6)
        score = ((start(rest.x) - rest.acceleration).numpy() ** 2).sum(-1).mean()
        assert history.score[step] == pytest.approx(score, rel=1e-6)


@pytest.mark.parametrize("directed", [False, True])
def test_ridge_features_are_judged_by_their_regression(forces, directed, generator):
    """Loss and score of the first step, by least squares on an augmented system."""
    features = nn.Linear(3, 4, dtype=torch.float64)
    unit, decay, ridge = 0.2, 0.7, 1e-2
    B = torch.linalg.qr(torch.randn(2, 1, generator=generator, dtype=torch.float64))[0]
    directions = (lambda x: B.expand(*x.shape[:-1], 2, 1)) if directed else None
    few, rest = forces.split(3)
    quarter = torch.randperm(18, generator=torch.Generator().manual_seed(4))[:4]
    aim, held = (p.acceleration @ B if directed else p.acceleration for p in (few, rest))
    losses, scores = [], []
    with torch.no_grad():
        y, z = features(few.x).numpy(), features(rest.x).numpy()
        squares = sum(float((p**2).sum()) for p in features.parameters())
    for i in range(2):
        A = np.vstack([unit * y[i, quarter], math.sqrt(ridge) * np.eye(4)])
        b = np.vstack([unit * aim[i, quarter].numpy(), np.zeros((4, aim.shape[-1]))])
        last = np.linalg.lstsq(A, b, rcond=None)[0]
        losses.append(unit**2 * ((y[i] @ last - aim[i].numpy()) ** 2).sum(-1))
        scores.append(unit**2 * ((z[i] @ last - held[i].numpy()) ** 2).sum(-1))
    history = fit_ridge_features(
        features, forces, seed=3, steps=1, unit=unit, weight_decay=decay, ridge=ridge, directions=directions
    )
    assert history.loss[0] == pytest.approx(np.mean(losses) + decay / 36 * squares, rel=1e-8)
    assert history.score[0] == pytest.approx(np.mean(scores), rel=1e-8)


def test_samples_are_uniform_in_their_boxes():
    plant = DoubleIntegrator()
    boxes = (np.array([-1.0, 2.0]), np.array([1.0, 5.0])), (np.array([-0.5]), np.array([0.25]))
    found = sample_dynamics(plant, *boxes, count=400, seed=1)
    for values, (low, high) in zip((found.x, found.u), boxes, strict=True):
        assert (values.numpy() >= low).all()
        assert (values.numpy() <= high).all()
        np.testing.assert_allclose(values.mean(0), 0.5 * (low + high), atol=0.15 * (high - low).max())
    expected = plant.derivative(0.0, found.x.numpy(), found.u.numpy())
    np.testing.assert_array_equal(found.velocity.numpy(), expected)


class Model(nn.Module):
    """What `dynamics_loss` asks of a CoILS, in closed form: velocity `a x + u`, correction `b x²`."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        self.b = nn.Parameter(torch.tensor(0.3).double())

    def forward(self, x, u):
        return self.model(x) + u

    def correction(self, x):
        return self.b * x**2 + 0.0 * self.model(x)


def test_loss_of_dynamics_is_the_fit_and_the_mean_correction():
    model, scale = Model(), torch.tensor([2.0, 4.0]).double()
    model.model = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    x, u, velocity = (
        torch.randn(5, 2, generator=torch.Generator().manual_seed(i)).double() for i in range(3)
    )
    a = model.model.weight.detach().numpy()
    error = (x.numpy() @ a.T + u.numpy() - velocity.numpy()) / scale.numpy()
    shift = 0.3 * x.numpy() ** 2 / scale.numpy()
    for penalty in (0.0, 2.0):
        loss = dynamics_loss(model, scale, penalty)(1, *Samples(x, u, velocity))  # pyright: ignore
        assert loss.item() == pytest.approx(
            (error**2).mean(-1).sum() + penalty * 5 * (shift**2).mean(), rel=1e-6
        )


def test_worst_states_are_in_the_box_and_drawn_again_in_time():
    """Of `b x²` in units of the scale the largest states are the worst; drawn after `every` steps and each epoch."""
    low, high = np.array([1.0, -3.0]), np.array([2.0, -1.0])
    worst, scale = WorstStates((low, high), count=3, pool=40, every=2), torch.tensor([1.0, 100.0]).double()
    model = Model()
    model.model = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = worst.draw(model, scale).numpy()  # pyright: ignore[reportArgumentType]
        torch.manual_seed(0)
        pool = low + (high - low) * torch.rand(40, 2, dtype=torch.float64).numpy()
    np.testing.assert_allclose(
        np.sort(drawn[:, 0]), np.sort(pool[:, 0])[-3:]
    )  # the second state hardly counts
    calls = []
    correction = model.correction
    model.correction = lambda x: calls.append(x.detach().numpy()) or correction(x)  # pyright: ignore
    loss = dynamics_loss(model, scale, 1.0, worst)  # pyright: ignore[reportArgumentType]
    batch = (torch.ones(2, 2).double(),) * 3
    kept = []
    for epoch in (1, 1, 1, 1, 2, 2):
        loss(epoch, *batch)
        kept.append(calls[-1][2:])
        assert kept[-1].shape == (3, 2)
    new = [k == 0 or not np.array_equal(kept[k], kept[k - 1]) for k in range(6)]
    assert new == [True, False, True, False, True, False]
