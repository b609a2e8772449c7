"""Learning the next state of a system from trajectories, over several steps, with what bounds it in the long run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from constrained_nn.models import ECO
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.supervised import fit


@dataclass(frozen=True)
class Sobolev:
    """Mean square of a field and of its derivatives: `Σ_k (1 + |k|² / cutoff²)^order |ê(k)|²`.

    Small scales hold little energy; without their derivatives the loss does not see them.

    Args:
        shape: Grid, one or two directions; fields are flattened.
        order: Order of the derivatives.
        cutoff: Wavenumber (in periods) from which derivatives count.
    """

    shape: tuple[int, ...]
    order: float = 1.0
    cutoff: float = 1.0

    def __post_init__(self) -> None:
        require_real("Sobolev", "order", self.order, least=0.0)
        require_real("Sobolev", "cutoff", self.cutoff, above=0.0)
        for n in self.shape:
            require_integer("Sobolev", "every size in shape", n, least=1)

    def __call__(self, error: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        axes = tuple(range(-len(self.shape), 0))
        modes = torch.fft.rfftn(error.unflatten(-1, self.shape), dim=axes, norm="forward")
        points = self.shape[-1]
        last = torch.arange(points // 2 + 1, device=error.device)
        square = last**2
        for n in self.shape[:-1]:
            square = square + (torch.fft.fftfreq(n, 1.0 / n, device=error.device) ** 2).unsqueeze(-1)
        twice = torch.where((last == 0) | (2 * last == points), 1.0, 2.0)
        weight = twice * (1.0 + square / self.cutoff**2) ** self.order
        return (weight * modes.abs().square()).sum(axes)


def mean_square(error: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Mean square over the components."""
    return error.square().mean(-1)


@dataclass(frozen=True)
class SoftDissipativity:
    """Penalty that pulls far states inwards, at sampled states only (Markov neural operator).

    `weight log(1 + |G(z) − contraction z|² / |z|²)` at random `z` of length between `inner` and `outer`; the logarithm
    keeps the errors of a polynomial from drowning the fit. The model is asked, not forced; between and beyond the
    samples nothing is known.

    Args:
        inner, outer: Euclidean lengths of the far states.
        contraction: Share of the length that remains after a step.
        weight: Weight in the loss.
    """

    inner: float
    outer: float
    contraction: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_real("SoftDissipativity", "inner", self.inner, above=0.0)
        require_real("SoftDissipativity", "outer", self.outer, least=self.inner)
        require_real("SoftDissipativity", "contraction", self.contraction, least=0.0)
        require_real("SoftDissipativity", "weight", self.weight, least=0.0)

    def __call__(
        self, model: Callable[[Tensor], Tensor], like: Float[Tensor, "batch n"]
    ) -> Float[Tensor, " batch"]:
        z = torch.randn_like(like)
        length = self.inner + (self.outer - self.inner) * torch.rand_like(z[:, :1])
        z = length * z / z.norm(dim=-1, keepdim=True)
        excess = (model(z) - self.contraction * z) / length
        return self.weight * excess.square().sum(-1).log1p()


def multistep_loss(
    model: nn.Module,
    window: Float[Tensor, "batch times n"],
    *,
    norm: Callable[[Tensor], Tensor] = mean_square,
    pushforward: bool = False,
) -> Float[Tensor, " batch"]:
    """Mean error of `times − 1` steps from the first state of a window.

    Args:
        model: The next state of a state.
        window: Consecutive states.
        norm: Square of the size of an error `(batch, n) -> (batch)`.
        pushforward: Differentiate the last step only: the model learns to step from its own errors, at the memory of
            one step.
    """
    w, steps, total = window[:, 0], window.shape[1] - 1, None
    for k in range(1, steps + 1):
        if pushforward:
            with torch.set_grad_enabled(k == steps):
                w = model(w)
        else:
            w = model(w)
        if k == steps or not pushforward:
            error = norm(w - window[:, k])
            total = error if total is None else total + error
    assert total is not None, "a window holds two states or more"
    return total if pushforward else total / steps


def windows(count: int, samples: int, horizon: int, *, every: int = 1) -> Int[Tensor, "windows 2"]:
    """Trajectory and first sample of all windows of `horizon + 1` states, at every so manieth sample."""
    run, first = torch.meshgrid(torch.arange(count), torch.arange(0, samples - horizon, every), indexing="ij")
    return torch.stack([run.flatten(), first.flatten()], -1)


