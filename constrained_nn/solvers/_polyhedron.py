"""Euclidean projection onto batched polyhedra."""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn.solvers._solution import Solution, Status


def project_polyhedron(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor) -> Solution:
    """Nearest point of `{y : lower <= A y <= upper}` (placeholder until the projection core lands: flags all)."""
    batch = y.shape[:-1]
    status = torch.full(batch, int(Status.SINGULAR), dtype=torch.int8, device=y.device)
    steps = torch.zeros(batch, dtype=torch.int32, device=y.device)
    return Solution(y, status, steps, torch.full(batch, torch.inf, dtype=y.dtype, device=y.device))
