"""What a training run is: everything that determines its numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the same settings give the same numbers on the same machine.

    Args:
        task: Name of the task.
        method: Name of the method.
        options: Options of the method, such as `{"weight": 0.01}`.
        steps: Number of gradient steps; the budget is never a time.
        batch: Start states a step.
        learning_rate: Step size of Adam.
        final_learning_rate: Its last value, reached along a cosine; default: constant.
        max_gradient_norm: Clip the gradient of the mean cost to this norm; default: no clipping.
        max_adjoint_norm: Clip the gradient of each run's cost in its own state, at every time, to this norm;
            default: no clipping. A run that comes near a singular `A` has gradients a hundred times those of the
            others, and without this they alone decide the direction of the step.
        seed: Seed of the initial weights and of the order of the start states.
        hidden: Widths of the hidden layers of the backbone.
        dtype: `"float64"` or `"float32"`.
        eval_every: Steps between evaluations on the validation states, and between checkpoints.
    """

    task: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 9000
    batch: int = 100
    learning_rate: float = 1e-4
    final_learning_rate: float | None = None
    max_gradient_norm: float | None = None
    max_adjoint_norm: float | None = None
    seed: int = 1
    hidden: tuple[int, ...] = (200, 200)
    dtype: Literal["float32", "float64"] = "float64"
    eval_every: int = 90

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_every"):
            least = 0 if name == "steps" else 1
            if getattr(self, name) < least:
                raise ValueError(f"TrainConfig: expected {name} >= {least}, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"TrainConfig: expected learning_rate > 0, got {self.learning_rate}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"TrainConfig: expected dtype of {', '.join(DTYPES)}, got '{self.dtype}'.")
        object.__setattr__(self, "hidden", tuple(self.hidden))

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainConfig:
        """Raises `ValueError` for a missing or unknown entry."""
        names = {f.name for f in fields(cls)}
        unknown, missing = set(data) - names, {"task", "method"} - set(data)
        if unknown or missing:
            what = f"unknown {sorted(unknown)}" if unknown else f"no {sorted(missing)}"
            raise ValueError(f"TrainConfig: expected the entries {sorted(names)}, got {what}.")
        hidden = {"hidden": tuple(data["hidden"])} if "hidden" in data else {}  # a list in JSON
        return cls(**{**data, **hidden})
