"""The network of a closed loop."""

from __future__ import annotations

import itertools

import torch
from torch import nn


def make_backbone(
    features: int, outputs: int, hidden: tuple[int, ...], seed: int, dtype: torch.dtype
) -> nn.Sequential:
    """ReLU network with Kaiming-normal weights drawn in order after the default construction, as published."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        widths = (features, *hidden, outputs)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Linear(a, b, dtype=dtype)] + ([nn.ReLU()] if i < len(hidden) else [])
        network = nn.Sequential(*layers)
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
    finally:
        torch.random.set_rng_state(state)
    return network
