"""Meta-training: models, regression, the closed loop, interruptions, rollouts that run away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from constrained_nn.control import AdaptiveController, PositiveDefinite, TanhFeatures
from constrained_nn.errors import ConvergenceError, FileFormatError
from constrained_nn.experiments.tables.adaptive.flight import flights, table
from constrained_nn.experiments.tables.adaptive.pfar import EXPERIMENT as PFAR
from constrained_nn.experiments.tables.adaptive.pvtol import EXPERIMENT as PVTOL
from constrained_nn.training import (
    ForceEnsemble,
    MetaConfig,
    descend,
    fit_ensemble,
    fit_ridge_features,
    meta_train,
)
from constrained_nn.training.meta.loop import split_pairs
from control_envs.dynamics import PlanarRotorcraft

SHORT = replace(PFAR, seconds=10.0)


@pytest.fixture(scope="module")
def data():
    """Two recorded flights of ten seconds."""
    return SHORT.data(0, 2)


def test_recorded_forces_are_those_of_the_wind(data):
    """The acceleration beyond the prior is the drag in the wind, to the second order of the step."""
    from constrained_nn.experiments.tables.adaptive.flight import DATA_SEED, chosen, winds
    from control_envs.disturbances import ScaledBeta

    wind = winds(chosen(0, 2), DATA_SEED, ScaledBeta(6.0, 5.0, 9.0))
    true = PlanarRotorcraft().force(0.0, data.x, wind[:, None])
    torch.testing.assert_close(data.acceleration, true, rtol=0.0, atol=3e-3)
    assert true.abs().max() > 0.3


def test_ensemble_learns_every_trajectory_on_its_own(data, tmp_path: Path):
    model, history = fit_ensemble(data, seed=1, epochs=60)
    error = (model(data.x) - data.acceleration).square().sum(-1).mean(-1)
    scale = data.acceleration.square().sum(-1).mean(-1)
    assert (error < 0.05 * scale).all()
    assert history.score[-1] < 0.1 * history.score[0]
    alone, _ = fit_ensemble(type(data)(data.x[:1], data.acceleration[:1]), seed=1, epochs=60)
    assert alone(data.x[:1]).isfinite().all()


def test_regression_finds_features(data):
    features = TanhFeatures(6, (8, 4), generator=torch.Generator().manual_seed(0))
    history = fit_ridge_features(features, data, seed=0, steps=60)
    assert min(history.score) < 0.2 * history.score[0]
    published = TanhFeatures(6, (8, 4), generator=torch.Generator().manual_seed(0))
    fit_ridge_features(published, data, seed=0, steps=60, unit=0.01, weight_decay=1.0)
    assert published(data.x).square().mean() < 0.5 * features(data.x).square().mean()  # they shrink


def problem(
    steps: int, *, segments: int = 1, force: float = 1.0, duration: float = 3.0, compiled: bool = False
):
    models = ForceEnsemble(4, 6, 3, seed=2).requires_grad_(False)
    with torch.no_grad():
        models.W0.mul_(5.0)
        models.W2.mul_(20.0 * force)
    generator = torch.Generator().manual_seed(3)
    prior = PlanarRotorcraft(drag_x=0.0, drag_y=0.0)
    gains = {name: PositiveDefinite.random(3, generator=generator) for name in "LKG"}
    controller = AdaptiveController(prior, TanhFeatures(6, (6, 5), generator=generator), **gains)
    config = MetaConfig(steps=steps, duration=duration, dt=0.15, segments=segments, compiled=compiled)
    spline = flights(range(4), 5, duration, (4, 4, 2), roll=0.7, order=2)

    def target(values):
        goal = values[..., :2, :].flatten(-2)
        return goal, torch.zeros_like(goal[..., :3])

    def train(**options):
        references = table(spline, config.dt, config.horizon, stages=2)
        given = {"target": target, "config": config, "settings": {"seed": 3}, **options}
        return meta_train(controller, prior, models, references, **given)

    return controller, train


def test_closed_loop_training_lowers_the_tracking_error():
    controller, train = problem(15)
    before = controller.gains()[1].detach().clone()
    history = train()
    assert len(history.score) == 16
    assert history.loss[-1] < 0.9 * history.loss[0]
    assert min(history.score) < 0.9 * history.score[0]
    assert sum(history.diverged) == 0
    assert (controller.gains()[1] - before).abs().max() > 0.01  # the gains learn too


def test_loss_and_score_are_those_of_the_simulated_rollouts(monkeypatch):
    """The cost written out over the recorded states and inputs, with an input to aim at that changes in time."""
    import constrained_nn.training.meta.loop as meta

    seen, simulate = [], meta._simulate

    def record(*args):
        x, u = simulate(*args)
        x = torch.cat([x[:-1], x[-1:].clone()])
        x[-1, 1, 2] = 1e9  # for training, and one for validation, run away
        x[-1, 3, 0] = -1e9
        seen.append((x.detach().numpy(), u.detach().numpy()))
        return x, u

    monkeypatch.setattr(meta, "_simulate", record)
    controller, train = problem(0)
    features = [p.detach().clone().numpy() for p in controller.features.parameters()]
    config = MetaConfig(steps=0, duration=3.0, dt=0.15, effort=0.3, weight_decay=0.7, divergence_cost=50.0)

    def target(values):
        aims.append(values.numpy())
        return values[..., :2, :].flatten(-2), values[..., 2, :]

    aims: list = []
    history = train(target=target, config=config)
    (x, u), values = seen[0], aims[0]
    goal, goal_input = values[..., :2, :].reshape(*values.shape[:-2], -1), values[..., 2, :]
    assert x.shape[:3] == goal.shape[:3] == (21, 4, 3)
    assert np.abs(np.diff(goal_input, axis=0)).max() > 0.1
    costs, tracked = np.zeros((4, 3)), np.zeros((4, 3))
    for m in range(4):
        for r in range(3):
            error = [np.sum((x[k, m, r] - goal[k, m, r]) ** 2) for k in range(21)]
            effort = sum(0.15 * np.sum((u[k, m, r] - goal_input[k, m, r]) ** 2) for k in range(20))
            tracked[m, r] = np.trapezoid(error, dx=0.15) / 3.0
            costs[m, r] = tracked[m, r] + 0.3 * effort / 3.0
    costs[1, 2] = tracked[3, 0] = 50.0
    squares = sum((p**2).sum() for p in features)
    expected = costs[:3].mean() + 0.7 * squares / (3.0 * 9)
    assert history.loss[0] == pytest.approx(expected, rel=1e-5)
    assert history.score[0] == pytest.approx(tracked[3, 0], rel=1e-5)  # one reference is for validation
    assert history.diverged[0] == 2


def test_recomputed_segments_give_the_same_training():
    stored, recomputed = problem(3), problem(3, segments=3)
    a, b = stored[1](), recomputed[1]()
    torch.testing.assert_close(torch.tensor(a.loss), torch.tensor(b.loss), rtol=1e-12, atol=0.0)


def test_only_segments_are_computed_twice(monkeypatch):
    import constrained_nn.training.meta.loop as meta

    calls, recompute = [], meta.recompute
    monkeypatch.setattr(meta, "recompute", lambda *a, **k: calls.append(a[1:3]) or recompute(*a, **k))
    problem(0)[1]()
    assert not calls
    problem(0, segments=3)[1]()
    assert calls == [(0, 7), (7, 7), (14, 6)]


@pytest.mark.untyped  # torch.compile
def test_compiled_step_gives_the_same_training(monkeypatch):
    """One graph without a break serves all steps; a backend without C++."""
    import constrained_nn.training.meta.loop as meta

    step = torch.compile(meta._step, backend="aot_eager", fullgraph=True, dynamic=False)
    monkeypatch.setattr(meta, "_compiled_step", lambda: step)
    plain, compiled = problem(2), problem(2, compiled=True)
    a, b = plain[1](), compiled[1]()
    torch.testing.assert_close(torch.tensor(a.loss), torch.tensor(b.loss), rtol=1e-10, atol=0.0)
    for p, q in zip(plain[0].parameters(), compiled[0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path):
    whole, train = problem(6)
    train()
    saved = tmp_path / "meta.safetensors"
    _, train = problem(6)

    class Stop(Exception):
        pass

    def stop(step, loss, score):
        if step == 4:
            raise Stop

    import constrained_nn.training.meta.loop as meta

    def often(*args, **kwargs):
        return descend(*args, every=2, **kwargs)

    keep, meta.descend = meta.descend, often
    try:
        with pytest.raises(Stop):
            train(checkpoint=saved, progress=stop)
        again, train = problem(6)
        history = train(checkpoint=saved)
    finally:
        meta.descend = keep
    assert len(history.loss) == 7
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    _, train = problem(7)
    with pytest.raises(FileFormatError, match="expected a checkpoint with the settings"):
        train(checkpoint=saved)


def test_rollouts_that_run_away_are_counted_and_cost_nothing_else():
    """Two of four models push so hard that no controller holds: the loss is finite, so are all gradients."""
    controller, train = problem(2, force=2e4)
    history = train()
    assert history.diverged[0] > 0
    assert all(torch.isfinite(torch.tensor(history.loss)))
    assert all(p.isfinite().all() for p in controller.parameters())


def test_pairs_never_mix_training_and_validation():
    for models, references in ((2, 10), (10, 10), (50, 10), (1, 4)):
        index, role = split_pairs(models, references)
        train, valid = index[role == 1], index[role == -1]
        assert not set(train.tolist()) & set(valid.tolist())
        rows = (role == 1).any(1) & (role == -1).any(1)
        assert not rows.any()
        if models == 10:
            assert int((role == 1).sum()) == 49
            assert int((role == -1).sum()) == 9


def test_descend_refuses_a_loss_that_is_not_finite():
    layer = torch.nn.Linear(1, 1)
    with pytest.raises(ConvergenceError, match="expected a finite loss"):
        descend(
            layer,
            lambda step: (layer.weight.sum() * torch.nan, torch.tensor(1.0), 0),
            steps=1,
            learning_rate=0.1,
            settings={},
        )


TINY = {"epochs": 1, "steps": 1, "ridge_steps": 5, "fair_steps": 2, "tests": 4, "seconds": 8.0}
TINY |= {"test_seconds": 0.5, "meta_dt": 0.1}


@pytest.mark.parametrize("experiment", [PFAR, PVTOL], ids=["pfar", "pvtol"])
def test_every_method_runs(experiment, tmp_path: Path):
    fast = replace(experiment.fast(), **TINY)
    for row in fast.rows:
        metrics = fast.run(row.name, 0, tmp_path / f"{row.name}-seed0")
        names = {column.name for column in fast.columns}
        assert metrics["diverged"] == 0.0
        assert metrics.get("violations", 0.0) == 0.0
        assert names & set(metrics)
        assert all(value >= 0.0 for value in metrics.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tests": 0}, "expected tests whole and at least 1, got 0"),
        ({"steps": -1}, "expected steps whole and at least 0, got -1"),
        pytest.param(
            {"epochs": 2.5},
            "expected epochs whole and at least 1, got 2.5",
            marks=pytest.mark.untyped,  # else the hook refuses it first
        ),
        ({"steps": True}, "expected steps whole and at least 0, got True"),
        ({"meta_dt": 0.0}, "expected meta_dt positive"),
        ({"meta_dt": 0.03}, "expected meta_dt positive and 5 s a whole number of steps of 0.03 s"),
        ({"seconds": -3.0}, "expected seconds positive"),
        ({"test_seconds": float("nan")}, "expected test_seconds positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        replace(PFAR, **settings)


@pytest.mark.parametrize(
    ("seed", "count", "words"),
    [(0, 0, "1 to 500 recorded flights"), (0, 501, "got 501"), (-1, 2, "a seed of at least 0")],
)
def test_flights_that_do_not_exist_are_refused(seed, count, words):
    with pytest.raises(ValueError, match=words):
        PFAR.record(seed, count)
