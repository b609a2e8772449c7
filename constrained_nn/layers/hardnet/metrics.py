"""In which metric `HardNetAffine` looks for the nearest point."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parallel:
    """Nearest in row values, `|A (x − y)|`, then nearest in `|x − y|`: satisfied rows keep their value."""


@dataclass(frozen=True)
class Euclidean:
    """Nearest in `|x − y|`: the orthogonal projection, an active-set search instead of a closed form."""


Metric = Parallel | Euclidean
