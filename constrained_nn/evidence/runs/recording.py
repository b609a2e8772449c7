"""Grade `proof`: the rows of every held input along closed-loop runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from constrained_nn.evidence.runs.subject import CHUNK, Subject, simulate
from constrained_nn.verify import encode
from control_envs.simulate import SubStep

_FIELDS = ("t", "dt", "x", "A", "lower", "upper", "u")


class _Recorder:
    """Collects what is held at every sub-step."""

    def __init__(self, subject: Subject, runs: int) -> None:
        self.subject, self.runs = subject, runs
        self.chunks: list[dict[str, np.ndarray]] = []

    def __call__(self, sub: SubStep) -> None:
        count = len(sub.x)
        A, lower, upper = self.subject.rows(sub.t, sub.x)
        values = {"x": sub.x, "A": A, "lower": lower, "upper": upper, "u": sub.u}
        chunk = {name: value.double().numpy(force=True) for name, value in values.items()}
        for name, value in (("t", sub.t), ("dt", sub.dt)):
            chunk[name] = torch.as_tensor(value, dtype=torch.float64).expand(count).numpy(force=True)
        chunk["run"] = (
            np.arange(self.runs) if sub.index is None else torch.as_tensor(sub.index).numpy(force=True)
        )
        self.chunks.append(chunk)

    def by_run(self) -> dict[str, np.ndarray]:
        """All held inputs, run by run in the order of time; those with a number that is none are left out.

        A run with such an input is then not covered, which the checker sees.
        """
        whole = {name: np.concatenate([c[name] for c in self.chunks]) for name in self.chunks[0]}
        usable = np.isfinite(whole["t"]) & ~np.isnan(whole["lower"] + whole["upper"]).any(-1)
        for name in ("x", "A", "u"):
            usable &= np.isfinite(whole[name]).reshape(len(usable), -1).all(-1)
        order = np.argsort(whole["run"], kind="stable")
        order = order[usable[order]]
        return {name: value[order] for name, value in whole.items()}


def record(subject: Subject, starts: np.ndarray) -> dict[str, Any]:
    """The recorded rows of the runs from `starts` `(runs, n)`, as the data of a claim."""
    parts, counts = [], []
    for first in range(0, len(starts), CHUNK):
        chunk = starts[first : first + CHUNK]
        recorder = _Recorder(subject, len(chunk))
        simulate(subject, chunk, recorder)
        part = recorder.by_run()
        counts += np.bincount(part["run"], minlength=len(chunk)).tolist()
        parts.append(part)
    data: dict[str, Any] = {
        name: encode(np.concatenate([part[name].ravel() for part in parts]).tolist()) for name in _FIELDS
    }
    return {"counts": counts} | data
