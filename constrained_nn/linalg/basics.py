"""Matrix-vector products over a batch, safe norms, and the question whether control flow may read values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def branchless(*tensors: Tensor) -> bool:
    """Whether control flow must not depend on values.

    True while a graph is recorded (`recording`) or a transform of `torch.func` is active, and for tensors that have no
    values to look at: those on the meta device, fake ones, and those of a CUDA stream that is being captured.
    """
    return recording() or torch._C._are_functorch_transforms_active() or any(map(lacks_values, tensors))


def recording() -> bool:
    """Whether operations are recorded into a graph that will run on other values, without Python.

    Under `torch.compile`, `torch.export`, `torch.jit.trace`, both exporters of ONNX and `make_fx`. Such a graph takes
    plain operations only: no branch on a value, no `torch.autograd.Function`.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def lacks_values(t: Tensor) -> bool:
    """Whether a tensor has a shape and no values that could be looked at."""
    return (
        t.is_meta
        or isinstance(t, torch._subclasses.FakeTensor)
        or (t.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def matvec(A: Float[Tensor, "*#batch m n"], x: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
    """`A x`, batched; one matrix product for a shared `A`."""
    if A.ndim == 2:
        return x @ A.transpose(-2, -1)
    return (A @ x.unsqueeze(-1)).squeeze(-1)


def rmatvec(A: Float[Tensor, "*#batch m n"], w: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n"]:
    """`Aᵀ w`, batched."""
    return matvec(A.transpose(-2, -1), w)


def outer_sum_to(
    w: Float[Tensor, "*batch m"], x: Float[Tensor, "*batch n"], shape: torch.Size
) -> Float[Tensor, "*small m n"]:
    """`w xᵀ`, summed over the batch dimensions that `shape` does not have."""
    if len(shape) == 2:
        batch = torch.broadcast_shapes(w.shape[:-1], x.shape[:-1])
        w, x = w.expand(*batch, w.shape[-1]), x.expand(*batch, x.shape[-1])
        return w.reshape(-1, w.shape[-1]).mT @ x.reshape(-1, x.shape[-1])
    return (w.unsqueeze(-1) * x.unsqueeze(-2)).sum_to_size(shape)


def nearest_between(
    value: Float[Tensor, "*#batch m"], lower: Float[Tensor, "*#batch m"], upper: Float[Tensor, "*#batch m"]
) -> Float[Tensor, "*batch m"]:
    """`clamp(value, lower, upper)` that keeps the derivative of an equality, `lower = upper`.

    `torch.clamp` gives a value below two equal bounds no derivative in either of them. On a bound the derivative
    is that of the inside; an equality has none, and takes that of `upper`. A bound that is NaN gives NaN, never a
    value that lies between.
    """
    return torch.where(lower >= upper, upper, torch.clamp(value, lower, upper))


def power_of_two(size: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The largest power of two up to `size`, without derivative; 1 for 0, NaN and infinity.

    Dividing by it rounds nothing (short of underflow), so that squares of what is left neither overflow nor vanish.
    """
    size = size.detach()
    mantissa, _ = torch.frexp(size)
    usable = (size > 0) & (size < torch.inf)
    power = size / (2.0 * torch.where(usable, mantissa, 1.0))
    # the inverse of a number below `tiny` would be infinite
    return torch.where(usable, power, 1.0).clamp_min(torch.finfo(size.dtype).tiny)


def normalize(x: Float[Tensor, "*batch n"]) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch 1"]]:
    """`x / |x|` and `|x|` over the last dimension, `(0, 0)` for 0, where every derivative is 0.

    No overflow or underflow, in value and derivative, short of those of the results.
    """
    if x.shape[-1] == 0:
        return x, x.sum(-1, keepdim=True)
    size = power_of_two(x.detach().abs().amax(-1, keepdim=True))
    unit = x / size
    squared = unit.square().sum(-1, keepdim=True)
    nonzero = squared > 0
    length = torch.where(nonzero, squared, 1.0).sqrt()
    # NaN is no zero: it stays
    norm = torch.where(nonzero, size * length, squared)
    return torch.where(nonzero | squared.isnan(), unit / length, 0.0), norm


def safe_norm(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """`|x|` of `normalize`."""
    return normalize(x)[1].squeeze(-1)
