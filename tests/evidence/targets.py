"""Stand-ins for the work of a study's cell; they load neither torch nor the toolkit's methods."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path


def quick(config: dict, scenarios: list[dict], folder: Path) -> dict:
    """Numbers from the seed: every method has the same noise for the same start state, and its own offset."""
    offset = {"hardnet": 1.0, "soft": 3.0, "none": 2.0, "nominal": 5.0, "dc3": 4.0}[config["method"]]
    names = ("max_violation", "mean_violation", "violated", "margin", "worst_row", "incomplete", "collided")
    found = {}
    for scenario in scenarios:
        noise = random.Random(scenario["seed"])
        costs = [100.0 * noise.random() + offset + 0.1 * config["seed"] for _ in range(scenario["count"])]
        found[scenario["name"]] = {"cost": costs} | {name: [0.0] * len(costs) for name in names}
    with (folder / "started").open("a") as file:
        file.write("x")
    return {"scenarios": found}


def soft_fails(config: dict, scenarios: list[dict], folder: Path) -> dict:
    """The cell of `soft` with seed 2 raises; that of `none` with seed 1 is killed."""
    if (config["method"], config["seed"]) == ("none", 1):
        os.kill(os.getpid(), signal.SIGKILL)
    found = quick(config, scenarios, folder)
    if (config["method"], config["seed"]) == ("soft", 2):
        raise ArithmeticError("no way")
    return found


def one_diverges(config: dict, scenarios: list[dict], folder: Path) -> dict:
    """The first run of `soft` diverges in every scenario."""
    found = quick(config, scenarios, folder)
    if config["method"] == "soft":
        for metrics in found["scenarios"].values():
            for values in metrics.values():
                values[0] = None
    return found


def endless(config: dict, scenarios: list[dict], folder: Path) -> dict:
    """Only `hardnet` with seed 1 ends."""
    if (config["method"], config["seed"]) != ("hardnet", 1):
        time.sleep(600)
    return quick(config, scenarios, folder)
