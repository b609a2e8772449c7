"""What a training run is: everything that determines its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch

from constrained_nn.registry import spec_of
from constrained_nn.settings import MOST_SEED, require_integer, require_real, require_widths
from constrained_nn.training.methods import METHODS, Method, make_method
from constrained_nn.training.names import options_of
from constrained_nn.training.tasks import find_task, task_spec
from control_envs.tasks import Task

_LATER = {"horizon": None, "from_nominal": False, "gains": None}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the same settings give the same numbers on the same machine.

    Args:
        task: The task.
        method: The method with its options, such as `Soft(weight=0.01)`.
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
        horizon: Samples of a training run; default: those of the task.
        from_nominal: Whether the last layer starts at zero, and training so at the nominal controller.
        gains: Decay rates of the constraints by name, as `safety_of` takes them; default: `train`
            chooses them once, and the run keeps them.

    Raises:
        TypeError: A field is not of its type.
        ValueError: A number is not finite or out of its range.
    """

    task: Task
    method: Method
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
    horizon: int | None = None
    from_nominal: bool = False
    gains: Mapping[str, tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        require_integer("TrainConfig", "steps", self.steps)
        require_integer("TrainConfig", "batch", self.batch, least=1)
        require_integer("TrainConfig", "eval_every", self.eval_every, least=1)
        require_integer("TrainConfig", "seed", self.seed, most=MOST_SEED)
        require_real("TrainConfig", "learning_rate", self.learning_rate, above=0.0)
        if self.horizon is not None:
            require_integer("TrainConfig", "horizon", self.horizon, least=1)
        if not isinstance(self.from_nominal, bool):
            raise TypeError(
                f"TrainConfig: expected from_nominal as true or false, got {self.from_nominal!r}. Give one of them."
            )
        if self.gains is not None:
            object.__setattr__(self, "gains", _read_gains(self.gains))
        require_real("TrainConfig", "final_learning_rate", self.final_learning_rate, least=0.0, optional=True)
        for name in ("max_gradient_norm", "max_adjoint_norm"):
            require_real("TrainConfig", name, getattr(self, name), above=0.0, optional=True)
        for name, kind, example in (
            ("task", Task, "make_task('unicycle-obstacles')"),
            ("method", Method, "HardNet()"),
        ):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"TrainConfig: expected {name} as a {kind.__name__}, such as {example}, got "
                    f"{getattr(self, name)!r}. Names are for the command line."
                )
        if self.dtype not in tuple(DTYPES):
            raise ValueError(f"TrainConfig: expected dtype of {', '.join(DTYPES)}, got '{self.dtype}'.")
        object.__setattr__(self, "hidden", require_widths("TrainConfig", "hidden", self.hidden))

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def to_json(self) -> dict[str, Any]:
        """JSON values; a task or a method that is none of ours is named `module:Name`.

        Raises:
            TypeError: Task or method is of a class that cannot be found by name, or an option is no JSON value.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)} | {
            "task": task_spec(self.task),
            "method": spec_of(self.method, METHODS),
            "options": options_of(self.method),
            "hidden": list(self.hidden),
        }
        # what came later stands in a file only where it is used, so that earlier runs stay the same
        for name, default in _LATER.items():
            if values[name] == default:
                del values[name]
        if self.gains is not None:
            values["gains"] = {name: list(each) for name, each in self.gains.items()}
        changed = options_of(self.task)
        return values | ({"task_options": changed} if changed else {})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainConfig:
        """The settings that `to_json` wrote; the module of a foreign task or method is imported.

        Raises:
            LookupError: There is no such task or method.
            ValueError: An entry is missing or unknown; `TypeError` for one of another type.
        """
        names = {f.name for f in fields(cls)} | {"options", "task_options"}
        unknown, missing = set(data) - names, {"task", "method"} - set(data)
        if unknown or missing:
            what = f"unknown {sorted(unknown)}" if unknown else f"no {sorted(missing)}"
            raise ValueError(f"TrainConfig: expected the entries {sorted(names)}, got {what}.")
        rest = dict(data)
        for name in ("task", "method"):
            if not isinstance(rest[name], str):
                raise TypeError(f"TrainConfig: expected {name} as a name, got {rest[name]!r}.")
        for name in ("options", "task_options"):
            if not isinstance(rest.setdefault(name, {}), dict):
                raise TypeError(f"TrainConfig: expected {name} as a dict, got {rest[name]!r}.")
        task = find_task(rest.pop("task"), rest.pop("task_options"))
        method = make_method(rest.pop("method"), rest.pop("options"))
        if isinstance(rest.get("hidden"), list):  # as JSON gives it
            rest["hidden"] = tuple(rest["hidden"])
        return cls(task, method, **rest)


def _read_gains(gains: Any) -> dict[str, tuple[float, ...]]:
    """Gains by constraint; lists, as JSON gives them, become tuples."""
    try:
        found = {name: tuple(map(float, each)) for name, each in gains.items()}
    except (AttributeError, TypeError, ValueError):
        found = {"": (float("nan"),)}
    if not all(
        isinstance(name, str) and all(0 < g < float("inf") for g in each) for name, each in found.items()
    ):
        raise ValueError(
            f"TrainConfig: expected gains as positive rates [1/s] by the name of a constraint, such as "
            f"{{'wall': (2.0, 4.0)}}, got {gains!r}. Give rates, or leave them out to have them chosen."
        )
    return found
