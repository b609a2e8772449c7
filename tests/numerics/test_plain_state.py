"""Tensors that are no buffers: they go where the module goes, and nobody averages or broadcasts them."""

from __future__ import annotations

import copy
import pickle

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from constrained_nn import Box, EuclideanProjection, HardNetAffine
from constrained_nn.plain_state import PlainState
from constrained_nn.solvers import Status


class Scaled(PlainState):
    """`scale x`, with a count of calls."""

    scale: torch.Tensor
    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.keep("scale", torch.tensor([2.0, torch.inf]), saved=True)
        self.keep("calls", torch.zeros((), dtype=torch.int64), saved=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.scale * self.weight * x


def test_no_buffer_but_saved_and_loaded() -> None:
    module, other = torch.nn.Sequential(Scaled()), torch.nn.Sequential(Scaled())
    module[0].scale.fill_(5.0)
    assert not dict(module.named_buffers())
    assert sorted(module.state_dict()) == ["0.scale", "0.weight"]
    assert other.load_state_dict(module.state_dict()) == ([], [])
    assert torch.equal(other[0].scale, torch.tensor([5.0, 5.0]))
    incomplete = {"0.weight": torch.ones(2)}
    assert other.load_state_dict(incomplete, strict=False).missing_keys == ["0.scale"]


def test_moves_copies_and_pickles() -> None:
    module = torch.nn.Sequential(Scaled()).double()
    module(torch.ones(2).double())
    assert module[0].scale.dtype == torch.float64
    assert module[0].calls.dtype == torch.int64
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other[0].scale, module[0].scale)
        other(torch.ones(2).double())
        assert (int(module[0].calls), int(other[0].calls)) == (1, 2)
    module.to("meta")
    assert module[0].scale.is_meta
    assert module.to_empty(device="cpu")[0].calls == 0


def test_functional_call_replaces_them_for_one_call() -> None:
    module = Scaled()
    found = torch.func.functional_call(module, {"scale": torch.ones(2)}, (torch.ones(2),))
    assert torch.equal(found, torch.ones(2))
    assert module.scale[1].isinf()


def test_averaged_models_take_them_as_they_are() -> None:
    module = Scaled()
    for options in ({}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}):
        average = AveragedModel(module, use_buffers=True, **options)
        for _ in range(3):
            average.update_parameters(module)
        assert torch.equal(average.module.scale, module.scale)


def test_counts_are_plain_state_of_each_process() -> None:
    layer = HardNetAffine()
    assert not [*layer.buffers()]
    layer(torch.zeros(3, 1), Box(torch.ones(1), torch.zeros(1)))
    assert layer.counts[Status.INFEASIBLE] == 3
    assert copy.deepcopy(layer).counts[Status.INFEASIBLE] == 3
    assert EuclideanProjection().to("meta").counts.is_meta
