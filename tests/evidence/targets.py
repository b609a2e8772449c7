"""Stand-ins for the process of a study's cell; they load neither torch nor the toolkit's methods."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path


def quick(config: dict, scenarios: list[dict], directory: Path, fingerprint: str) -> None:
    """Numbers from the seed: every method has the same noise for the same start state, and its own offset."""
    offset = {"hardnet": 1.0, "soft": 3.0, "none": 2.0, "nominal": 5.0, "dc3": 4.0}[config["method"]]
    found = {}
    for scenario in scenarios:
        noise = random.Random(scenario["seed"])
        costs = [100.0 * noise.random() + offset + 0.1 * config["seed"] for _ in range(scenario["count"])]
        zero = [0.0] * len(costs)
        names = (
            "max_violation",
            "mean_violation",
            "violated",
            "margin",
            "worst_row",
            "incomplete",
            "collided",
        )
        found[scenario["name"]] = {"cost": costs} | dict.fromkeys(names, zero)
    save(directory, {"fingerprint": fingerprint, "status": "done", "scenarios": found})


def save(directory: Path, result: dict) -> None:
    (directory / "started").open("a").write("x")
    (directory / "cell.json").write_text(json.dumps(result))


def soft_fails(config: dict, scenarios: list[dict], directory: Path, fingerprint: str) -> None:
    """The cell of `soft` with seed 2 reports an error; that of `none` with seed 1 is killed."""
    if (config["method"], config["seed"]) == ("soft", 2):
        save(directory, {"fingerprint": fingerprint, "status": "failed", "error": "ConvergenceError: no way"})
    elif (config["method"], config["seed"]) == ("none", 1):
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        quick(config, scenarios, directory, fingerprint)


def one_diverges(config: dict, scenarios: list[dict], directory: Path, fingerprint: str) -> None:
    """The first run of `soft` diverges in every scenario."""
    quick(config, scenarios, directory, fingerprint)
    if config["method"] == "soft":
        saved = json.loads((directory / "cell.json").read_text())
        for metrics in saved["scenarios"].values():
            for values in metrics.values():
                values[0] = None
        save(directory, saved)


def endless(config: dict, scenarios: list[dict], directory: Path, fingerprint: str) -> None:
    """Only `hardnet` with seed 1 ends."""
    if (config["method"], config["seed"]) != ("hardnet", 1):
        time.sleep(600)
    quick(config, scenarios, directory, fingerprint)
