"""The work of one cell of a study of methods: train, then meet every scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def measure_cell(
    config: dict[str, Any], scenarios: Sequence[Mapping[str, Any]], folder: Path
) -> dict[str, Any]:
    """Train (or continue, or reuse a finished run) and measure every run of every scenario.

    Args:
        config: Settings of the training run, as JSON values.
        scenarios: Scenarios, as JSON values.
        folder: Folder of the cell; the training has `run` in it.

    Returns:
        `scenarios`: scenario -> metric -> one value a run; None where a value is not finite.
    """
    import torch

    from constrained_nn.training import TrainConfig, load_run, measure, train

    settings = TrainConfig.from_json(config)
    if (folder / "run" / "result.json").exists():
        run = load_run(folder / "run")
    else:
        run = train(settings, folder / "run", resume=True, command="constrained-nn study")
    found = {}
    for scenario in scenarios:
        starts = torch.as_tensor(scenario_starts(run.task, scenario)).to(settings.torch_dtype)
        metrics, _ = measure(run.task, run.controller, starts)
        metrics["collided"] = (~(metrics["margin"] >= 0)).to(metrics["cost"].dtype)
        lost = metrics["incomplete"] > 0
        found[scenario["name"]] = {
            name: [
                value if math.isfinite(value) and not gone else None
                for value, gone in zip(values.tolist(), lost.tolist(), strict=True)
            ]
            for name, values in metrics.items()
        }
    return {"scenarios": found}


def scenario_starts(task: Any, scenario: Mapping[str, Any]) -> Any:
    """Start states `(count, n)` of a scenario; the same for every method."""
    if scenario["split"] is not None:
        return task.published_starts()[scenario["split"]]
    from constrained_nn.evidence import fresh_starts

    return fresh_starts(task, scenario["count"], scenario["seed"])
