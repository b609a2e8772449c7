"""The benchmark of the energy condition measures what it says."""

from __future__ import annotations

from rich.console import Console

from constrained_nn.bench.energy import BAR, cost, tables, violations


def test_cost_and_violations_are_counted_and_judged() -> None:
    costs = [cost(4, 2, 3, "cpu")]
    assert min(costs[0][name] for name in ("operator_ms", "model_ms", "layer_ms")) > 0
    assert costs[0]["overhead"] == costs[0]["layer_ms"] / costs[0]["operator_ms"]
    counts = [violations("float32", "float32", 3000)]
    assert counts[0]["steps"] == 3000
    assert counts[0]["active"] > 1500
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for overhead, verdict in ((0.5 * BAR, "met"), (2 * BAR, "missed")):
        for table in tables([costs[0] | {"overhead": overhead}], counts):
            console.print(table)
        text = console.export_text()
        assert f"bar: at most 5 %: {verdict}" in text
        assert "3,000" in text