def fit_operator(
    model: nn.Module,
    trajectories: Float[np.ndarray, "count samples n"],
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    final_learning_rate: float | None = None,
    seed: int = 0,
    horizon: int = 1,
    pushforward: bool = False,
    norm: Callable[[Tensor], Tensor] = mean_square,
    noise: float = 0.0,
    volume: float = 0.0,
    dissipativity: SoftDissipativity | None = None,
    every: int = 1,
    max_norm: float | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train the next state of a state on trajectories; returns the mean loss of every epoch.

    An interrupted run with a `checkpoint`, written after every epoch, goes on with identical results.

    Args:
        model: `(*batch, n) -> (*batch, n)`; its weights are changed.
        trajectories: States at equal intervals, kept on the CPU; windows go to the device one batch at a time.
        epochs: Passes over the windows.
        batch: Windows a step.
        learning_rate: Step size of Adam.
        final_learning_rate: Its last value, reached along a cosine.
        seed: Seed of order, noise and far states.
        horizon: Steps of the model in a window.
        pushforward: See `multistep_loss`.
        norm: Square of the size of an error, in units in which the increments have size one.
        noise: Standard deviation of noise on the first state of a window.
        volume: Weight of `log volume {V <= c} / n`, for an `ECO`.
        dissipativity: Penalty at far states.
        every: Distance between two windows, in samples.
        max_norm: Longest gradient; longer ones are scaled down.
        device: Where the model is.
        checkpoint: File to save to, and to go on from if it exists.
        progress: Called as `progress(epoch, loss)`.

    Raises:
        ConvergenceError: The loss is not finite.
        TypeError: `volume` is given for a model without an energy.
        ValueError: No trajectory holds a window, one is not finite, or a setting is out of range.
    """
    if volume and not isinstance(model, ECO):
        raise TypeError(
            f"fit_operator: expected an ECO for volume {volume}, got {type(model).__name__}. Only an energy has a "
            f"level set; pass volume=0."
        )
    for name, value in {"epochs": epochs, "batch": batch, "horizon": horizon, "every": every}.items():
        require_integer("fit_operator", name, value, least=1)
    require_real("fit_operator", "noise", noise, least=0.0)
    require_real("fit_operator", "volume", volume, least=0.0)
    data = torch.from_numpy(np.array(trajectories))
    if data.ndim != 3 or not data.isfinite().all():
        raise ValueError(
            f"fit_operator: expected finite trajectories of shape (count, samples, n), got {tuple(data.shape)}"
            f"{' with NaN or infinity' if data.ndim == 3 else ''}. Flatten fields into one direction; one trajectory "
            f"is states[None]."
        )
    if not data.shape[1] > horizon:
        raise ValueError(
            f"fit_operator: expected trajectories of more than horizon {horizon} states, got {tuple(data.shape)}. "
            f"There is nothing to learn from; shorten the horizon."
        )
    steps = torch.arange(horizon + 1)

    def loss(epoch: int, chosen: Tensor) -> Tensor:
        window = data[chosen[:, :1], chosen[:, 1:] + steps].to(device)
        if noise:
            start = window[:, :1] + noise * torch.randn_like(window[:, :1])
            window = torch.cat([start, window[:, 1:]], 1)
        total = multistep_loss(model, window, norm=norm, pushforward=pushforward).sum()
        if dissipativity is not None:
            total = total + dissipativity(model, window[:, 0]).sum()
        if volume and isinstance(model, ECO):
            total = total + volume * len(chosen) * model.energy.log_volume()
        return total

    return fit(
        model,
        [windows(len(data), data.shape[1], horizon, every=every)],
        loss,
        epochs=epochs,
        learning_rate=learning_rate,
        final_learning_rate=final_learning_rate,
        seed=seed,
        batch=batch,
        max_norm=max_norm,
        checkpoint=checkpoint,
        every=1,
        settings={
            "horizon": horizon,
            "pushforward": pushforward,
            "noise": noise,
            "volume": volume,
            "dissipativity": None if dissipativity is None else asdict(dissipativity),
            "windows_every": every,
            "trajectories": list(data.shape),
        },
        progress=progress,
    )
