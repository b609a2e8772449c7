"""Training: interruption and resumption, files, clear errors."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from constrained_nn.errors import ConvergenceError, FileFormatError, UnknownNameError
from constrained_nn.files import read_tensors, write_tensors, write_values
from constrained_nn.layers import HardNetAffine
from constrained_nn.training import (
    DC3,
    HardNet,
    MetaConfig,
    Sobolev,
    Soft,
    SoftDissipativity,
    TrainConfig,
    WorstStates,
    evaluate,
    load_run,
    make_method,
    read_result,
    simulate,
    train,
    train_many,
)
from constrained_nn.training.closed_loop.runs import CHECKPOINT, POLICY
from control_envs.errors import NonFiniteError
from control_envs.tasks import UnicycleObstacles


def config(method: str = "hardnet", options=None, **changes) -> TrainConfig:
    settings = {"steps": 4, "batch": 20, "eval_every": 2, "hidden": (8,), "learning_rate": 1e-3}
    return TrainConfig(UnicycleObstacles(), make_method(method, options), **{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, for copies of it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(config(), folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


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
        ("config.json", lambda p: p.write_text(p.read_text().replace("8", "9")), "digest does not match"),
        (
            "config.json",
            lambda p: p.write_text(p.read_text().replace('"digest"', '"digesu"')),
            "another name",
        ),
        (
            "config.json",
            lambda p: write_values(p, config(hidden=(9,)).to_json()),
            r'"hidden": \[9\]',
        ),
    ],
)
def test_damaged_run_is_named(name, damage, message, folder):
    damage(folder / name)
    with pytest.raises(FileFormatError, match=message):
        load_run(folder)


def test_weights_that_do_not_fit_are_refused(folder):
    weights, about = read_tensors(folder / POLICY)
    for bad, words in (
        ({n: torch.full_like(p, torch.nan) for n, p in weights.items()}, "NaN"),
        ({n: p.long() for n, p in weights.items()}, "torch.int64"),
        ({n: p.float() for n, p in weights.items()}, "torch.float32"),
        ({n: p[:1] for n, p in weights.items()}, "of shape"),
        (dict(list(weights.items())[:-1]), "do not fit"),
    ):
        write_tensors(folder / POLICY, bad, about)
        with pytest.raises(FileFormatError, match=words):
            load_run(folder)


def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        train(config(steps=4), tmp_path, progress=interrupt_at(3))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

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


def test_weights_that_end_infinite_are_not_kept(tmp_path):
    """The last step of Adam overflows, after a loss and a gradient that were finite."""
    with pytest.raises(ConvergenceError, match="expected finite weights"):
        train(config("none", steps=1, learning_rate=1e308), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]


def test_checkpoint_of_another_run_is_refused(tmp_path):
    train(config(), tmp_path / "a")
    for name, other, words in (
        ("seed", config(seed=2), '"seed": 2'),
        ("rate", config(learning_rate=1.0), '"learning_rate": 1.0'),
    ):
        train(other, tmp_path / name)
        shutil.copy(tmp_path / name / CHECKPOINT, tmp_path / "a" / CHECKPOINT)
        with pytest.raises(FileFormatError, match=words):
            train(config(), tmp_path / "a", resume=True)


@pytest.mark.parametrize("step", [0, -1, 5, 10**9, None, True, "4", 2.0])
def test_checkpoint_of_a_step_that_is_none_of_the_run_is_refused(step, folder):
    tensors, about = read_tensors(folder / CHECKPOINT)
    write_tensors(folder / CHECKPOINT, tensors, about | {"step": step})
    with pytest.raises(FileFormatError, match="of a step from 1 to 4"):
        train(config(), folder, resume=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("optimizer.0.exp_avg", lambda t: t[:1]),
        ("optimizer.0.exp_avg", lambda t: t.float()),
        ("optimizer.0.exp_avg", lambda t: t * torch.nan),
        ("optimizer.0.step", lambda t: t.long()),
        ("counts.0", lambda t: t.double()),
        ("weights.0.bias", lambda t: t.expand(2, -1)),
    ],
)
def test_checkpoint_whose_tensors_do_not_fit_is_refused(name, change, folder):
    tensors, about = read_tensors(folder / CHECKPOINT)
    write_tensors(folder / CHECKPOINT, tensors | {name: change(tensors[name])}, about)
    with pytest.raises(FileFormatError, match=r"fit|NaN"):
        train(config(), folder, resume=True)


@pytest.mark.parametrize(
    "name", ["config.json", "policy.safetensors", "checkpoint.safetensors", "result.json"]
)
def test_any_flipped_bit_is_noticed(name, folder):
    """In any place of a file: refused, or the values are the same as before (a blank that became another)."""
    read = {
        "config.json": lambda: load_run(folder),
        "policy.safetensors": lambda: load_run(folder),
        "checkpoint.safetensors": lambda: train(config(), folder, resume=True),
        "result.json": lambda: read_result(folder),
    }[name]
    content = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content), size=40).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        (folder / name).write_bytes(damaged)
        with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
            read()


def test_run_from_before_there_were_digests_is_read_with_a_note(folder):
    run = load_run(folder)
    result = read_result(folder)
    for name in ("config.json", "result.json"):
        values = json.loads((folder / name).read_text())
        del values["digest"]
        (folder / name).write_text(json.dumps(values))
    for name in (POLICY, CHECKPOINT):
        tensors, about = read_tensors(folder / name)
        save_file(tensors, folder / name, {"json": json.dumps(about)})
    with pytest.warns(UserWarning, match=r"policy\.safetensors has no digest"):
        loaded = load_run(folder)
    for a, b in zip(run.backbone.parameters(), loaded.backbone.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.warns(UserWarning, match=r"result\.json has no digest"):
        assert read_result(folder) == result
    with pytest.warns(UserWarning, match=r"checkpoint\.safetensors has no digest"):
        train(config(), folder, resume=True)


def test_checkpoint_of_the_former_loop_is_read(finished, tmp_path):
    with pytest.raises(Interrupted):
        train(config(), tmp_path, progress=interrupt_at(3))
    tensors, about = read_tensors(tmp_path / CHECKPOINT)
    former = {"step": about["step"], "config": about["settings"]}
    write_tensors(tmp_path / CHECKPOINT, tensors, former)
    train(config(), tmp_path, resume=True)
    for a, b in zip(
        load_run(finished).backbone.parameters(), load_run(tmp_path).backbone.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert read_tensors(tmp_path / CHECKPOINT)[1]["history"]["loss"][:2] == [None, None]


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "result.json").write_text("mine")
    with pytest.raises(FileFormatError, match=r"no file of the name result\.json"):
        train(config(), tmp_path)
    assert (tmp_path / "result.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "policy.safetensors"])
def test_pipe_in_place_of_a_file_is_refused(name, folder):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(FileFormatError, match="an ordinary file"):
        load_run(folder)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'hardnet'"):
        make_method("hardnett")
    with pytest.raises(TypeError, match="Its options: weight"):
        make_method("soft", {"wieght": 1.0})
    with pytest.raises(UnknownNameError, match="Did you mean 'unicycle-obstacles'"):
        TrainConfig.from_json({"task": "unicycle-obstacle", "method": "hardnet"})


@pytest.mark.untyped
@pytest.mark.parametrize("name", [f.name for f in fields(TrainConfig)])
def test_settings_without_a_meaning_are_refused(name):
    """Every field refuses what is no value of it, with its own name, and a remedy where it is a number."""
    counts, rates = (
        [-1, 2**63, 1.5, 1e9, True, None, "1", np.nan],
        [0.0, -1.0, np.inf, np.nan, 10**400, True, "1"],
    )
    bad = {
        "steps": counts,
        "seed": counts,
        "batch": [0, *counts],
        "eval_every": [0, *counts],
        "horizon": [0, *(v for v in counts if v is not None)],
        "from_nominal": [1, None, "yes"],
        "gains": [3.0, {"wall": 2.0}, {"wall": ("fast",)}, {"wall": (np.nan,)}],
        "learning_rate": [None, *rates],
        "final_learning_rate": rates[1:],
        "max_gradient_norm": rates,
        "max_adjoint_norm": rates,
        "hidden": [(-1,), (0,), (8, -1), (8.0,), (True,), (10**9,), 8, "88", None],
        "dtype": ["int8", "float16", None, 64],
        "task": [None, 3, "unicycle-obstacles", UnicycleObstacles],
        "method": [None, 3, "hardnet", HardNet],
    }[name]
    for value in bad:
        with pytest.raises((ValueError, TypeError), match=f"TrainConfig: expected .*{name}.* got ") as error:
            TrainConfig(**{"task": UnicycleObstacles(), "method": HardNet(), name: value})
        if name not in ("dtype", "task", "method"):
            assert "Give" in str(error.value)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            MetaConfig,
            {},
            {"steps": -1, "duration": 0.0, "dt": np.inf, "effort": -1.0, "weight_decay": np.nan},
        ),
        (MetaConfig, {}, {"learning_rate": np.inf, "divergence_cost": -1.0, "segments": 0}),
        (partial(make_method, "soft"), None, {"weight": -1.0, "warmup": -1}),
        (partial(make_method, "hardnet"), None, {"distance_weight": np.nan}),
        (
            partial(make_method, "dc3"),
            None,
            {"corrections": -1, "step": 0.0, "momentum": 1.0, "weight": np.inf},
        ),
        (partial(make_method, "dc3"), None, {"normalized": 2.0, "warmup": 0.5}),
        (Soft, {}, {"weight": -1.0}),
        (DC3, {}, {"weight": np.nan, "corrections": -1, "step": np.inf, "momentum": -0.1}),
        (partial(HardNet, HardNetAffine()), {}, {"warmup": -1, "fade": 0.5, "distance_weight": np.inf}),
        (HardNet, {}, {"layer": 3.0, "factor": 1.0, "weight": -1.0}),
        (Sobolev, {"shape": (8,)}, {"order": -1.0, "cutoff": 0.0, "shape": (0,)}),
        (SoftDissipativity, {"inner": 1.0, "outer": 2.0}, {"inner": 0.0, "outer": 0.5, "weight": np.nan}),
        (partial(WorstStates, (np.zeros(1), np.ones(1))), {}, {"count": 0, "pool": 10, "every": 0}),
    ],
)
def test_other_settings_without_a_meaning_are_refused(kind, good, bad):
    kind({}) if good is None else kind(**good)
    for name, value in bad.items():
        with pytest.raises((ValueError, TypeError), match=f"expected .*{name}"):
            kind({name: value}) if good is None else kind(**{**good, name: value})


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
