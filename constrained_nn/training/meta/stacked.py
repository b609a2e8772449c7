"""Networks of one shape, trained and evaluated together, and control-affine models made of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from control_envs.dynamics import Dynamics


class StackedMLP(nn.Module):
    """`k` networks `W_l tanh(… tanh(W_0 x + b_0) …) + b_l`, evaluated together on `(k, *batch, inputs)`.

    Args:
        count: Number of networks `k`.
        sizes: Inputs, hidden widths, outputs.
        seed: Seed of the weights, uniform in `±1/√inputs` of each layer.
    """

    def __init__(self, count: int, sizes: Sequence[int], *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            draws = torch.rand(count, inputs + 1, outputs, generator=generator, dtype=torch.float64)
            draws = (2.0 * draws - 1.0) / inputs**0.5
            self.weights.append(nn.Parameter(draws[:, :-1].clone()))
            self.biases.append(nn.Parameter(draws[:, -1:].clone()))

    def forward(self, x: Float[Tensor, "k *batch inputs"]) -> Float[Tensor, "k *batch outputs"]:
        flat = x.flatten(1, -2)
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            flat = torch.baddbmm(b, torch.tanh(flat) if i else flat, W)
        return flat.reshape(*x.shape[:-1], -1)

    def along(
        self, x: Float[Tensor, "k batch inputs"], directions: Float[Tensor, "k batch d inputs"]
    ) -> tuple[Float[Tensor, "k batch outputs"], Float[Tensor, "k batch d outputs"]]:
        """Values, and derivatives along `d` directions at each point; plain operations, differentiable further."""
        count = directions.shape[2]
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i:
                x = torch.tanh(x)
                directions = directions * (1.0 - x.square()).unsqueeze(-2)
            x = torch.baddbmm(b, x, W)
            directions = torch.bmm(directions.flatten(1, 2), W).unflatten(1, (-1, count))
        return x, directions

    def squares(self) -> Float[Tensor, " k"]:
        """Sum of the squared weights of each network."""
        return torch.stack([p.square().sum((1, 2)) for p in self.parameters()]).sum(0)


class StateFeatures(nn.Module):
    """What a network sees of a state: some of its components in their units, and angles by sine and 1 − cosine.

    Args:
        scale: Units of all components `(n,)`.
        keep: Positions of the components that are seen as they are.
        angles: Positions of those that are seen as angles.
    """

    scale: Tensor

    def __init__(
        self, scale: Float[Tensor, " n"], keep: Sequence[int] | None = None, angles: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.keep = list(range(len(scale)) if keep is None else keep)
        self.angles = list(angles)
        self.register_buffer("scale", scale.detach().clone())

    @classmethod
    def invariant(cls, plant: Dynamics, scale: Float[Tensor, " n"]) -> StateFeatures:
        """No positions (states in meters): the plant is the same everywhere. Angles as such."""
        angles = [i for i, quantity in enumerate(plant.state) if quantity.angle]
        keep = [i for i, quantity in enumerate(plant.state) if quantity.unit != "m" and i not in angles]
        return cls(scale, keep, angles)

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.keep) + 2 * len(self.angles)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch features"]:
        angle = x[..., self.angles]
        return torch.cat([(x / self.scale)[..., self.keep], angle.sin(), 1.0 - angle.cos()], -1)

    def along(
        self, x: Float[Tensor, "*batch n"], directions: Float[Tensor, "*batch d n"]
    ) -> tuple[Float[Tensor, "*batch features"], Float[Tensor, "*batch d features"]]:
        """Features, and their derivatives along directions."""
        angle, turn = x[..., self.angles].unsqueeze(-2), directions[..., self.angles]
        straight = (directions / self.scale)[..., self.keep]
        return self(x), torch.cat([straight, angle.cos() * turn, angle.sin() * turn], -1)


class StackedAffine(nn.Module):
    """`k` control-affine models of one plant, on states `(k, *batch, n)`.

    `dx/dt = d(x) + B(x) (u − u₀)`; with `linear` the network is added to `d = c + L z`, `B = B₀`, `z` the features.

    Args:
        features: What the networks see.
        units: Units of the velocities of each model `(k, n)`.
        input_units: Units of the inputs `(m,)`.
        middle: `u₀` `(m,)`.
        width: Width of the two hidden layers.
        seed: Seed of the weights.
        linear: Whether there is a linear part; the network then starts at zero.
    """

    units: Tensor
    input_units: Tensor
    middle: Tensor

    def __init__(
        self,
        features: StateFeatures,
        units: Float[Tensor, "k n"],
        input_units: Float[Tensor, " m"],
        middle: Float[Tensor, " m"],
        *,
        width: int,
        seed: int,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        count, n, m = *units.shape, len(middle)
        self.net = StackedMLP(count, (features.size, width, width, n + n * m), seed=seed)
        for name, value in (("units", units), ("input_units", input_units), ("middle", middle)):
            self.register_buffer(name, value.detach().clone())
        self.linear = nn.Parameter(torch.zeros(count, features.size, n).double()) if linear else None
        self.constant = nn.Parameter(torch.zeros(count, 1, n + n * m).double()) if linear else None
        if linear:
            with torch.no_grad():
                self.net.weights[-1].zero_()
                self.net.biases[-1].zero_()

    @property
    def state_dim(self) -> int:
        return self.units.shape[-1]

    @property
    def input_dim(self) -> int:
        return self.middle.shape[-1]

    def start(
        self, x: Tensor, u: Tensor, velocity: Tensor, weight: Float[Tensor, "k batch"], ridge: float
    ) -> None:
        """Set the linear part to the weighted least-squares fit of `(k, batch, ·)` samples."""
        z, v = self.features(x), (u - self.middle) / self.input_units
        rows = torch.cat([torch.ones_like(z[..., :1]), v, z], -1) * weight.unsqueeze(-1)
        target = velocity / self.units.unsqueeze(1) * weight.unsqueeze(-1)
        damp = ridge * torch.eye(rows.shape[-1], dtype=x.dtype, device=x.device)
        found = torch.linalg.solve(rows.mT @ rows + damp, rows.mT @ target)  # (k, 1 + m + features, n)
        m = self.input_dim
        assert self.linear is not None and self.constant is not None
        with torch.no_grad():
            self.linear.copy_(found[:, 1 + m :])
            self.constant.copy_(torch.cat([found[:, 0], found[:, 1 : 1 + m].mT.flatten(1)], -1).unsqueeze(1))

    def normalized(self, x: Float[Tensor, "k batch n"]) -> tuple[Tensor, Tensor]:
        """What the network adds, and all of it `(k, batch, n + n m)`, in units of velocities and inputs."""
        z = self.features(x)
        added = self.net(z)
        if self.linear is None or self.constant is None:
            return added, added
        return added, added + self.constant + torch.nn.functional.pad(
            z @ self.linear, (0, added.shape[-1] - self.state_dim)
        )

    def split(self, y: Float[Tensor, "k *batch f"]) -> tuple[Tensor, Tensor]:
        """Drift at `u₀` `(k, *batch, n)` and input matrix `(k, *batch, n, m)` in SI units."""
        n, m = self.state_dim, self.input_dim
        units = self.units.reshape(len(self.units), *[1] * (y.ndim - 2), n)
        return y[..., :n] * units, y[..., n:].unflatten(-1, (n, m)) * units.unsqueeze(-1) / self.input_units

    def parts(self, x: Float[Tensor, "k *batch n"]) -> tuple[Tensor, Tensor]:
        """Drift at `u₀` `(k, *batch, n)` and input matrix `(k, *batch, n, m)`."""
        y = self.normalized(x.flatten(1, -2))[1]
        return self.split(y.reshape(*x.shape[:-1], -1))

    def slopes(self, x: Float[Tensor, "k batch n"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`parts(x)`, and their derivatives in each state `(k, batch, n, n)` and `(k, batch, n, n, m)`, state first."""
        n = self.state_dim
        z, dz = self.features.along(x, torch.eye(n, dtype=x.dtype, device=x.device).expand(*x.shape, n))
        y, dy = self.net.along(z, dz)
        if self.linear is not None and self.constant is not None:
            rest = (0, y.shape[-1] - n)
            y = y + self.constant + torch.nn.functional.pad(z @ self.linear, rest)
            dy = dy + torch.nn.functional.pad(dz @ self.linear.unsqueeze(1), rest)
        return *self.split(y), *self.split(dy)

    def forward(self, x: Float[Tensor, "k *batch n"], u: Float[Tensor, "k *batch m"]) -> Tensor:
        """Velocities `(k, *batch, n)`."""
        d, B = self.parts(x)
        return d + (B @ (u - self.middle).unsqueeze(-1)).squeeze(-1)

    def drift(self, t: Any, x: Float[Tensor, "k *batch n"], w: Tensor | None = None) -> Tensor:
        """The part without input."""
        d, B = self.parts(x)
        return d - B @ self.middle

    def actuation(self, t: Any, x: Float[Tensor, "k *batch n"]) -> Tensor:
        """The input matrix."""
        return self.parts(x)[1]

    def jacobian(self, x: Float[Tensor, "k *batch n"], u: Float[Tensor, "*#batch m"]) -> Tensor:
        """Derivative of the velocity in the state `(k, *batch, n, n)`."""
        v = (u - self.middle).expand(*x.shape[:-1], self.input_dim).flatten(1, -2)
        _, _, d, B = self.slopes(x.flatten(1, -2))
        J = (d + (B @ v[:, :, None, :, None]).squeeze(-1)).mT
        return J.reshape(*x.shape, self.state_dim)


