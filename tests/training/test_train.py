"""Training: interruption and resumption, files, clear errors."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
import torch

from constrained_nn.errors import ConvergenceError, FileFormatError, UnknownNameError
from constrained_nn.training import (
    TrainConfig,
    evaluate,
    load_run,
    make_method,
    read_result,
    simulate,
    train,
    train_many,
)
from control_envs.errors import NonFiniteError, UnknownTaskError
from control_envs.tasks import UnicycleObstacles


def config(method: str = "hardnet", **changes) -> TrainConfig:
    settings = {"steps": 4, "batch": 20, "eval_every": 2, "hidden": (8,), "learning_rate": 1e-3}
    return TrainConfig("unicycle-obstacles", method, **{**settings, **changes})


class Interrupted(Exception):
    pass


def interrupt_at(last: int):
    def progress(step, record):
        if step == last:
            raise Interrupted

    return progress


@pytest.mark.parametrize("method", ["hardnet", "soft", "none", "dc3"])
def test_resumed_run_equals_uninterrupted_run(method, tmp_path):
    train(config(method), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config(method), tmp_path / "cut", progress=interrupt_at(3))
    train(config(method), tmp_path / "cut", resume=True)
    whole, cut = (load_run(tmp_path / name) for name in ("whole", "cut"))
    for a, b in zip(whole.backbone.parameters(), cut.backbone.parameters(), strict=True):
        assert torch.equal(a, b)
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert lines[0] == lines[1]
    results = [read_result(tmp_path / name)["metrics"] for name in ("whole", "cut")]
    for metrics in results:
        del metrics["policy_ms"]
    assert results[0] == results[1]


def test_training_lowers_the_cost(tmp_path):
    costs = []
    train(
        config(steps=12, batch=100, hidden=(50,)),
        tmp_path,
        progress=lambda step, record: costs.append(record["cost"]) if record else None,
    )
    assert costs[-1] < 0.97 * costs[0]


def test_hardnet_never_violates_whatever_the_weights(tmp_path):
    run = train(config(steps=1), tmp_path)
    with torch.no_grad():
        for parameter in run.backbone.parameters():
            parameter.mul_(30.0)
    task = UnicycleObstacles()
    metrics = evaluate(task, run.controller, task.published_starts()["test"][:20]).metrics
    assert metrics["rows_violated"] == 0


def test_other_settings_are_refused(tmp_path):
    train(config(), tmp_path)
    with pytest.raises(FileFormatError, match="found a run"):
        train(config(), tmp_path)
    with pytest.raises(FileFormatError, match="same settings, found others"):
        train(config(seed=2), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("policy.safetensors", lambda p: p.unlink(), "no such file"),
        ("policy.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-40]), "damaged"),
        ("policy.safetensors", lambda p: p.write_text("not a checkpoint"), "damaged"),
        ("config.json", lambda p: p.unlink(), "expected a run"),
        ("config.json", lambda p: p.write_text("{"), "damaged settings"),
        ("config.json", lambda p: p.write_text('{"task": "unicycle-obstacles"}'), "no \\['method'\\]"),
        ("config.json", lambda p: p.write_text(p.read_text().replace("8", "9")), "do not fit"),
    ],
)
def test_damaged_run_is_named(name, damage, message, tmp_path):
    train(config(steps=1), tmp_path)
    damage(tmp_path / name)
    with pytest.raises(FileFormatError, match=message):
        load_run(tmp_path)


def test_weights_with_nan_are_refused(tmp_path):
    from constrained_nn._tensor_files import write_tensors
    from constrained_nn.training._run import POLICY

    run = train(config(steps=1), tmp_path)
    weights = {n: torch.full_like(p, torch.nan) for n, p in run.backbone.state_dict().items()}
    write_tensors(tmp_path / POLICY, weights, {})
    with pytest.raises(FileFormatError, match="NaN"):
        load_run(tmp_path)


def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    train(config(steps=2), tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    (tmp_path / "config.json").write_text(json.dumps(config(steps=4).to_json()))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(config(steps=4), tmp_path, resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


def test_diverging_loss_stops_with_the_step(tmp_path):
    with pytest.raises(ConvergenceError, match="at step 2"):
        train(config("none", learning_rate=1e200), tmp_path)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'hardnet'"):
        make_method("hardnett")
    with pytest.raises(TypeError, match="Its options: weight"):
        make_method("soft", {"wieght": 1.0})
    with pytest.raises(UnknownTaskError, match="Did you mean 'unicycle-obstacles'"):
        train(TrainConfig("unicycle-obstacle", "hardnet"), "unused")


@pytest.mark.untyped
@pytest.mark.parametrize("bad", [{"steps": -1}, {"batch": 0}, {"learning_rate": 0.0}, {"dtype": "int8"}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=f"expected {next(iter(bad))}"):
        config(**bad)


@pytest.mark.untyped
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_start_state_is_named(value):
    task = UnicycleObstacles()
    starts = torch.as_tensor(task.published_starts()["test"][:3].copy())
    starts[1, 2] = value
    with pytest.raises(NonFiniteError, match=r"\[1, 2\] \(theta\)"):
        simulate(task, task.nominal, starts)


@pytest.mark.once  # in other processes
def test_runs_in_processes_equal_runs_in_this_one(tmp_path):
    configs = {"a": config(seed=1), "b": config("soft", seed=2)}
    seen = []
    train_many(configs, tmp_path / "many", progress=lambda name, step, record: seen.append(name))
    assert set(seen) == {"a", "b"}
    for name, one in configs.items():
        train(one, tmp_path / name)
        for a, b in zip(
            load_run(tmp_path / name).backbone.parameters(),
            load_run(tmp_path / "many" / name).backbone.parameters(),
            strict=True,
        ):
            assert torch.equal(a, b)
