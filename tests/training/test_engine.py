"""The one training loop: something of one's own trained by it, its log, and checkpoints of earlier loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from constrained_nn.errors import ConvergenceError, FileFormatError
from constrained_nn.files import read_tensors, write_tensors
from constrained_nn.training import LearningRate, Measurement, Schedule, Training, fit, run_training

X = torch.linspace(-1.0, 1.0, 12).double().unsqueeze(-1)


class Line(Training):
    """A line through x³, in two batches a step; counts the batches that it has seen."""

    name = "line"

    def __init__(self) -> None:
        self.module = nn.Linear(1, 1, dtype=torch.float64)
        nn.init.constant_(self.module.weight, -2.0)
        nn.init.constant_(self.module.bias, 1.0)
        self.seen = torch.zeros(1, dtype=torch.int64)

    def batches(self, step: int) -> Iterator[Measurement]:
        for part in X.split(6):
            self.seen += 1
            yield Measurement((self.module(part) - part**3).square().sum(), size=len(part))

    def validate(self, step: int) -> dict[str, float]:
        return {"slope": self.module.weight.item()}

    def counts(self) -> dict[str, torch.Tensor]:
        return {"seen": self.seen}


def train(line: Line, *, steps: int = 9, stop: int | None = None, every: int = 4, **options):
    def progress(step: int, record: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    schedule = Schedule(steps, LearningRate(0.1, 0.01, over=steps), every=every, max_gradient_norm=0.5)
    return run_training(line, schedule, settings={"steps": steps}, progress=progress, **options)


def test_own_training_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole = Line()
    history = train(whole)
    assert history.loss[-1] < history.loss[0]
    files = {"checkpoint": tmp_path / "c", "log": tmp_path / "log"}
    with pytest.raises(KeyboardInterrupt):
        train(Line(), stop=6, **files)
    resumed = Line()
    assert train(resumed, **files) == history
    assert torch.equal(resumed.module.weight, whole.module.weight)
    assert resumed.seen.item() == whole.seen.item() == 18
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 9]
    assert lines[-1]["slope"] == whole.module.weight.item()
    assert lines[-1]["loss"] == history.loss[-1]


def test_a_gradient_that_is_not_finite_stops() -> None:
    class Steep(Line):
        def batches(self, step: int) -> Iterator[Measurement]:
            yield Measurement((self.module(X) * 0.0).abs().sqrt().sum())  # slope of the root at 0

    with pytest.raises(ConvergenceError, match=r"line: expected a finite loss and gradient, got 0.0 and nan"):
        train(Steep())


def squares(checkpoint: Path, **options) -> tuple[list[float], nn.Module]:
    network = nn.Linear(1, 1, dtype=torch.float64)
    nn.init.constant_(network.weight, 2.0)
    nn.init.constant_(network.bias, 0.5)

    def stop(epoch: int, loss: float) -> None:
        if epoch == options.get("stop"):
            raise KeyboardInterrupt

    losses = fit(
        network,
        [X],
        lambda epoch, x: network(x).square().sum(),
        epochs=6,
        learning_rate=0.1,
        seed=0,
        every=2,
        checkpoint=checkpoint,
        settings={"power": 2},
        progress=stop,
    )
    return losses, network


@pytest.mark.parametrize("says_more", [True, False])
def test_supervised_checkpoint_of_the_former_loop_is_read(says_more: bool, tmp_path: Path) -> None:
    losses, whole = squares(tmp_path / "whole")
    path = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        squares(path, stop=4)
    tensors, about = read_tensors(path)
    settings = dict(about["settings"])
    more = settings.pop("more")
    former = {"epoch": about["step"], "losses": about["history"]["loss"], **settings}
    write_tensors(path, tensors, former | ({"more": more} if says_more else {}))
    again, network = squares(path)
    assert again == losses
    for a, b in zip(whole.parameters(), network.parameters(), strict=True):
        assert torch.equal(a, b)
    write_tensors(path, tensors, former | {"more": {"power": 3}})
    with pytest.raises(FileFormatError, match='"power": 3'):
        squares(path)
    write_tensors(path, tensors, former | {"losses": [1.0]})
    with pytest.raises(FileFormatError, match="one loss for each"):
        squares(path)
