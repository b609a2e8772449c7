"""The benchmark beside conic solvers measures what it says."""

from __future__ import annotations

import pytest

from constrained_nn.bench.lmi import measure, ratios, table


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_a_small_run() -> None:
    record = measure("controller", batch=8, samples=4, repeats=1, device="cpu")
    ours, *rivals = record["rows"]
    assert ours["peer"] == "LMINet"
    assert ours["violated"] == 0
    assert {r["peer"].split()[0].rstrip(",") for r in rivals} == {"SCS", "Clarabel"}
    assert all(r["ms"] > 0 for r in record["rows"])
    reference = next(r for r in rivals if "distance" in r)
    assert reference["distance"] < 1e-4  # four samples
    scs, clarabel = ratios(record)
    assert scs == pytest.approx(next(r["ms"] for r in rivals if "each" in r["peer"]) / ours["ms"])
    assert clarabel <= min(r["ms"] for r in rivals if r["peer"] == "Clarabel, compiled") / ours["ms"] + 1e-12
    assert str(table(record).caption).endswith(("met", "missed"))
