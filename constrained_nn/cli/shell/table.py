"""Tables of results in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, caption="violations: time integrals of relu(Au - b), mean over runs")
    table.add_column("method")
    for _, heading, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for method, metrics in results.items():
        cells = [_cell(metrics.get(name), form) for name, _, form in COLUMNS]
        table.add_row(method, *cells)
    Console(width=None if Console().is_terminal else 120).print(table)


def _cell(value: Any, form: str) -> str:
    return "not finite" if value is None else form.format(value)
