"""Methods as objects: options, a method and a task of one's own, and their way through files."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from constrained_nn.control import SafetyFilter
from constrained_nn.errors import FileFormatError, UnknownNameError
from constrained_nn.files import read_tensors, read_values, write_tensors, write_values
from constrained_nn.layers import HardNetAffine, ProjectionLayer
from constrained_nn.training import (
    CBFQP,
    DC3,
    METHODS,
    HardNet,
    Method,
    Nominal,
    Soft,
    TrainConfig,
    Unconstrained,
    load_run,
    make_method,
    train,
    train_many,
)
from constrained_nn.training.closed_loop import new_run
from control_envs.tasks import DoubleIntegratorTask, UnicycleObstacles


@dataclass(frozen=True)
class Halfway(Method):
    """Goes a share of the way into the set, and pays for the rest."""

    share: float = 0.5
    layer: ClassVar[ProjectionLayer] = HardNetAffine()

    name: ClassVar[str] = "halfway"

    def decide(self, raw: Tensor, set, step: int | None = None) -> Tensor:
        return raw + self.share * (self.layer(raw, set) - raw)

    def penalty(self, raw: Tensor, y: Tensor, set, step: int | None = None) -> Tensor:
        return 0.1 * set.residual(y).square().sum(-1)


class Nearby(UnicycleObstacles):
    """A task of one's own."""

    name: ClassVar[str] = "nearby"
    summary: ClassVar[str] = "the same with a short horizon"
    horizon = 10


def settings(task=None, method=None, **changes) -> TrainConfig:
    few = {"steps": 2, "batch": 4, "eval_every": 1, "hidden": (8,), "learning_rate": 1e-3}
    return TrainConfig(task or Nearby(), method or Halfway(share=0.75), **few | changes)


def test_method_and_task_of_ones_own_train_and_are_read_back(tmp_path: Path) -> None:
    seen = {}
    run = train(settings(), tmp_path, progress=lambda step, record: seen.setdefault("own", record))
    raw = settings(method=Unconstrained())
    train(raw, tmp_path / "raw", progress=lambda step, record: seen.setdefault("raw", record))
    assert seen["own"]["loss"] > seen["own"]["cost"]  # the penalty
    assert seen["own"]["cost"] != seen["raw"]["cost"]  # the decision
    values = read_values(tmp_path / "config.json")
    assert values["method"] == "tests.training.test_methods:Halfway"
    assert values["task"] == "tests.training.test_methods:Nearby"
    assert values["options"] == {"share": 0.75}
    again = load_run(tmp_path)
    assert again.method == Halfway(share=0.75)
    assert isinstance(again.task, Nearby)
    x = torch.as_tensor(again.task.published_starts()["test"][:5])
    assert torch.equal(again.controller(0.0, x), run.controller(0.0, x))


@pytest.mark.once  # in another process
def test_method_of_ones_own_trains_in_processes(tmp_path: Path) -> None:
    train_many({"own": settings()}, tmp_path / "many", processes=1)
    train(settings(), tmp_path / "one")
    found, expected = (load_run(tmp_path / name).backbone for name in ("many/own", "one"))
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "method", [Soft(), Soft(warmup=3), DC3(step=1.0), HardNet(fade=2), CBFQP(), Nominal()]
)
def test_settings_go_through_json_and_pickle(method: Method) -> None:
    config = settings(UnicycleObstacles(alpha=7.0), method)
    values = config.to_json()
    assert (values["task"], values["task_options"]) == ("unicycle-obstacles", {"alpha": 7.0})
    for again in (TrainConfig.from_json(values), pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert again.method == method
        assert again.task.alpha == 7.0  # pyright: ignore[reportAttributeAccessIssue]
        assert again.to_json() == values


def test_defaults_are_not_written() -> None:
    values = settings(UnicycleObstacles(), Soft(weight=0.01)).to_json()
    assert values["options"] == {}
    assert "task_options" not in values


def test_what_no_file_could_name_is_refused_before_training(tmp_path: Path) -> None:
    class Local(Halfway):
        pass

    for method, words in (
        (Local(), "top of a module"),
        (HardNet(HardNetAffine()), "expected layer as a number"),
    ):
        with pytest.raises(TypeError, match=words):
            train(settings(method=method), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tests.nowhere:Halfway", "there is no module tests.nowhere"),
        ("tests.training.test_methods:Elsewhere", "unknown object 'Elsewhere'"),
        ("tests.training.test_methods:Nearby", "expected a method .Method., got the class Nearby"),
    ],
)
def test_foreign_method_that_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises((UnknownNameError, FileFormatError), match=f"{name}.*.*{words}"):
        make_method(name)
    with pytest.raises(TypeError, match=r"has no option 'weight'\. Its options: share"):
        make_method("tests.training.test_methods:Halfway", {"weight": 1.0})


def test_run_that_states_options_at_their_default_is_read(tmp_path: Path) -> None:
    train(settings(UnicycleObstacles(), Soft()), tmp_path)
    values = read_values(tmp_path / "config.json")
    write_values(tmp_path / "config.json", values | {"options": {"weight": 0.01}})
    tensors, _ = read_tensors(tmp_path / "policy.safetensors")
    write_tensors(
        tmp_path / "policy.safetensors", tensors, {"config": values | {"options": {"weight": 0.01}}}
    )
    assert load_run(tmp_path).method == Soft()


def test_layer_comes_in_along_the_closed_loop() -> None:
    method = HardNet(warmup=1, fade=1)
    run = new_run(Path(), settings(UnicycleObstacles(), method))
    x = torch.as_tensor(UnicycleObstacles().published_starts()["test"][:20])
    x[:, 3] += 4.0
    with torch.no_grad():
        for parameter in run.backbone.parameters():
            parameter.mul_(10.0)
        raw, off, half, on, end = (
            policy(0.0, x)
            for policy in (
                run.proposer,
                *(run.method.controller(run.proposer, run.condition, step) for step in (1, 2, 3)),
                run.controller,
            )
        )
    assert isinstance(run.controller, SafetyFilter)
    assert torch.equal(off, raw)
    torch.testing.assert_close(half, 0.5 * (raw + end))
    assert torch.equal(on, end)
    assert (raw - end).abs().max() > 1.0


def test_each_run_counts_its_own_layer() -> None:
    method = HardNet()
    runs = [new_run(Path(), settings(UnicycleObstacles(), method)) for _ in range(2)]
    layers = [run.controller.layer for run in runs]  # pyright: ignore[reportAttributeAccessIssue]
    assert layers[0] is not layers[1]
    assert method.enforcer not in layers


@pytest.mark.parametrize("method", [Nominal(), Soft()])
def test_tasks_without_a_barrier_have_runs_too(method: Method) -> None:
    """Their condition is built from the constraints."""
    run = new_run(Path(), settings(DoubleIntegratorTask(), method))
    assert run.safety.between_samples
    assert run.controller(0.0, torch.zeros(3, 2).double()).shape == (3, 1)


def test_names_are_those_of_the_table() -> None:
    assert all(make_method(name) == method for name, method in METHODS.items())
    assert all(method.summary for method in METHODS.values())
