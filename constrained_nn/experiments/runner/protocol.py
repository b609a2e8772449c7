"""What an experiment is: a published table, and how to measure our numbers for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from constrained_nn.experiments.tables import EXPERIMENTS
from constrained_nn.registry import Kind, find, names


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
        shares: Row whose training this one continues, in that row's folder with the same seed; the
            two are never run at once.
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

    A *cell* is one row with one seed. The driver runs the cells, keeps every finished one, and
    writes means over seeds beside the published numbers. An experiment is pickled to run in another
    process. Budgets are step counts, never times, so that a run that was interrupted and resumed
    gives the same numbers.

    Attributes:
        name: Name on the command line and of the result file.
        title: One line.
        source: Paper and table that the published numbers come from.
        columns, rows: The table.
        seeds: Seeds of the full table.
        center: How seeds are summarized in the table: mean with standard deviation, or median with
            range.
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

        `directory` is the cell's own. It is empty at first; after an interruption it holds what the
        earlier attempt wrote there, so that a training loop continues from its checkpoint.
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


KIND = Kind("experiment", Experiment, "constrained_nn.experiments")
_TABLES = "constrained_nn.experiments.tables"
_OURS = {name: f"{_TABLES}.{module}:EXPERIMENT" for name, module in EXPERIMENTS.items()}


def available() -> list[str]:
    """Names of all experiments: ours, and those of entry points of installed packages.

    Raises:
        ValueError: Two of them have the same name.
    """
    return names(KIND, _OURS)


def load(spec: str) -> Experiment:
    """The experiment that `spec` means: a name, `module:OBJECT` or `file.py:OBJECT`.

    Names are ours (`safe-control` is in `tables/hardnet/safe_control.py`) and those of the entry
    points `constrained_nn.experiments` of installed packages.

    Raises:
        UnknownNameError: There is no such name, module, file or object; the message suggests the
            nearest.
        FileFormatError: Importing it raises, or it is not an experiment.
        ValueError: Its name is taken. Folders and result files have this name, so that two cannot
            share it.
    """
    found = find(KIND, spec, _OURS)
    another = found.name != spec and found.name in available()
    if another and find(KIND, found.name, _OURS) is not found:
        raise ValueError(
            f"'{spec}': its name '{found.name}' is taken by another experiment. Give it another name."
        )
    return found
