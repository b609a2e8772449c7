"""Metrics of runs as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from constrained_nn.printing import make_table, print_tables

# metric -> heading, format
COLUMNS = (
    ("cost", "cost", "{:.2f}"),
    ("max_violation", "max viol.", "{:.4g}"),
    ("mean_violation", "mean viol.", "{:.4g}"),
    ("violated", "# viol.", "{:.2f}"),
    ("rows_violated", "runs with a\nviolated row", "{:.0f}"),
    ("collisions", "runs that\ncollide", "{:.0f}"),
    ("margin", "worst\nmargin", "{:.3g}"),
    ("policy_ms", "policy ms", "{:.2f}"),
)


def metrics_table(results: Mapping[str, Mapping[str, Any]], title: str = "") -> None:
    """Print one row a method; a missing number is shown as such."""
    caption = "violations: time integrals of relu(Au - b), mean over runs"
    print_tables(make_table(*metrics_cells(results), title=title, caption=caption), width=120)


def metrics_cells(
    results: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table."""
    heads = ["method", *(heading for _, heading, _ in COLUMNS)]
    rows = [
        [method, *(_cell(metrics.get(name), form) for name, _, form in COLUMNS)]
        for method, metrics in results.items()
    ]
    return heads, rows


def _cell(value: Any, form: str) -> str:
    return "not finite" if value is None else form.format(value)


def constraints_table(task: Any, found: Mapping[str, Any]) -> None:
    """Print what became of each constraint, method by method."""
    from constrained_nn.training import report_constraints

    if not task.constraints:
        return
    heads = ["method", "constraint", "worst\nmargin", "runs\nviolated", "at most\n(95 %)", "of the\ntime"]
    heads += ["first", "gave\nway"]
    rows = [
        [
            method,
            one.name,
            f"{one.worst_margin:.3g} {one.unit}",
            f"{one.violated_runs} of {one.runs}",
            f"{one.bound:.1%}",
            f"{one.share:.2%}",
            "-" if one.first is None else f"{one.first:.2f} s",
            str(one.conflicts),
        ]
        for method, evaluation in found.items()
        for one in report_constraints(task, evaluation.trajectory, evaluation.conflicts)
    ]
    caption = "gave way: runs and samples at which no input met it beside what comes before it"
    print_tables(make_table(heads, rows, title="constraints, at the samples", caption=caption), width=120)
