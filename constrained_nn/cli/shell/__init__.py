"""What the commands share: errors and exit codes, limits, progress, and tables."""

from constrained_nn.cli.shell.codes import DONE, INTERRUPTED, REFUTED, SUMMARY, UNDECIDED
from constrained_nn.cli.shell.limited import run_limited
from constrained_nn.cli.shell.progress import cover_progress, training_progress
from constrained_nn.cli.shell.shell import (
    Command,
    Shell,
    fail,
    is_given,
    parse_integers,
    refuse_options,
)
from constrained_nn.cli.shell.table import constraints_table, metrics_cells, metrics_table
from constrained_nn.errors import one_line

__all__ = [
    "DONE",
    "INTERRUPTED",
    "REFUTED",
    "SUMMARY",
    "UNDECIDED",
    "Command",
    "Shell",
    "constraints_table",
    "cover_progress",
    "fail",
    "is_given",
    "metrics_cells",
    "metrics_table",
    "one_line",
    "parse_integers",
    "refuse_options",
    "run_limited",
    "training_progress",
]
