"""The closed form of HardNet-Aff as one node of the graph, with its derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn.linalg import (
    ThinQR,
    branchless,
    matvec,
    min_norm_adjoint,
    min_norm_solve,
    nearest_between,
    outer_sum_to,
    pinv_apply,
    product,
    recording,
    rmatvec,
)
from constrained_nn.sets import Polyhedron


def closed_form(y: Tensor, rows: Polyhedron, qr: ThinQR) -> Tensor:
    """Eq. 5: `y + A⁺ (clamp(A y, lower, upper) − A y)`."""
    if recording():
        Ay = matvec(rows.A, y)
        return y + min_norm_solve(rows.A, nearest_between(Ay, rows.lower, rows.upper) - Ay, qr)
    if not torch.is_grad_enabled():
        Ay = product(rows.A, y)
        return y + pinv_apply(qr, torch.clamp(Ay, rows.lower, rows.upper) - Ay)
    function = _ClosedForm if branchless(y, rows.A) else _EagerClosedForm
    return function.apply(y, rows.A, rows.lower, rows.upper, *qr)[0]  # pyright: ignore[reportReturnType]


class _ClosedForm(torch.autograd.Function):
    """Eq. 5 as one node: with `w = A⁺ᵀ g`, `x = P(y) − y` and `V` the violated rows,

    `ȳ = g − Aᵀ V w`, `bound̄ = V w`, `Ā = −w xᵀ − V w yᵀ + A⁺ᵀx (g − Aᵀ w)ᵀ`.

    Returns the value and, without derivative, which rows were below and above their bounds.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y, A, lower, upper, Q, R, independent):
        Ay = product(A, y)
        value = y + pinv_apply(ThinQR(Q, R, independent), torch.clamp(Ay, lower, upper) - Ay)
        below = Ay < lower
        # an equality has no inside: it takes its direction even where it holds already
        return value, below, (Ay > upper) | ((lower >= upper) & below.logical_not())

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output)
        ctx.save_for_forward(*inputs, *output)

    @staticmethod
    def backward(ctx, grad, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        y, A, lower, upper, Q, R, independent, value, below, above = ctx.saved_tensors
        qr = ThinQR(Q, R, independent)
        w = min_norm_adjoint(A, grad, qr)
        violated = w * (below | above)
        grad_A = None
        if ctx.needs_input_grad[1]:
            step = value - y
            grad_A = -outer_sum_to(w, step, A.shape) - outer_sum_to(violated, y, A.shape)
            if A.shape[-2] < A.shape[-1]:  # for a square A the last term is zero
                rest = grad - rmatvec(A, w)
                grad_A = grad_A + outer_sum_to(min_norm_adjoint(A, step, qr), rest, A.shape)
        return (
            (grad - product(A.mT, violated)).sum_to_size(y.shape),
            grad_A,
            (w * below).sum_to_size(lower.shape) if ctx.needs_input_grad[2] else None,
            (w * above).sum_to_size(upper.shape) if ctx.needs_input_grad[3] else None,
            None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx, dy, dA, dlower, dupper, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        y, A, _, _, Q, R, independent, value, below, above = ctx.saved_tensors
        qr = ThinQR(Q, R, independent)
        dy = torch.zeros_like(y) if dy is None else dy
        dr = -product(A, dy)  # of the violated rows, whose residual is bound − A y
        if dlower is not None:
            dr = dr + dlower * below
        if dupper is not None:
            dr = dr + dupper * above
        if dA is None:
            return dy + min_norm_solve(A, dr * (below | above), qr), None, None
        dr = (dr - matvec(dA, y)) * (below | above)
        step = value - y
        tilt = rmatvec(dA, min_norm_adjoint(A, step, qr))
        tangent = dy + tilt + min_norm_solve(A, dr - matvec(dA, step) - matvec(A, tilt), qr)
        return tangent, None, None


class _EagerClosedForm(torch.autograd.Function):
    """The same node in the form without `setup_context`, whose call costs 50 µs less outside of `torch.func`."""

    @staticmethod
    def forward(ctx, *inputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        output = _ClosedForm.forward(*inputs)
        _ClosedForm.setup_context(ctx, inputs, output)
        return output

    backward = _ClosedForm.backward
    jvp = _ClosedForm.jvp
