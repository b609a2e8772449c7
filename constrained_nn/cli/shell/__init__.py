"""What the commands share: errors and exit codes, limits, progress, and tables."""

from constrained_nn.cli.shell.limited import run_limited
from constrained_nn.cli.shell.progress import cover_progress, training_progress
from constrained_nn.cli.shell.shell import (
    INTERRUPTED,
    REFUTED,
    UNDECIDED,
    Command,
    Shell,
    fail,
    parse_integers,
)
from constrained_nn.cli.shell.table import COLUMNS, metrics_table
from constrained_nn.errors import one_line

__all__ = [
    "COLUMNS",
    "INTERRUPTED",
    "REFUTED",
    "UNDECIDED",
    "Command",
    "Shell",
    "cover_progress",
    "fail",
    "metrics_table",
    "one_line",
    "parse_integers",
    "run_limited",
    "training_progress",
]
