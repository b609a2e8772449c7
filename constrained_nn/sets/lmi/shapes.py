"""What the constructors of matrix inequalities expect, said before any kernel sees it: shapes and symmetry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import branchless
from constrained_nn.sets.base import are_tensors, check_batch, check_match


def check_shapes(where: str, /, **matrices: tuple[Any, str]) -> None:
    """Check that matrices have these last dimensions, one size a letter: `A=(A, "n n"), B=(B, "n k")`.

    Raises:
        ShapeError: An argument is no tensor, or its dimensions, dtype, device or batch shape do not match.
    """
    for name, (matrix, letters) in matrices.items():
        if not isinstance(matrix, Tensor):
            raise ShapeError(
                f"LMI.{where}: expected {name} as a tensor (*batch, {', '.join(letters.split())}), got "
                f"{type(matrix).__name__}. Convert it with `torch.as_tensor`."
            )
    if not are_tensors(*(matrix for matrix, _ in matrices.values())):
        return
    sizes: dict[str, int] = {}
    for name, (matrix, spec) in matrices.items():
        letters, known = spec.split(), ", ".join(f"{k} = {n}" for k, n in sizes.items())
        core = matrix.shape[-len(letters) :]
        fits = len(core) == len(letters) and all(
            sizes.setdefault(k, n) == n for k, n in zip(letters, core, strict=True)
        )
        if not fits:
            where_known = f" with {known}" if known else ""
            raise ShapeError(
                f"LMI.{where}: expected {name} of shape (*batch, {', '.join(letters)}){where_known}, "
                f"got {tuple(matrix.shape)}. The batch comes first; a single input is a column (n, 1)."
            )
    names = list(matrices)
    tensors = {name: matrix for name, (matrix, _) in matrices.items()}
    check_match(f"LMI.{where}", names[0], tensors.pop(names[0]), **tensors)
    check_batch(f"LMI.{where}", **{n: m.shape[: -len(s.split())] for n, (m, s) in matrices.items()})


def check_symmetric(where: str, /, **matrices: Tensor) -> None:
    """Check that matrices `(..., n, n)` are symmetric up to rounding, `√eps` of their largest entry.

    Values are read only where that is free: on the CPU, and not in a transform. Tensors that are differentiated
    are left alone, because finite differences move one entry at a time; entries that are not finite are a matter
    of the layer, for their element alone.

    Raises:
        ValueError: Two entries differ.
    """
    for name, matrix in matrices.items():
        S = matrix.detach()
        if S.device.type != "cpu" or branchless(S) or matrix.requires_grad or not S.numel():
            continue
        gap = (S - S.mT).abs()
        wrong = gap > torch.finfo(S.dtype).eps ** 0.5 * S.abs().amax((-2, -1), keepdim=True)
        if bool(wrong.any()):
            *element, i, j = wrong.nonzero()[0].tolist()
            at = f"{name}{element}" if element else name
            raise ValueError(
                f"{where}: expected {name} symmetric, got entries ({i}, {j}) and ({j}, {i}) of {at} that differ by "
                f"{gap[(*element, i, j)].item():.3g}. The inequality would be that of the symmetric part. Pass "
                f"`A + A.mT` if you mean `A + Aᵀ`, or `0.5 * (A + A.mT)`."
            )
