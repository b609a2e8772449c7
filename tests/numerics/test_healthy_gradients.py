"""A healthy element has a finite derivative, whatever the branch that it does not take would divide by."""

from __future__ import annotations

import pytest
import torch

from constrained_nn import (
    Ball,
    BlendedProjection,
    Box,
    Ellipsoid,
    EuclideanProjection,
    Halfspace,
    HardNetAffine,
    L1Ball,
    PSDCone,
    RayProjection,
    SecondOrderCone,
    Simplex,
    SpectralEllipsoid,
    WeightedEllipsoid,
)
from constrained_nn.layers import AbsoluteGate
from constrained_nn.sets import map_tensors, tensors_of

LAYERS = (
    EuclideanProjection(),
    HardNetAffine(),
    RayProjection(),
    BlendedProjection(),
    BlendedProjection(gate=AbsoluteGate()),
)


def sets(dtype: torch.dtype) -> list:
    zeros, one = torch.zeros(3, dtype=dtype), torch.ones((), dtype=dtype)
    steps = torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    return [
        *(Ball(zeros, one), Ball(zeros, 0 * one), L1Ball(zeros, one)),
        *(Ellipsoid(zeros, torch.diag(steps), one), WeightedEllipsoid(zeros, steps, one)),
        SpectralEllipsoid(zeros, torch.ones(1, 2, dtype=dtype), one),
        *(SecondOrderCone(zeros, 0.5 * one), PSDCone(zeros)),
        *(Simplex(zeros, one), Simplex(zeros, 0 * one)),
        *(Halfspace(steps, one), Halfspace(zeros, one), Box(zeros - 1, zeros + 1)),
    ]


@pytest.mark.once
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivatives_are_finite_at_every_size(dtype: torch.dtype) -> None:
    """Also for the sum over a batch that mixes all sizes, with shared tensors."""
    narrow = dtype == torch.float32
    sizes = (
        (-42, -38, -30, -20, -15, -3, 0, 5, 15) if narrow else (-320, -300, -160, -155, -60, -8, 0, 20, 120)
    )
    offsets = torch.tensor([[0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    ways = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.3, -1.0, 0.7], [-1.0, 1e-30, 0]], dtype=torch.float64)
    scale = 10.0 ** torch.tensor(sizes, dtype=torch.float64)
    y = (offsets[:, None, None] + ways[:, None] * scale[:, None]).flatten(0, 2).to(dtype)
    for set in sets(dtype):
        for layer in LAYERS:
            if not isinstance(set, layer.accepts):
                continue
            leaf = y.clone().requires_grad_()
            own = map_tensors(set, lambda t, name, core: t.clone().requires_grad_())
            solution = layer.solve(leaf, own)
            assert solution.ok.all(), (layer, set, solution.describe_failures())
            slopes = torch.autograd.grad(solution.value.sum(), [leaf, *tensors_of(own)], allow_unused=True)
            for slope in slopes:
                assert slope is None or slope.isfinite().all(), (layer, set)
