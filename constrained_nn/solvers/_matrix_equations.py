"""What the solvers of matrix equations share: checks, norms, and when derivatives are wanted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd import forward_ad

from constrained_nn.errors import ShapeError


def require_tensors(where: str, **matrices: object) -> None:
    """Arrays and lists are refused: they carry neither derivatives nor a device.

    Raises:
        ShapeError: A matrix is not a tensor.
    """
    for name, M in matrices.items():
        if M is not None and not isinstance(M, Tensor):
            raise ShapeError(
                f"{where}: expected {name} as a torch tensor, got {type(M).__name__}. Convert it with "
                f"`torch.as_tensor`."
            )


def checked(where: str, given: Mapping[str, tuple[Tensor, int, int]]) -> tuple[torch.Size, list[Tensor]]:
    """Common batch shape, and the matrices in float64 `(batch, rows, columns)`.

    Raises:
        ShapeError: A matrix does not have its size, dtype or device, or the batch shapes do not broadcast.
    """
    first = next(iter(given.values()))[0]
    for name, (M, rows, columns) in given.items():
        if M.ndim < 2 or M.shape[-2:] != (rows, columns) or not rows:
            raise ShapeError(
                f"{where}: expected {name} of shape (*batch, {rows}, {columns}), got {tuple(M.shape)}. The other "
                f"matrices fix its size; batch dimensions come first."
            )
        if M.dtype != first.dtype or M.device != first.device or not M.is_floating_point():
            raise ShapeError(
                f"{where}: expected {name} of dtype {first.dtype} on {first.device}, got {M.dtype} on {M.device}. "
                f"Convert it with `.to(...)`."
            )
    shapes = [M.shape[:-2] for M, _, _ in given.values()]
    try:
        batch = torch.broadcast_shapes(*shapes)
    except RuntimeError:
        found = ", ".join(f"{name} {tuple(s)}" for name, s in zip(given, shapes, strict=True))
        raise ShapeError(
            f"{where}: expected batch shapes that broadcast, got {found}. Add dimensions of size 1."
        ) from None
    return batch, [M.double().expand(*batch, *M.shape[-2:]).reshape(-1, r, c) for M, r, c in given.values()]


def tracked(*tensors: Tensor) -> bool:
    """Whether somebody may ask for derivatives."""
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def all_finite(*matrices: Tensor) -> Tensor:
    """Elements `(batch)` without NaN or infinity."""
    good = matrices[0].isfinite().all(-1).all(-1)
    for M in matrices[1:]:
        good = good & M.isfinite().all(-1).all(-1)
    return good


def norm(M: Tensor) -> Tensor:
    """Frobenius norm `(*batch)`."""
    return torch.linalg.vector_norm(M, dim=(-2, -1))


def relative_residual(*terms: Tensor) -> Tensor:
    """Norm of a sum of matrices over the sum of their norms `(*batch)`; 0 where all are 0."""
    size = norm(terms[0])
    for term in terms[1:]:
        size = size + norm(term)
    return norm(sum(terms[1:], terms[0])) / torch.where(size > 0, size, 1.0)


def symmetric(M: Tensor) -> Tensor:
    """Symmetric part."""
    return 0.5 * (M + M.mT)


def identity(n: int, like: Tensor) -> Tensor:
    """Unit matrix of the dtype and device of `like`."""
    return torch.eye(n, dtype=like.dtype, device=like.device)
