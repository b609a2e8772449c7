"""What the copies of a vector environment play: seeds, episodes, and the parameters and disturbances they bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from control_envs.envs.interface import Interface
from control_envs.scenarios import Scenario


class Episodes:
    """Copy i plays the scenarios `(seeds[i], 0), (seeds[i], 1), ...`, or its rows of the interface's table.

    Args:
        interface: Scenario rules of the task.
        seeds: One seed a copy.
        dtype: Type of parameters and disturbances.
        device: Device of parameters and disturbances.
        differentiable: Keep the graph of earlier episodes: tensors are replaced, not written to.
    """

    def __init__(
        self,
        interface: Interface,
        seeds: list[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        differentiable: bool,
    ) -> None:
        self.interface, self.seeds = interface, seeds
        self.dtype, self.device, self.differentiable = dtype, device, differentiable
        self.parameters: dict[str, Tensor] = {}  # values `(copies,)` of the true plants
        self._tables: dict[str, Tensor] = {}
        self._counts = np.full(len(seeds), -1)

    def reseed(self, seed: int | Sequence[int | None] | None, mask: np.ndarray) -> None:
        """New seeds for the copies of a mask, whose episodes are then counted from 0; None changes nothing.

        Raises:
            ValueError: There are more or fewer seeds than copies.
        """
        if seed is None:
            return
        copies = len(self.seeds)
        seeds = [seed + i for i in range(copies)] if isinstance(seed, int) else list(seed)
        if len(seeds) != copies:
            raise ValueError(f"ControlVectorEnv.reset: expected {copies} seeds, got {len(seeds)}.")
        for i, s in enumerate(seeds):
            if mask[i] and s is not None:
                self.seeds[i], self._counts[i] = int(s), -1

    def begin(self, rows: np.ndarray) -> Tensor:
        """Take the next scenario of these copies; returns their start states `(len(rows), n)`."""
        self._counts[rows] += 1
        drawn = [self._scenario(i) for i in rows.tolist()]
        index = torch.as_tensor(rows, device=self.device)
        copies = len(self.seeds)
        for name in drawn[0].parameters:
            new = self._tensor([s.parameters[name] for s in drawn])
            if name not in self.parameters:
                self.parameters[name] = torch.ones(copies, dtype=self.dtype, device=self.device)
            if self.differentiable:
                self.parameters[name] = self.parameters[name].index_copy(0, index, new)
            else:  # in place: a compiled step keeps its plant
                self.parameters[name].index_copy_(0, index, new)
        for name in ("disturbance", "input", "measurement"):
            if getattr(drawn[0], name) is None:
                continue
            new = self._tensor([getattr(s, name) for s in drawn])
            if name not in self._tables:
                self._tables[name] = new.new_zeros(copies, *new.shape[1:])
            self._tables[name].index_copy_(0, index, new)
        return self._tensor([s.start for s in drawn])

    def sample(self, channel: str, step: Tensor) -> Tensor | None:
        """What a channel adds in interval `step` of each copy `(copies, k)`, or None."""
        table = self._tables.get(channel)
        if table is None:
            return None
        return table[torch.arange(len(table), device=self.device), step.clamp(max=table.shape[1] - 1)]

    def _scenario(self, i: int) -> Scenario:
        episode = int(self._counts[i])
        if self.interface.scenarios is not None:
            episode = i + episode * len(self.seeds)
        return self.interface.scenario(self.seeds[i], episode)

    def _tensor(self, rows: list[Any]) -> Tensor:
        return torch.as_tensor(np.array(rows), dtype=self.dtype, device=self.device)
