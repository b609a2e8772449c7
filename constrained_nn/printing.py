"""Tables for a terminal, for Markdown and for LaTeX."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
_ESCAPES |= {"^": r"\textasciicircum{}", "–": "--", "−": "$-$"}


def make_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    caption: str = "",
    text: Collection[str] = (),
) -> Table:
    """A table for a terminal.

    Args:
        headings: One a column; a line break in one is kept.
        rows: Cells as text.
        title: Line above.
        caption: Line below.
        text: Headings of columns that hold words, as the first one does; the others hold numbers.
    """
    from rich.table import Table

    table = Table(title=title or None, caption=caption or None)
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="left" if not k or heading in text else "right")
    for row in rows:
        table.add_row(*row)
    return table


def print_tables(*tables: Table, width: int = 110) -> None:
    """Print tables; `width` is the length of a line where the output is not a terminal."""
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else width)
    for table in tables:
        console.print(table)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; every column but the first is aligned to the right."""
    rule = "|---" + "|---:" * (len(headings) - 1) + "|"
    return [_markdown_row(headings), rule, *map(_markdown_row, rows)]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def latex_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> list[str]:
    """Lines of a LaTeX `tabular` with booktabs rules; `notes` stand below it, one a line."""
    return [
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        _latex_row(headings),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        *(
            rf"\multicolumn{{{len(headings)}}}{{l}}{{\footnotesize {escape_latex(note)}}} \\"
            for note in notes
        ),
        r"\end{tabular}",
    ]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def escape_latex(text: str) -> str:
    """Text in which no character is a command of LaTeX."""
    return "".join(_ESCAPES.get(c, c) for c in text)
