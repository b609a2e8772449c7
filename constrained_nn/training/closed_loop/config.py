"""What a training run is: everything that determines its numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import torch

from constrained_nn.settings import MOST_SEED, require_integer, require_real, require_widths

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

    Raises:
        TypeError: A field is not of its type.
        ValueError: A number is not finite or out of its range.
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
        require_integer("TrainConfig", "steps", self.steps)
        require_integer("TrainConfig", "batch", self.batch, least=1)
        require_integer("TrainConfig", "eval_every", self.eval_every, least=1)
        require_integer("TrainConfig", "seed", self.seed, most=MOST_SEED)
        require_real("TrainConfig", "learning_rate", self.learning_rate, above=0.0)
        require_real("TrainConfig", "final_learning_rate", self.final_learning_rate, least=0.0, optional=True)
        for name in ("max_gradient_norm", "max_adjoint_norm"):
            require_real("TrainConfig", name, getattr(self, name), above=0.0, optional=True)
        for name in ("task", "method"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"TrainConfig: expected {name} as a name, got {getattr(self, name)!r}.")
        if not isinstance(self.options, dict):
            raise TypeError(f"TrainConfig: expected options as a dict, got {self.options!r}.")
        if self.dtype not in tuple(DTYPES):
            raise ValueError(f"TrainConfig: expected dtype of {', '.join(DTYPES)}, got '{self.dtype}'.")
        object.__setattr__(self, "hidden", require_widths("TrainConfig", "hidden", self.hidden))

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
        if isinstance(data.get("hidden"), list):  # as JSON gives it
            data = {**data, "hidden": tuple(data["hidden"])}
        return cls(**data)
