"""What an experiment is: a published table, and how to measure our numbers for it."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from constrained_nn.errors import UnknownNameError
from constrained_nn.experiments.tables import EXPERIMENTS


@dataclass(frozen=True)
class Column:
    """One measured quantity.

    Args:
        name: Key in the metrics that `Experiment.run` returns.
        label: Heading in the table, with its unit.
        format: Format specification of the numbers.
    """

    name: str
    label: str
    format: str = ".2f"


@dataclass(frozen=True)
class Published:
    """A published number: mean over seeds, with its standard deviation where one is printed."""

    value: float
    std: float | None = None


@dataclass(frozen=True)
class Row:
    """One method of the table.

    Args:
        name: Key, as on the command line.
        label: Name in the table.
        published: Published numbers by column name; empty for rows that the paper does not have.
        seeded: Whether the result depends on a seed; rows that do not are run once.
        note: Footnote, such as a known error of the published number.
        shares: Row whose training this one goes on from, in that row's folder with the same seed; a study never runs
            the two at once.
    """

    name: str
    label: str
    published: Mapping[str, Published] = field(default_factory=dict)
    seeded: bool = True
    note: str = ""
    shares: str = ""


@dataclass(frozen=True)
class Comparison:
    """One number computed here from published arrays, against the number that it must equal to `atol`."""

    what: str
    ours: float
    reference: float
    atol: float

    @property
    def agrees(self) -> bool:
        return abs(self.ours - self.reference) <= self.atol  # False for NaN


class Experiment(ABC):
    """A published table, and how to measure it here; one file each, with `EXPERIMENT = <Class>()`.

    A *cell* is one row with one seed. The driver runs the cells one by one, keeps every finished one, and
    writes means over seeds beside the published numbers. Budgets are step counts, never times, so that a run
    that was interrupted and resumed gives the same numbers.

    Attributes:
        name: Name on the command line and of the result file.
        title: One line.
        source: Paper and table that the published numbers come from.
        columns, rows: The table.
        seeds: Seeds of the full table.
        center: How seeds are summarized in the table: mean with standard deviation, or median with range.
        notes: What differs from the published setting, and why; one paragraph each.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    rows: ClassVar[tuple[Row, ...]]
    seeds: ClassVar[tuple[int, ...]] = (1,)
    center: ClassVar[str] = "mean"
    notes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Everything that determines the numbers (step counts, sizes, versions), as JSON values.

        Finished cells are reused only while their settings are the same.
        """

    @abstractmethod
    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        """The metrics of one cell, by column name (further keys are kept in the JSON file).

        `directory` is the cell's own. It is empty at first; after an interruption it holds what the earlier
        attempt wrote there, so a training loop that finds its checkpoint goes on from it.
        """

    def fast(self) -> Experiment:
        """The same experiment with budgets for a test of a minute; its numbers mean nothing."""
        return self

    def on(self, device: str) -> Experiment:
        """The same experiment on another device; only those with a field for it can."""
        if device != "cpu":
            raise ValueError(f"{self.name} runs on the CPU only, got device {device}.")
        return self

    def compare(self, reference: Path, progress: Callable[[str], None]) -> list[Comparison]:
        """Compare with published arrays in the folder `reference`; empty when there are none."""
        return []

    def draw(self, result: Mapping[str, Any], folder: Path) -> list[Path]:
        """Draw figures of a finished table into a folder; none by default (a hook)."""
        return []


def available() -> list[str]:
    """Names of all experiments."""
    return sorted(EXPERIMENTS)


def load(name: str) -> Experiment:
    """The experiment of this name; `safe-control` is defined in `tables/hardnet/safe_control.py`.

    Raises:
        UnknownNameError: No experiment has this name; the message suggests the nearest.
    """
    names = available()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        suggestion = f" Did you mean '{near[0]}'?" if near else ""
        raise UnknownNameError(
            f"unknown experiment '{name}'.{suggestion} Experiments: {', '.join(names) or 'none'}."
        )
    return import_module(f"constrained_nn.experiments.tables.{EXPERIMENTS[name]}").EXPERIMENT
