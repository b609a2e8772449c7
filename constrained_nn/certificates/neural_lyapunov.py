"""Neural Lyapunov functions that are positive definite for every parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from constrained_nn.certificates.lyapunov import LyapunovFunction


class NeuralLyapunov(LyapunovFunction):
    """Convex neural Lyapunov function: Bregman divergence of an input-convex network from the origin.

    `V(x) = g(e) − g(0) − ∇g(0)·e + floor |e|²`, `e = x − origin`, with `z₁ = σ(W₁ e + b₁)`,
    `zₖ = σ(Uₖ zₖ₋₁ + Wₖ e + bₖ)`, `g = u·z`, `U, u >= 0`, `σ = log(1 + exp)`.

    Guarantee: for every parameter `V` is smooth and strictly convex, `V(origin) = 0` and `∇V(origin) = 0` exactly,
    also in floating point, `V >= floor |e|²`, and the gradient vanishes nowhere else. Differences from the origin are
    carried through the layers, so that no constant becomes stale and nothing cancels near the origin. With `angles`,
    all this holds in the coordinates `sin e` and `1 − cos e`; the gradient in the states then also vanishes somewhere
    half a turn away, as that of every smooth function of an angle must.

    Args:
        dim: Number of states `n`.
        hidden: Widths of the layers.
        rate: Decay rate `alpha` [1/s] of `condition`.
        floor: Least curvature.
        origin: The equilibrium `(n,)`; default 0.
        angles: Positions of states that are angles.

    Returns:
        `value(x)`, `gradient(x)`; `condition(t, x)`: the half-space of velocities.

    Raises:
        ValueError: `hidden` is empty.

    Example:
        >>> import torch
        >>> V = NeuralLyapunov(2, hidden=(16, 16), rate=0.5)
        >>> V.value(torch.zeros(2)).item(), V.gradient(torch.zeros(2)).tolist()
        (0.0, [0.0, 0.0])
        >>> bool((V.value(torch.randn(100, 2)) > 0).all())
        True

    References:
        Amos, Xu, Kolter, Input convex neural networks (2017), Eq. 2.
        Manek, Kolter, Learning stable deep dynamics models (arXiv 2001.06116), whose g(0) this keeps current.
    """

    convex_in_coordinates = True

    def __init__(
        self,
        dim: int,
        *,
        rate: float,
        hidden: Sequence[int] = (64, 64),
        floor: float = 1e-3,
        origin: Tensor | None = None,
        angles: Sequence[int] = (),
    ) -> None:
        super().__init__(dim, rate=rate, origin=origin, angles=angles)
        if not hidden:
            raise ValueError(
                "NeuralLyapunov: expected at least one hidden layer, got (). Use QuadraticLyapunov."
            )
        self.floor = floor
        k = self.coordinates
        self.direct = nn.ModuleList(nn.Linear(k, width) for width in hidden)
        shapes = zip(hidden[1:], hidden[:-1], strict=True)
        self.through = nn.ParameterList(torch.randn(wide, narrow) for wide, narrow in shapes)
        self.last = nn.Parameter(torch.randn(hidden[-1]))

    def measure(
        self, z: Float[Tensor, "*batch k"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch k"]]:
        # U and u, of row sums near 1
        weights = [torch.nn.functional.softplus(U) / U.shape[-1] for U in (*self.through, self.last)]
        layers = [(layer.weight, layer.bias) for layer in _linear_layers(self.direct)]
        (W, a), d = layers[0], linear(z, layers[0][0])
        bregman = torch.zeros_like(
            d
        )  # of the units: what is beyond first order in the change from the origin
        slopes: list[Tensor] = []
        slope_changes: list[Tensor] = []
        for k in range(len(layers)):
            slope, moved = torch.sigmoid(a), _softplus_change(a, d)
            slopes.append(slope)
            slope_changes.append(_sigmoid_change(a, d))
            # convex, so that it is never negative but for rounding
            bregman = (moved - slope * d).clamp_min(0.0) + slope * bregman
            if k + 1 < len(layers):
                (W, b), U = layers[k + 1], weights[k]
                a = b + linear(torch.logaddexp(a, torch.zeros_like(a)), U)
                d = linear(z, W) + linear(moved, U)
                bregman = linear(bregman, U)
        value = linear(bregman, weights[-1].unsqueeze(0)).squeeze(-1)
        gradient = 2.0 * self.floor * z
        # backwards through the layers: how the sensitivity of g changes from the origin to x
        sensitivity, its_change = weights[-1], torch.zeros_like(slope_changes[-1])
        for k in reversed(range(len(layers))):
            slope, more = slopes[k], slope_changes[k]
            arriving_change = its_change * (slope + more) + sensitivity * more
            gradient = gradient + arriving_change @ layers[k][0]
            if k:
                sensitivity, its_change = (
                    (sensitivity * slope) @ weights[k - 1],
                    arriving_change @ weights[k - 1],
                )
        return value + self.floor * z.square().sum(-1), gradient


class BiLipschitzLyapunov(LyapunovFunction):
    """Neural Lyapunov function whose level sets need not be convex: squared distance after an invertible network.

    `V(x) = |φ(e) − φ(0)|²`, `φ` a composition of `z + contraction · W₂ tanh(W₁ z + b) / max(1, ‖W₁‖ ‖W₂‖)`,
    `e = x − origin`.

    Guarantee: for every parameter each block is invertible and changes distances by a factor between
    `1 − contraction` and `1 + contraction`; so `(1 − contraction)^(2 blocks) |e|² <= V <= (1 + contraction)^(2 blocks)
    |e|²`, `V` and its gradient are exactly 0 at the origin, and the gradient vanishes nowhere else. Norms are
    Frobenius norms, which bound the spectral ones. With `angles`, all this holds in the coordinates `sin e` and
    `1 − cos e`.

    Args:
        dim: Number of states `n`.
        blocks: Number of blocks.
        hidden: Width of each block.
        rate: Decay rate `alpha` [1/s] of `condition`.
        contraction: Largest Lipschitz constant of what a block adds, below 1.
        origin: The equilibrium `(n,)`; default 0.
        angles: Positions of states that are angles.

    Returns:
        `value(x)`, `gradient(x)`; `condition(t, x)`: the half-space of velocities.

    Raises:
        ValueError: `contraction` is not in (0, 1).

    Example:
        >>> import torch
        >>> V = BiLipschitzLyapunov(2, rate=0.5, blocks=2, contraction=0.5)
        >>> x = torch.randn(100, 2)
        >>> ratio = V.value(x) / x.square().sum(-1)
        >>> bool(((ratio > 0.5**4) & (ratio < 1.5**4)).all())
        True

    References:
        Behrmann et al., Invertible residual networks (2019), section 2.
    """

    def __init__(
        self,
        dim: int,
        *,
        rate: float,
        blocks: int = 3,
        hidden: int = 64,
        contraction: float = 0.8,
        origin: Tensor | None = None,
        angles: Sequence[int] = (),
    ) -> None:
        super().__init__(dim, rate=rate, origin=origin, angles=angles)
        if not 0 < contraction < 1:
            raise ValueError(
                f"BiLipschitzLyapunov: expected contraction in (0, 1), got {contraction}. Below 1 every block is "
                f"invertible."
            )
        self.contraction = contraction
        k = self.coordinates
        self.inner = nn.ModuleList(nn.Linear(k, hidden) for _ in range(blocks))
        self.outer = nn.ModuleList(nn.Linear(hidden, k, bias=False) for _ in range(blocks))

    def measure(
        self, z: Float[Tensor, "*batch k"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch k"]]:
        difference, base = z, z.new_zeros(z.shape[-1])
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for inner, outer in zip(_linear_layers(self.inner), _linear_layers(self.outer), strict=True):
            bound = torch.linalg.matrix_norm(inner.weight) * torch.linalg.matrix_norm(outer.weight)
            W2 = outer.weight * (self.contraction / bound.clamp_min(1.0))
            a, d = linear(base, inner.weight, inner.bias), linear(difference, inner.weight)
            there, here = torch.tanh(a + d), torch.tanh(a)
            steps.append((inner.weight, W2, 1.0 - there.square()))
            difference, base = difference + linear(there - here, W2), base + linear(here, W2)
        gradient = 2.0 * difference
        for W1, W2, slope in reversed(steps):
            gradient = gradient + (slope * (gradient @ W2)) @ W1
        return difference.square().sum(-1), gradient


def _linear_layers(modules: nn.ModuleList) -> list[nn.Linear]:
    return [layer for layer in modules if isinstance(layer, nn.Linear)]


def _softplus_change(a: Tensor, d: Tensor) -> Tensor:
    """`σ(a + d) − σ(a)` of `σ = log(1 + exp)`, to relative accuracy for small `d`, exactly 0 for `d = 0`."""
    small = torch.log1p(torch.sigmoid(a) * torch.expm1(d.clamp(-1.0, 1.0)))
    zero = torch.zeros_like(a)
    return torch.where(d.abs() < 1.0, small, torch.logaddexp(a + d, zero) - torch.logaddexp(a, zero))


def _sigmoid_change(a: Tensor, d: Tensor) -> Tensor:
    """`s(a + d) − s(a)` of the logistic function, to relative accuracy for small `d`, exactly 0 for `d = 0`."""
    s, rise = torch.sigmoid(a), torch.expm1(d.clamp(-1.0, 1.0))
    small = s * (1.0 - s) * rise / (1.0 + s * rise)
    return torch.where(d.abs() < 1.0, small, torch.sigmoid(a + d) - s)
