"""What runs experiments: their protocol, cells in processes, and tables."""

from constrained_nn.experiments.runner.earlier import earlier_cells
from constrained_nn.experiments.runner.processes import how_it_ended, run_in_processes
from constrained_nn.experiments.runner.protocol import (
    Column,
    Comparison,
    Experiment,
    Published,
    Row,
    available,
    load,
)
from constrained_nn.experiments.runner.reproduction import (
    cell_name,
    cell_title,
    choose_rows,
    describe_outcome,
    prepare_cells,
    read_cell,
    reproduce,
    run_cell,
    spell_settings,
)
from constrained_nn.experiments.runner.table import markdown

__all__ = [
    "Column",
    "Comparison",
    "Experiment",
    "Published",
    "Row",
    "available",
    "cell_name",
    "cell_title",
    "choose_rows",
    "describe_outcome",
    "earlier_cells",
    "how_it_ended",
    "load",
    "markdown",
    "prepare_cells",
    "read_cell",
    "reproduce",
    "run_cell",
    "run_in_processes",
    "spell_settings",
]