class StackedSamples(nn.Module):
    """Samples of several sizes in one array, filled up with zeros: states, inputs, velocities `(k, longest, ·)`.

    Args:
        parts: One `(x, u, velocity)` for each model.
        share: Share of each that trains; the rest validates.
    """

    def __init__(self, parts: Sequence[Sequence[Tensor]], share: float = 0.9) -> None:
        super().__init__()
        self.counts = np.array([len(x) for x, *_ in parts])
        self.trained = np.maximum(1, (share * self.counts).astype(int))
        longest = int(self.counts.max())
        fill = [[torch.nn.functional.pad(a, (0, 0, 0, longest - len(a))) for a in part] for part in parts]
        self.x, self.u, self.velocity = (nn.Buffer(torch.stack(column)) for column in zip(*fill, strict=True))

    def units(self) -> Float[Tensor, "k n"]:
        """Standard deviation of the velocities that train."""
        spread = [v[:count].std(0) for v, count in zip(self.velocity, self.trained, strict=True)]
        return torch.stack(spread).clamp_min(1e-12)

    def batch(self, generator: torch.Generator, size: int) -> list[Tensor]:
        """`size` rows that train of every model, drawn with replacement."""
        share = torch.rand(len(self.counts), size, generator=generator, dtype=torch.float64)
        return self._rows((share * torch.from_numpy(self.trained)[:, None]).long())

    def held_out(self) -> list[Tensor]:
        """The rows that validate; a short list is repeated."""
        most = int((self.counts - self.trained).max())
        first, total = torch.from_numpy(self.trained)[:, None], torch.from_numpy(self.counts)[:, None]
        return self._rows(first + torch.arange(most) % (total - first).clamp_min(1))

    def _rows(self, index: Tensor) -> list[Tensor]:
        return [
            a.gather(1, index.unsqueeze(-1).expand(*index.shape, a.shape[-1]))
            for a in (self.x, self.u, self.velocity)
        ]
