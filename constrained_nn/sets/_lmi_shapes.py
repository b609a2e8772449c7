"""The shapes that the constructors of matrix inequalities expect, said before any kernel sees them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.sets._base import are_tensors, check_batch, check_match


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
