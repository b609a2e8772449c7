"""What the solvers of matrix equations share: checks, norms, and when derivatives are wanted.

Kernels without derivatives are written once for tensors and for NumPy arrays: on a CPU small stacked products are ten
times faster in NumPy, while tracing and on other devices they run in torch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import branchless

# Batches up to this size are solved faster by NumPy, larger ones by torch.
_FEW = 64

Array = Any  # a tensor or a NumPy array


def namespace(M: Array) -> Any:
    """The module whose functions take `M`."""
    return torch if isinstance(M, Tensor) else np


def is_traced(M: Array) -> bool:
    """Whether control flow must not depend on values; arrays of NumPy have values."""
    return isinstance(M, Tensor) and branchless(M)


def solve(M: Array, C: Array) -> Array:
    """`M⁻¹ C`, batched; not finite where `M` is singular."""
    if isinstance(M, Tensor):
        return torch.linalg.solve_ex(M, C)[0]
    if len(M) <= _FEW:
        with contextlib.suppress(np.linalg.LinAlgError):
            return np.linalg.solve(M, C)
    return torch.linalg.solve_ex(torch.from_numpy(M), torch.from_numpy(C))[0].numpy()


def is_positive_definite(M: Array) -> Array:
    """Whether a Cholesky factor exists `(*batch)`; NaN is not positive definite."""
    if isinstance(M, Tensor):
        return torch.linalg.cholesky_ex(M)[1] == 0
    return torch.linalg.cholesky_ex(torch.from_numpy(M))[1].numpy() == 0


def eigenvalues(M: Array) -> Array:
    """Eigenvalues of finite matrices `(*batch, n)`."""
    if isinstance(M, Tensor):
        return torch.linalg.eigvals(M)
    if len(M) <= _FEW:
        with contextlib.suppress(np.linalg.LinAlgError):
            return np.linalg.eigvals(M)
    return torch.linalg.eigvals(torch.from_numpy(M)).numpy()


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
        if M.is_complex():
            raise ShapeError(
                f"{where}: expected {name} with real entries, got {M.dtype}. Complex equations are not solved. Pass "
                f"the real form [[Re, −Im], [Im, Re]] of every matrix."
            )
        if M.dtype != first.dtype or M.device != first.device or not M.is_floating_point():
            raise ShapeError(
                f"{where}: expected {name} of dtype {first.dtype} on {first.device}, got {M.dtype} on {M.device}. "
                f"Convert it with `.to(...)`."
            )
    shapes = [M.shape[:-2] for M, _, _ in given.values()]
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0], [M.double().reshape(-1, r, c) for M, r, c in given.values()]
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


def follow(value: Tensor, X: Tensor) -> Tensor:
    """The value of one matrix with the derivatives of the other, where these are finite."""
    change = X - X.detach()
    return value + torch.where(change.isfinite(), change, 0.0)


def tolerance(rtol: float, dtype: torch.dtype) -> float:
    """`rtol`, or what rounding to `dtype` leaves of it where terms of a residual cancel."""
    return max(rtol, 64.0 * torch.finfo(dtype).eps)


def rounded(M: Array, dtype: torch.dtype) -> Array:
    """What is left of a float64 matrix in `dtype`."""
    if dtype == torch.float64:
        return M
    if isinstance(M, Tensor):
        return M.to(dtype).double()
    return torch.from_numpy(M).to(dtype).double().numpy()


def all_finite(*matrices: Array) -> Array:
    """Elements `(*batch)` without NaN or infinity."""
    xp = namespace(matrices[0])
    good = xp.isfinite(matrices[0]).all(-1).all(-1)
    for M in matrices[1:]:
        good = good & xp.isfinite(M).all(-1).all(-1)
    return good


def norm(M: Array) -> Array:
    """Frobenius norm `(*batch)`, of matrices whose squares do not overflow."""
    return (M * M).sum((-2, -1)) ** 0.5


def largest(M: Array) -> Array:
    """Largest modulus of an entry `(*batch)`."""
    return namespace(M).amax(abs(M), (-2, -1))


def relative_residual(*terms: Array) -> Array:
    """Norm of a sum of matrices over the sum of their norms `(*batch)`; 0 where all are 0, NaN where it overflows."""
    xp = namespace(terms[0])
    top = largest(terms[0])
    for term in terms[1:]:
        top = xp.maximum(top, largest(term))
    scale = (1.0 / xp.where(top > 0, top, 1.0))[..., None, None]
    terms = tuple(term * scale for term in terms)
    size = norm(terms[0])
    for term in terms[1:]:
        size = size + norm(term)
    return norm(sum(terms[1:], terms[0])) / xp.where(size > 0, size, 1.0)


def symmetric(M: Array) -> Array:
    """Symmetric part."""
    return 0.5 * (M + M.mT)


def identity(n: int, like: Array) -> Array:
    """Unit matrix of the dtype and device of `like`."""
    if isinstance(like, Tensor):
        return torch.eye(n, dtype=like.dtype, device=like.device)
    return _numpy_identity(n)


@functools.cache
def _numpy_identity(n: int) -> np.ndarray:
    one = np.eye(n)
    one.flags.writeable = False
    return one
