"""Minimum-norm solves with dependent rows, against the pseudo-inverse of the rows that are kept."""

from __future__ import annotations

import pytest
import torch

from constrained_nn import AffineSubspace
from constrained_nn.linalg import min_norm_solve, thin_qr


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 4), (5, 6), (8, 8), (12, 30)])
def test_dependent_rows_are_left_out_and_later_ones_are_not(m, n, generator):
    A = torch.randn(40, m, n, dtype=torch.float64, generator=generator)
    A[::2, 1] = -2.0 * A[::2, 0]  # the second row depends on the first in every other element
    x = torch.randn(40, n, dtype=torch.float64, generator=generator)
    factor = thin_qr(A)
    expected = torch.ones(40, m, dtype=torch.bool)
    expected[::2, 1] = False
    assert torch.equal(factor.independent, expected)
    r = (A @ x.unsqueeze(-1)).squeeze(-1)  # consistent by construction
    solution = min_norm_solve(A, r, factor)
    oracle = (torch.linalg.pinv(A, rtol=1e-10) @ r.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(solution, oracle, rtol=1e-9, atol=1e-9)


def test_projection_onto_a_consistent_subspace_with_a_repeated_row(generator):
    A = torch.randn(5, 9, dtype=torch.float64, generator=generator)
    A = torch.cat([A[:1], A])  # the first row twice
    point = torch.randn(9, dtype=torch.float64, generator=generator)
    plane = AffineSubspace(A, A @ point)
    y = torch.randn(7, 9, dtype=torch.float64, generator=generator)
    projected = plane.project(y)
    assert plane.contains(projected, atol=1e-12).all()
    oracle = y - (y - point) @ (torch.linalg.pinv(A) @ A).mT
    torch.testing.assert_close(projected, oracle, rtol=1e-11, atol=1e-11)
