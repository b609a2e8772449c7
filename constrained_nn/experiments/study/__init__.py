"""Studies: a grid of runs or of table rows, and the report on it."""

from constrained_nn.experiments.study.report import study_page, write_report
from constrained_nn.experiments.study.rows import RowsSpec, run_rows, write_rows
from constrained_nn.experiments.study.run import outcomes, run_study
from constrained_nn.experiments.study.spec import read_study

__all__ = [
    "RowsSpec",
    "outcomes",
    "read_study",
    "run_rows",
    "run_study",
    "study_page",
    "write_report",
    "write_rows",
]
