"""What the commands share: errors and exit codes, limits, progress, and tables."""

from constrained_nn.cli.shell.codes import DONE, INTERRUPTED, REFUTED, SUMMARY, UNDECIDED
from constrained_nn.cli.shell.limited import limit_memory, run_limited, unlimited_memory
from constrained_nn.cli.shell.progress import cover_progress, training_progress
from constrained_nn.cli.shell.shell import (
    Command,
    Shell,
    fail,
    is_given,
    one_line,
    parse_integers,
    refuse_options,
)
from constrained_nn.cli.shell.table import constraints_table, metrics_cells, metrics_table

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
    "limit_memory",
    "metrics_cells",
    "metrics_table",
    "one_line",
    "parse_integers",
    "refuse_options",
    "run_limited",
    "training_progress",
    "unlimited_memory",
]
