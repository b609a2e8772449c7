"""One cell of a study, in a process of its own: train, then meet every scenario."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

from constrained_nn.files import write_values

CELL = "cell.json"


def run_cell(
    config: dict[str, Any], scenarios: list[dict[str, Any]], directory: Path, fingerprint: str
) -> None:
    """Train (or go on, or reuse a finished run) and measure every run of every scenario; never raises.

    Args:
        config: Settings of the training run, as JSON values.
        scenarios: Scenarios, as JSON values.
        directory: Folder of the cell.
        fingerprint: Kept with the result.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption ends
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = {"fingerprint": fingerprint}
    try:
        result |= {"status": "done", "scenarios": measure_cell(config, scenarios, directory / "run")}
    except Exception as error:
        result |= {"status": "failed", "error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    write_values(directory / CELL, result)


def measure_cell(
    config: dict[str, Any], scenarios: list[dict[str, Any]], run_directory: Path
) -> dict[str, dict[str, list[float | None]]]:
    """Scenario -> metric -> one value a run; None where a value is not finite."""
    import torch

    from constrained_nn.training import TrainConfig, load_run, measure, train

    settings = TrainConfig.from_json(config)
    if (run_directory / "result.json").exists():
        run = load_run(run_directory)
    else:
        run = train(settings, run_directory, resume=True, command="constrained-nn study")
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
    return found


def scenario_starts(task: Any, scenario: dict[str, Any]) -> Any:
    """Start states `(count, n)` of a scenario; the same for every method."""
    if scenario["split"] is not None:
        return task.published_starts()[scenario["split"]]
    from constrained_nn.evidence import fresh_starts

    return fresh_starts(task, scenario["count"], scenario["seed"])
