"""Exit codes of every command."""

from __future__ import annotations

DONE = 0  # every claim holds, or the work is done
UNDECIDED = 2  # bad input, a crash, a limit, or no verdict
REFUTED = 3  # a counterexample, or a disagreement with published arrays
INTERRUPTED = 130  # what a shell reports for a program that ended on Ctrl-C

SUMMARY = (
    "Exit code 0: done, or every claim holds; 2: bad input, a crash, or no verdict; "
    "3: a counterexample; 130: interrupted."
)
