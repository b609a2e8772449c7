"""Features by regression: meta ridge regression, as published and with its scales put right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.checkpoint import History
from constrained_nn.training.descent import descend
from constrained_nn.training.meta.ensemble import ForceData


def fit_ridge_features(
    features: nn.Module,
    data: ForceData,
    *,
    seed: int,
    steps: int,
    unit: float = 1.0,
    weight_decay: float = 0.0,
    ridge: float = 1e-6,
    directions: Callable[[Tensor], Tensor] | None = None,
    learning_rate: float = 1e-2,
    checkpoint: Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> History:
    """Features on which a last layer, solved by ridge regression for each trajectory, predicts the force best.

    The last layer is solved on a quarter of the training samples and judged on all of them.

    Args:
        features: Module `(…, n) -> (…, p)`; its weights are changed.
        data: Samples, trajectory by trajectory.
        seed: Seed of split and quarter.
        steps: Full-batch steps of Adam.
        unit: Factor of the residual. The published loss has the time step here (0.01): errors then weigh 1e-4 as much
            as intended against `weight_decay`, and the features shrink.
        weight_decay: Weight of the squared weights, over the number of all training samples.
        ridge: Weight of the squared last layer.
        directions: `x -> B (…, d, m)`: only forces `B(x) A y` are modelled; None: all.
        learning_rate: Step size of Adam.
        checkpoint: File to save to, and to go on from.
        progress: Called as `progress(step, loss, score)`.

    Raises:
        ValueError: A setting is not finite or out of range; `TypeError` for one that is no number.
    """
    require_integer("fit_ridge_features", "seed", seed, most=2**40)
    require_real("fit_ridge_features", "unit", unit, above=0.0)
    require_real("fit_ridge_features", "weight_decay", weight_decay, least=0.0)
    require_real("fit_ridge_features", "ridge", ridge, above=0.0)
    train, valid = data.split(seed)
    models, samples = train.x.shape[:2]
    quarter = torch.randperm(samples, generator=torch.Generator().manual_seed(seed + 1))[: samples // 4]
    matched = [_matched(part, directions) for part in (train, valid)]

    def evaluate(step: int) -> tuple[Tensor, Tensor, int]:
        y = features(train.x)
        target = matched[0]
        few, aim = y[:, quarter], target[:, quarter]
        gram = unit**2 * (few.mT @ few) + ridge * torch.eye(y.shape[-1], dtype=y.dtype)
        last = torch.linalg.solve(gram, unit**2 * (few.mT @ aim))  # (M, p, m)
        loss = unit**2 * (y @ last - target).square().sum(-1).mean()
        squares = sum(p.square().sum() for p in features.parameters())
        with torch.no_grad():
            score = unit**2 * (features(valid.x) @ last - matched[1]).square().sum(-1).mean()
        return loss + (weight_decay / (models * samples)) * squares, score, 0

    settings = {"seed": seed, "unit": unit, "weight_decay": weight_decay, "ridge": ridge, "models": models}
    return descend(
        features,
        evaluate,
        steps=steps,
        learning_rate=learning_rate,
        settings=settings,
        checkpoint=checkpoint,
        every=100,
        progress=progress,
    )


def _matched(data: ForceData, directions: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Coordinates of the force in the orthonormal directions; the rest does not depend on the features."""
    if directions is None:
        return data.acceleration
    return (directions(data.x).mT @ data.acceleration[..., None])[..., 0]
