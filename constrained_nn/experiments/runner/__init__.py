"""What runs experiments: their protocol, one driver of cells, and tables."""

from constrained_nn.experiments.runner.cells import (
    Cell,
    Outcome,
    Report,
    fingerprint,
    perform,
    read_outcome,
    run_cells,
)
from constrained_nn.experiments.runner.protocol import (
    Column,
    Comparison,
    Experiment,
    Published,
    Row,
    available,
    load,
)
from constrained_nn.experiments.runner.reproduction import choose_rows, reproduce
from constrained_nn.experiments.runner.table import experiment_page

__all__ = [
    "Cell",
    "Column",
    "Comparison",
    "Experiment",
    "Outcome",
    "Published",
    "Report",
    "Row",
    "available",
    "choose_rows",
    "experiment_page",
    "fingerprint",
    "load",
    "perform",
    "read_outcome",
    "reproduce",
    "run_cells",
]
