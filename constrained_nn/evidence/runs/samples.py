"""Grade `sampled`: worst margins of closed-loop runs from fresh start states."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constrained_nn.evidence.runs.subject import CHUNK, Subject, relative_excess, simulate
from control_envs.simulate import SubStep

_FRESH = 0x5EED  # spawn key that keeps these draws apart from every other use of the same seed


@dataclass(frozen=True, eq=False)
class Sample:
    """Worst values of each run.

    Args:
        starts: Start states `(runs, n)`.
        margin: Smallest `−g` over all constraints and sub-steps `(runs,)`; negative is a collision.
        excess: Largest relative excess over all rows and held inputs `(runs,)`.
        complete: Runs that finished with finite numbers `(runs,)`.
    """

    starts: np.ndarray
    margin: np.ndarray
    excess: np.ndarray
    complete: np.ndarray

    @property
    def starts_sha256(self) -> str:
        """Digest of the start states, by which a repetition knows that it began in the same places."""
        return hashlib.sha256(np.ascontiguousarray(self.starts, "<f8").tobytes()).hexdigest()


def fresh_starts(task: Any, runs: int, seed: int) -> np.ndarray:
    """Independent start states `(runs, n)` from a stream that no training uses."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_FRESH,)))
    return task.sample_starts(rng, runs)


class _WorstRows:
    """Largest relative excess of each run over its held inputs."""

    def __init__(self, subject: Subject, runs: int) -> None:
        self.subject = subject
        self.excess = torch.full((runs,), -torch.inf, dtype=torch.float64)

    def __call__(self, sub: SubStep) -> None:
        found = relative_excess(*self.subject.rows(sub.t, sub.x), sub.u)
        index = slice(None) if sub.index is None else sub.index
        self.excess[index] = torch.maximum(self.excess[index], found)


def sample(subject: Subject, runs: int, seed: int) -> Sample:
    """Simulate `runs` fresh start states."""
    starts = fresh_starts(subject.task, runs, seed)
    constraints = {c.name: _wide(c.g) for c in subject.task.constraints}
    margins, excesses, completes = [], [], []
    for first in range(0, runs, CHUNK):
        chunk = starts[first : first + CHUNK]
        rows = _WorstRows(subject, len(chunk))
        trajectory = simulate(subject, chunk, rows, extremes=constraints)
        worst = torch.stack([torch.as_tensor(trajectory.worst[name]).double() for name in constraints], -1)
        margins.append(-worst.amax(-1))
        excesses.append(rows.excess)
        completes.append(torch.as_tensor(trajectory.complete))
    margin, excess, complete = (
        torch.cat(parts).numpy(force=True) for parts in (margins, excesses, completes)
    )
    complete &= ~np.isnan(margin) & ~np.isnan(excess)
    return Sample(
        starts,
        np.where(complete, margin, -np.inf),
        np.where(complete, excess, np.inf),
        complete,
    )


def _wide(g: Any) -> Any:
    """`g` in float64, whatever the precision of the run."""

    def wide(t: Any, x: Tensor, u: Tensor) -> Tensor:
        return g(t, x.double(), u.double())

    return wide
