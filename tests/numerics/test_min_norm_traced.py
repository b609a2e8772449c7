"""`min_norm_solve` and its adjoint, compiled: the same value and the same first derivatives."""

from __future__ import annotations

import pytest
import torch

from constrained_nn.linalg import min_norm_adjoint, min_norm_solve, thin_qr


@pytest.mark.untyped
@pytest.mark.parametrize("with_factor", [True, False])
@pytest.mark.parametrize(("m", "n"), [(2, 4), (3, 3)])
@pytest.mark.parametrize("function", [min_norm_solve, min_norm_adjoint])
def test_compiled_equals_eager(
    function, m: int, n: int, with_factor: bool, generator: torch.Generator
) -> None:
    A = torch.randn(4, m, n, generator=generator, dtype=torch.float64)
    size = m if function is min_norm_solve else n
    right = torch.randn(4, size, generator=generator, dtype=torch.float64)

    def call(A: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return function(A, right, thin_qr(A.detach()) if with_factor else None)

    results = []
    for run in (call, torch.compile(call, backend="aot_eager", fullgraph=True)):
        inputs = (A.clone().requires_grad_(), right.clone().requires_grad_())
        value = run(*inputs)
        results.append((value.detach(), *torch.autograd.grad(value.sin().sum(), inputs)))
    for eager, traced in zip(*results, strict=True):
        assert eager.abs().max() > 1e-3
        torch.testing.assert_close(traced, eager, rtol=1e-9, atol=1e-11)
