"""Supervised training: strategies of enforcement, and runs that go on after an interruption."""

from __future__ import annotations

import pytest
import torch

from constrained_nn import Ball, Box, Completion, Halfspace, HardNetAffine, Intersection, Polyhedron
from constrained_nn.errors import ConvergenceError, FileFormatError, SetTypeError
from constrained_nn.sets import AffineSubspace
from constrained_nn.training import DC3, Completed, HardNet, Soft, Unconstrained, fit, make_backbone

SET = Box(torch.tensor([0.0]).double(), torch.tensor([1.0]).double())
RAW = torch.tensor([[-2.0], [0.5], [3.0]]).double()


def correct(**options) -> DC3:
    """With one step size for all, as published."""
    return DC3(normalized=False, **options)


def test_penalty_leaves_the_output_and_weighs_the_residual() -> None:
    method = Soft(weight=10.0)
    assert method.decide(RAW, SET, 1) is RAW
    assert method.penalty(RAW, RAW, SET).tolist() == [40.0, 0.0, 40.0]
    assert Soft(weight=10.0, warmup=2).penalty(RAW, RAW, SET, 2).tolist() == [0.0, 0.0, 0.0]
    assert Unconstrained().penalty(RAW, RAW, SET, 2).tolist() == [0.0, 0.0, 0.0]


def test_correction_steps_along_the_gradient() -> None:
    y = correct(corrections=1, step=0.2).decide(RAW, SET)
    torch.testing.assert_close(y, torch.tensor([[-1.6], [0.5], [2.6]]).double())
    many = correct(corrections=200, step=0.2, momentum=0.5).decide(RAW, SET)
    assert SET.violation(many).max() < 1e-6


def test_wrong_sign_pushes_into_lower_bounds_only() -> None:
    y = correct(corrections=1, step=0.2, wrong_lower_sign=True).decide(RAW, SET)
    torch.testing.assert_close(y, torch.tensor([[-2.4], [0.5], [2.6]]).double())


def test_correction_uses_the_rows() -> None:
    rows = Polyhedron(torch.tensor([[-2.0]]).double(), upper=torch.tensor([-2.0]).double())  # y >= 1
    y = correct(corrections=1, step=0.2).decide(torch.zeros(1, 1).double(), rows)
    assert y.item() == pytest.approx(0.1 * 2 * 2 * 2)


def test_layer_warms_up_and_fades_in() -> None:
    method = HardNet(HardNetAffine(), warmup=2, fade=1)
    assert [method.share(epoch) for epoch in (1, 2, 3, 4, None)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert method.decide(RAW, SET, 1) is RAW
    assert method.decide(RAW, SET, 3).flatten().tolist() == [-1.0, 0.5, 2.0]
    assert method.decide(RAW, SET).flatten().tolist() == [0.0, 0.5, 1.0]


def test_distance_penalty_has_a_gradient_where_the_residual_has_none() -> None:
    for weight, expected in ((0.0, 0.0), (3.0, -12.0)):
        raw = RAW[:1].clone().requires_grad_()
        method = HardNet(HardNetAffine(), weight=10.0, distance_weight=weight)
        method.penalty(raw, method.decide(raw, SET, 1), SET).sum().backward()
        assert raw.grad is not None
        assert raw.grad.item() == expected


def problem():
    network = make_backbone(2, 1, (8,), 3, torch.float64)
    network.insert(2, torch.nn.Dropout(0.2))
    x = torch.rand(23, 2, generator=torch.Generator().manual_seed(0)).double()
    return network, x, lambda epoch, batch: (network(batch) - batch.sum(-1, keepdim=True)).square().sum()


def train(epochs: int = 6, interrupt: int | None = None, **more):
    network, x, loss = problem()

    def progress(epoch: int, value: float) -> None:
        if epoch == interrupt:
            raise KeyboardInterrupt

    losses = fit(
        network, [x], loss, epochs=epochs, learning_rate=1e-2, seed=1, batch=5, progress=progress, **more
    )
    return losses, torch.cat([p.flatten() for p in network.parameters()])


def test_interrupted_and_resumed_is_identical(tmp_path) -> None:
    losses, weights = train()
    assert losses[-1] < losses[0]
    saved = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(interrupt=4, checkpoint=saved, every=2)
    again, resumed = train(checkpoint=saved, every=2)
    assert again == losses
    assert torch.equal(resumed, weights)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path) -> None:
    saved = tmp_path / "checkpoint.safetensors"
    train(checkpoint=saved)
    with pytest.raises(FileFormatError, match='"epochs": 7'):
        train(epochs=7, checkpoint=saved)


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(epochs=1)
    assert torch.equal(torch.rand(1), expected)


def test_a_loss_that_is_not_finite_stops() -> None:
    network, x, _ = problem()
    with pytest.raises(ConvergenceError, match="epoch 1"):
        fit(network, [x], lambda e, b: network(b).sum() * torch.inf, epochs=2, learning_rate=1.0, seed=0)


def test_completed_holds_the_equalities_and_corrects_the_rest() -> None:
    C = torch.tensor([[1.0, 1.0, 1.0]]).double()
    rows = Polyhedron(torch.cat([torch.eye(3).double()[:1], C]), upper=torch.tensor([1.0, 6.0]).double())
    rows = Polyhedron(rows.A, torch.tensor([-torch.inf, 6.0]).double(), rows.upper)
    strategy = Completed(
        complete=Completion(C, [0, 1]), free=correct(corrections=200, step=0.2, momentum=0.0)
    )
    y = strategy.decide(torch.tensor([[4.0, 2.0]]).double(), rows)
    torch.testing.assert_close(y, torch.tensor([[1.0, 2.0, 3.0]]).double(), rtol=0, atol=1e-6)
    parts = Intersection(Halfspace(rows.A[0], rows.upper[0]), AffineSubspace(C, rows.upper[1:]))
    assert torch.equal(strategy.decide(torch.tensor([[4.0, 2.0]]).double(), parts), y)  # pyright: ignore
    with pytest.raises(SetTypeError, match="Ball"):
        strategy.decide(torch.zeros(1, 2).double(), Ball(torch.zeros(3), torch.tensor(1.0)))
