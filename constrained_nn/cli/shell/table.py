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
