"""What all operators on fields ask of their input."""

from __future__ import annotations

from torch import Tensor, nn

from constrained_nn.errors import ShapeError


def check_field(name: str, w: Tensor, inputs: int, dim: int) -> None:
    """A batch of fields `(batch, inputs, *grid)` with `dim` directions."""
    if w.ndim != dim + 2 or w.shape[1] != inputs:
        raise ShapeError(
            f"{name}: expected fields of {dim + 2} dimensions (batch, {inputs}, *grid), got {tuple(w.shape)}. Flatten "
            f"the batch into one direction; the second one is that of the channels."
        )


def convolution_in(name: str, dim: int) -> type[nn.Conv1d] | type[nn.Conv2d]:
    """The convolution for so many directions."""
    if dim not in (1, 2):
        raise ShapeError(
            f"{name}: expected one or two directions, got {dim}. Other grids have no operator here."
        )
    return (nn.Conv1d, nn.Conv2d)[dim - 1]
