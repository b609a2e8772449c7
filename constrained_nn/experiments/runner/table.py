"""Result tables as Markdown for the documentation."""

from __future__ import annotations

from typing import Any

from constrained_nn.printing import markdown_table


def experiment_page(result: dict[str, Any]) -> str:
    """One page: the table with the published numbers beside ours, then how it was made."""
    lines = [f"# {result['title']}", "", f"Published numbers: {result['source']}.", ""]
    lines += [*_table(result), ""]
    lines += [f"{row['label']}: {row['note']}" + "\n" for row in result["rows"] if row["note"]]
    lines += [f"{note}\n" for note in result["notes"]]
    failed = [
        f"- {cell['row']}" + ("" if cell["seed"] is None else f", seed {cell['seed']}") + f": {cell['error']}"
        for cell in result["cells"]
        if cell["status"] == "failed"
    ]
    if failed:
        lines += ["Cells that failed, and are in no mean:", "", *failed, ""]
    if result["reference"]:
        lines += _reference(result["reference"])
    seeds = ", ".join(map(str, result["seeds"]))
    machine, versions = result["machine"], result["versions"]
    many = "Mean ± sample standard deviation"
    if result.get("center") == "median":
        many = "Median (smallest to largest)"
    lines += [
        f"{many} over seeds {seeds}."
        if len(result["seeds"]) > 1
        else f"Seed {seeds}; no deviation from a single seed.",
        "",
        f"Made by `{result['command']}` at commit `{result['commit'][:12]}` on {machine['processor']}, "
        f"{machine['cores']} cores, {machine['system']}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        *_origins(result),
    ]
    return "\n".join(lines) + "\n"


def _origins(result: dict[str, Any]) -> list[str]:
    """A paragraph on the cells that were made at other commits, commit by commit."""
    made: dict[str, dict[str, list[str]]] = {}
    for cell in result["cells"]:
        origin = cell.get("commit", result["commit"])
        if cell["status"] == "done" and origin != result["commit"]:
            seeds = made.setdefault(origin, {}).setdefault(cell["row"], [])
            seeds += [] if cell["seed"] is None else [str(cell["seed"])]
    if not made:
        return []
    parts = [
        f"`{origin[:12]}`: "
        + ", ".join(name + (f" (seed {', '.join(seeds)})" if seeds else "") for name, seeds in rows.items())
        for origin, rows in made.items()
    ]
    return ["", f"Cells made at other commits, with the same settings: {'; '.join(parts)}."]


def _table(result: dict[str, Any]) -> list[str]:
    columns, rows = result["columns"], result["rows"]
    compared = {c["name"]: any(c["name"] in row["published"] for row in rows) for c in columns}
    heads = ["method"]
    for column in columns:
        heads += [column["label"], "published"] if compared[column["name"]] else [column["label"]]
    body = []
    for row in rows:
        cells = [row["label"] + _missing(row)]
        for column in columns:
            name = column["name"]
            cells.append(_ours(row, column))
            if compared[name]:
                entry = row["published"].get(name)
                cells.append("" if entry is None else _mean(entry, column["format"]))
        body.append(cells)
    return markdown_table(heads, body)


def _missing(row: dict[str, Any]) -> str:
    """How many cells of a row are in no mean; nothing where all are missing: every number says so."""
    missing = [
        f"{len(row[key])} of {row['cells']} {words}"
        for key, words in (("failed", "failed"), ("not_run", "not run"))
        if 0 < len(row[key]) < row["cells"]
    ]
    return f" ({', '.join(missing)})" if missing else ""


def _ours(row: dict[str, Any], column: dict[str, Any]) -> str:
    entry = row["ours"].get(column["name"])
    if entry is None:
        # a finished cell without this number has none: a model that is gone has no statistics
        return "failed" if row["failed"] else "not run" if len(row["not_run"]) == row["cells"] else "–"
    return _mean(entry, column["format"])


def _mean(entry: dict[str, Any], format: str) -> str:
    if "median" in entry:
        return _median(entry, format)
    if isinstance(entry["mean"], str):
        return entry["mean"]
    spread = "" if entry["std"] is None else f" ± {entry['std']:{format}}"
    return f"{entry['mean']:{format}}{spread}"


def _median(entry: dict[str, Any], format: str) -> str:
    low, middle, high = (
        v if isinstance(v, str) else f"{v:{format}}" for v in (entry["low"], entry["median"], entry["high"])
    )
    return middle if entry["count"] == 1 else f"{middle} ({low} to {high})"


def _reference(comparisons: list[dict[str, Any]]) -> list[str]:
    heads = ["compared with published arrays", "ours", "published", "tolerance", "agrees"]
    rows = []
    for c in comparisons:
        both = (c["ours"], c["reference"])
        numbers = [f"{v:.6g}" if isinstance(v, float | int) else v for v in both]
        rows.append([c["what"], *numbers, f"{c['atol']:g}", "yes" if c["agrees"] else "**no**"])
    return [*markdown_table(heads, rows), ""]
