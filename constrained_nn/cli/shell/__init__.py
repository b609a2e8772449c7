"""What the commands share: errors and exit codes, limits, progress, and tables."""

from constrained_nn.cli.shell.limited import limit_memory, run_limited, unlimited_memory
from constrained_nn.cli.shell.progress import cover_progress, training_progress
from constrained_nn.cli.shell.shell import (
    INTERRUPTED,
    REFUTED,
    UNDECIDED,
    Command,
    Shell,
    fail,
    one_line,
    parse_integers,
)
from constrained_nn.cli.shell.table import COLUMNS, metrics_table

__all__ = [
    "COLUMNS",
    "INTERRUPTED",
    "REFUTED",
    "UNDECIDED",
    "Command",
    "Shell",
    "cover_progress",
    "fail",
    "limit_memory",
    "metrics_table",
    "one_line",
    "parse_integers",
    "run_limited",
    "training_progress",
    "unlimited_memory",
]
