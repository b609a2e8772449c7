"""Next states as the state plus a learned increment, normalized by data."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import ShapeError
from constrained_nn.operators.fourier import resample


class Increment(nn.Module):
    """Next state of a system of few dimensions: the state plus a normalized increment.

    `x⁺ = x + step ∘ G((x − mean) / deviation)`

    Guarantee: the weights `G` may be float32 while the state is float64; the sum is computed in the dtype of the state.

    Args:
        backbone: `G`, from `(*batch, n)` to `(*batch, n)`.
        mean: Mean of the states `(n,)`.
        deviation: Standard deviation of the states `(n,)`.
        step: Root mean square of the increments of the data `(n,)`.

    Example:
        >>> import torch
        >>> from constrained_nn.operators import MLP
        >>> model = Increment(MLP(3, 3, (16,)), torch.zeros(3), torch.ones(3), 0.1 * torch.ones(3))
        >>> model(torch.zeros(5, 3, dtype=torch.float64)).dtype
        torch.float64

    References:
        ECO (arXiv 2512.01984), section 3, without its layer; He et al., Deep residual learning (2016).
    """

    mean: Tensor
    deviation: Tensor
    step: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Float[Tensor, " n"],
        deviation: Float[Tensor, " n"],
        step: Float[Tensor, " n"],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        for name, value in (("mean", mean), ("deviation", deviation), ("step", step)):
            self.register_buffer(name, value.detach().clone())

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        normalized = (x.to(self.mean.dtype) - self.mean) / self.deviation
        return x + (self.step * self.backbone(normalized)).to(x.dtype)

    @classmethod
    def from_data(cls, backbone: nn.Module, states: Float[Tensor, "count samples n"]) -> Increment:
        """Normalization of the trajectories `states`."""
        flat = states.flatten(0, -2)
        step = states.diff(dim=-2).square().mean((0, 1)).sqrt()
        return cls(backbone, flat.mean(0), flat.std(0, correction=0), step)


class FieldIncrement(nn.Module):
    """Next state of a field: the field plus a normalized increment, computed on a coarser grid.

    `w⁺ = R w + step U G(((R w) − mean) / deviation, static)`, with `R` the part of the field that the inner grid
    resolves and `U` the trigonometric interpolation from the inner grid. With a `closure` `H`, the frequencies beyond
    are those of `deviation H((w⁺ − mean) / deviation)`: small scales that follow from the large ones, without memory.

    Guarantee: without a closure the next state lives on the frequencies of the inner grid. With `conserve_mean` the
    mean of the field is that of the field before, to rounding. The weights may be float32 while the state is float64.

    Args:
        backbone: `G`, from fields `(batch, 1 + k, *inner)` to `(batch, 1, *inner)`.
        shape: Grid of the state, one or two directions; states are flattened, `(*batch, n)`.
        inner: Grid of the backbone; default `shape`.
        mean: Mean of the field, a number.
        deviation: Standard deviation of the field.
        step: Root mean square of the increments of the data.
        static: Known fields that do not change, such as the force, `(k, *inner)`; the backbone sees them as channels.
        conserve_mean: Remove the mean of the increment.
        limit: The backbone sees values beyond so many standard deviations as if they were there, so that its output
            stays finite however far the state is; the field that it is added to is not changed.
        closure: `H`, from fields `(batch, 1, *shape)` to the same. Its input is detached: the large scales do not
            depend on it, and it learns by itself.
        resolved: Grid whose frequencies the next state keeps; default `shape`. Frequencies that hold next to nothing in
            the data are not learned, and may grow: leave them out.

    Raises:
        ShapeError: The state does not have as many components as the grid has points.

    Example:
        >>> import torch
        >>> from constrained_nn.operators import FNO
        >>> model = FieldIncrement(FNO((8,), width=4), (64,), inner=(32,), deviation=2.0)
        >>> model(torch.zeros(5, 64)).shape
        torch.Size([5, 64])

    References:
        ECO (arXiv 2512.01984), section 3, without its layer; He et al., Deep residual learning (2016).
    """

    def __init__(
        self,
        backbone: nn.Module,
        shape: tuple[int, ...],
        *,
        inner: tuple[int, ...] | None = None,
        mean: float = 0.0,
        deviation: float = 1.0,
        step: float = 1.0,
        static: Float[Tensor, "k ..."] | None = None,
        conserve_mean: bool = False,
        limit: float = float("inf"),
        closure: nn.Module | None = None,
        resolved: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.closure = backbone, closure
        self.shape = tuple(shape)
        self.inner = self.shape if inner is None else tuple(inner)
        self.resolved = self.shape if resolved is None else tuple(resolved)
        self.mean, self.deviation, self.step = mean, deviation, step
        self.conserve_mean, self.limit = conserve_mean, limit
        self.static: Tensor
        self.register_buffer("static", torch.zeros(0, *self.inner) if static is None else static.clone())

    def forward(self, w: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        count = torch.Size(self.shape).numel()
        if w.shape[-1] != count:
            raise ShapeError(
                f"FieldIncrement: expected a state of shape (*batch, {count}) for the grid {self.shape}, got "
                f"{tuple(w.shape)}. Flatten the directions of the grid into one."
            )
        field = resample(w.reshape(-1, *self.shape), self.inner)
        seen = self._normalized(field)
        if len(self.static):
            seen = torch.cat([seen, self.static.expand(len(seen), *self.static.shape)], 1)
        change = self.step * self.backbone(seen).squeeze(1).to(w.dtype)
        if self.conserve_mean:
            change = change - change.mean(tuple(range(1, change.ndim)), keepdim=True)
        if self.closure is None:
            after = resample(field + change, self.shape, keep=self.resolved)
        else:
            after = resample(field + change, self.shape)
            small = self.deviation * self.closure(self._normalized(after.detach())).squeeze(1).to(w.dtype)
            after = after + small - resample(small, self.shape, keep=self.inner)
            after = resample(after, self.shape, keep=self.resolved)
        return after.reshape(w.shape)

    def _normalized(self, field: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch 1 ..."]:
        normalized = ((field - self.mean) / self.deviation).clamp(-self.limit, self.limit)
        return normalized.to(self.static.dtype).unsqueeze(1)
