"""What a study writes: every run and every mean as CSV, tables as LaTeX and Markdown, a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from constrained_nn.experiments.runner import Outcome
from constrained_nn.experiments.study.spec import METRICS, StudySpec
from constrained_nn.experiments.study.statistics import Entry, summarize
from constrained_nn.files import commit, machine, versions, write_atomically, write_json
from constrained_nn.printing import latex_table, markdown_table


def write_report(spec: StudySpec, outcomes: list[Outcome], out: Path, command: str) -> list[Entry]:
    """`runs.csv`, `summary.csv`, `table.tex`, `table.md`, `figure.png`, `figure.pdf` and `study.json` in `out`."""
    entries = summarize(spec, outcomes)
    write_atomically(out / "runs.csv", _csv(_runs(spec, outcomes)))
    write_atomically(out / "summary.csv", _csv(_summary(spec, entries)))
    write_atomically(out / "table.tex", latex(spec, entries))
    write_atomically(out / "table.md", study_page(spec, entries))
    from constrained_nn.plotting import plot_intervals

    panels = {metric: METRICS[metric] for metric in spec.metrics}
    for ending in ("png", "pdf"):
        plot_intervals(out / f"figure.{ending}", entries, panels, note=_how(spec))
    write_json(
        out / "study.json",
        {
            "command": command,
            "study": spec.model_dump(mode="json"),
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
            "statistics": _how(spec),
            "cells": [{"cell": o.cell.title, "status": o.status, "error": o.error} for o in outcomes],
        },
    )
    return entries


def _how(spec: StudySpec) -> str:
    seeds = "seeds and start states" if len(spec.seeds) > 1 else "start states (one seed: nothing on seeds)"
    few = "; with fewer than five seeds it is too short" if 1 < len(spec.seeds) < 5 else ""
    return (
        f"Mean with {100 * spec.confidence:g} % percentile bootstrap interval over {seeds}, "
        f"{spec.resamples} resamples, the same for all methods; shares of 0 and 1 with the Clopper-Pearson bound{few}"
    )


def _csv(rows: Iterable[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["" if v is None else v for v in row] for row in rows)
    return text.getvalue()


def _runs(spec: StudySpec, outcomes: list[Outcome]) -> Iterable[list[object]]:
    """One line a run; one line for each scenario of a cell that has none."""
    yield ["task", "scenario", "method", "seed", "start", "status", *METRICS]
    for o in outcomes:
        for scenario in spec.scenarios:
            head = [o.cell.labels["task"], scenario.name, o.cell.labels["method"], o.cell.labels["seed"]]
            if o.status != "done":
                yield [*head, None, o.status, *[None] * len(METRICS)]
                continue
            metrics = o.values["scenarios"][scenario.name]
            for i in range(len(metrics["cost"])):
                values = [metrics[name][i] for name in METRICS]
                yield [*head, i, "diverged" if values[0] is None else "done", *values]


def _summary(spec: StudySpec, entries: list[Entry]) -> Iterable[list[object]]:
    yield [
        "task", "scenario", "method", "metric", "mean", "low", "high", "cells_done", "cells_expected", "runs",
        "runs_diverged", "difference", "difference_low", "difference_high", "seeds_paired", "seeds_to_pair",
        "problems",
    ]  # fmt: skip
    for e in entries:
        difference = e.difference or (None, None, None)
        yield [
            e.task, e.scenario, e.method, e.metric, e.mean, e.low, e.high, e.done, e.expected, e.runs,
            e.diverged, *difference, e.pairs, e.pairs_expected, "; ".join(e.problems),
        ]  # fmt: skip


def _groups(spec: StudySpec, entries: list[Entry]) -> Iterable[tuple[str, str, dict[str, list[Entry]]]]:
    """Task, scenario and its entries by method."""
    for task in spec.tasks:
        for scenario in spec.scenarios:
            here = [e for e in entries if (e.task, e.scenario) == (task, scenario.name)]
            yield (
                task,
                scenario.name,
                {m.label: [e for e in here if e.method == m.label] for m in spec.methods},
            )


def _digits(value: float) -> str:
    """Four significant digits, without exponent where that is readable."""
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def _cell(e: Entry) -> str:
    """`mean [low, high]`, with what is missing from it."""
    if e.mean is None or e.low is None or e.high is None:
        if e.diverged:
            return f"{e.diverged}/{e.runs} diverged"
        return "failed" if any("failed" in p for p in e.problems) else "unfinished"
    text = f"{_digits(e.mean)} [{_digits(e.low)}, {_digits(e.high)}]"
    return text if e.complete else f"{text} ({e.done}/{e.expected} seeds)"


def study_page(spec: StudySpec, entries: list[Entry]) -> str:
    """One table in Markdown for each task and scenario, and a list of what is missing."""
    lines = [f"# {spec.name}", "", f"{_how(spec)}.", ""]
    for task, scenario, methods in _groups(spec, entries):
        lines += [f"## {task}, {scenario}", "", *markdown_table(*_cells(spec, methods))]
        missing = [f"- {problem}" for problem in _missing(methods)]
        lines += ["", "Not in the means:", "", *missing, ""] if missing else [""]
    return "\n".join(lines)


def latex(spec: StudySpec, entries: list[Entry]) -> str:
    """One `tabular` with booktabs rules for each task and scenario."""
    lines = [f"% {_how(spec)}.", "% Needs \\usepackage{booktabs}."]
    for task, scenario, methods in _groups(spec, entries):
        heads, rows = _cells(spec, methods)
        lines += [f"% {task}, {scenario}", *latex_table(heads, rows, notes=_missing(methods))]
    return "\n".join(lines) + "\n"


def _cells(spec: StudySpec, methods: dict[str, list[Entry]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a table."""
    heads = ["method", *(METRICS[m] for m in spec.metrics)]
    rows = [[label, *map(_cell, row)] for label, row in methods.items()]
    if spec.baseline:
        heads += [f"{METRICS[m]} − {spec.baseline}" for m in spec.metrics]
        for cells, row in zip(rows, methods.values(), strict=True):
            cells += map(_difference, row)
    return heads, rows


def _missing(methods: dict[str, list[Entry]]) -> list[str]:
    return sorted({f"{label}: {p}" for label, row in methods.items() for e in row for p in e.problems})


def _difference(e: Entry) -> str:
    if e.difference is None:
        return "" if e.pairs_expected == 0 else "–"
    text = "{} [{}, {}]".format(*map(_digits, e.difference))
    return text if e.pairs == e.pairs_expected else f"{text} ({e.pairs}/{e.pairs_expected} seeds)"
