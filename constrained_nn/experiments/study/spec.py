"""The file that describes a study: methods × tasks × scenarios × seeds."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from constrained_nn.errors import FileFormatError
from constrained_nn.experiments.study.rows import RowsSpec, Seed
from constrained_nn.files import read_text
from constrained_nn.registry import describe_unknown
from constrained_nn.settings import MOST_SEED
from constrained_nn.training import TrainConfig, Unconstrained, make_method
from control_envs.tasks import UnicycleObstacles, make_task

# metric of a run -> heading of its mean
METRICS = {
    "cost": "cost",
    "max_violation": "max violation",
    "mean_violation": "mean violation",
    "violated": "violated rows",
    "collided": "share of collisions",
    "margin": "margin",
    "worst_row": "worst row",
}
SHARES = ("collided",)  # metrics whose values are 0 or 1
_MAX_BYTES = 2**20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodSpec(_Strict):
    """A method with its options, under a label of its own."""

    method: str
    label: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> MethodSpec:
        try:
            make_method(self.method, self.options)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(str(error)) from None
        if self.training and not self.learns:
            raise ValueError(f"method '{self.method}' learns nothing. Leave its training out.")
        if not self.label:
            object.__setattr__(self, "label", self.method)
        return self

    @property
    def learns(self) -> bool:
        return make_method(self.method, self.options).learns


class ScenarioSpec(_Strict):
    """A named set of start states: `count` draws with `seed`, or a published `split` of the task."""

    name: str
    count: int | None = Field(default=None, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    split: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ScenarioSpec:
        if (self.count is None) == (self.split is None):
            raise ValueError(f"scenario '{self.name}': give either count (with seed) or split.")
        if self.split is not None and "seed" in self.model_fields_set:
            raise ValueError(f"scenario '{self.name}': a split has no seed. Leave seed out.")
        return self


class StudySpec(_Strict):
    """A study; every method meets the same start states, so that differences are paired."""

    name: str = "study"
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    tasks: tuple[str, ...] = Field(min_length=1)
    scenarios: tuple[ScenarioSpec, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=10_000)
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: tuple[str, ...] = ("cost", "max_violation", "collided")
    baseline: str | None = None
    confidence: float = Field(default=0.95, ge=0.5, lt=1.0)
    resamples: int = Field(default=4000, ge=100, le=1_000_000)

    @field_validator("training")
    @classmethod
    def _training_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = {f.name for f in fields(TrainConfig)} - {"task", "method", "seed"}
        for name in value:
            _known("training setting", name, sorted(known))
        try:
            types = get_type_hints(TrainConfig)
            kinds: dict[str, Any] = {name: (types[name], ...) for name in value}
            settings = create_model("TrainConfig", **kinds).model_validate(value)
            TrainConfig(UnicycleObstacles(), Unconstrained(), **dict(settings))  # ranges, whatever the cell
        except ValidationError as error:
            raise ValueError(_first(error)) from None
        return value

    @field_validator("tasks")
    @classmethod
    def _task_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                make_task(name)
            except LookupError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        labels = [m.label for m in self.methods]
        _once("method label", labels, " Give one of them another label.")
        _once("seed", list(self.seeds))
        _once("task", list(self.tasks))
        _once("scenario", [s.name for s in self.scenarios])
        _once("metric", list(self.metrics))
        for metric in self.metrics:
            _known("metric", metric, list(METRICS))
        if self.baseline is not None:
            _known("baseline", self.baseline, labels)
        for method in self.methods:
            StudySpec._training_fields(method.training)
        for task in self.tasks:
            splits = getattr(make_task(task), "published_starts", dict)()
            for scenario in self.scenarios:
                if scenario.split is not None:
                    _known(f"split of task '{task}'", scenario.split, sorted(splits))
        return self

    def config(self, method: MethodSpec, task: str, seed: int) -> TrainConfig:
        """Settings of the training run of one cell."""
        settings = {**self.training, **method.training}
        if "hidden" in settings:
            settings["hidden"] = tuple(settings["hidden"])
        chosen = make_method(method.method, method.options)
        return TrainConfig(make_task(task), chosen, seed=seed, **settings)

    def settings(self, method: MethodSpec, task: str, seed: int) -> dict[str, Any]:
        """The same as JSON values, with the options as the study states them: cells are named by these."""
        return self.config(method, task, seed).to_json() | {"options": method.options}


def read_study(path: Path) -> StudySpec | RowsSpec:
    """The study in a YAML file: of methods on tasks, or of the rows of an `experiment`.

    Raises:
        FileFormatError: The file is missing, is not YAML, or does not describe a study; the message
            says where.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise FileFormatError(f"{path}: expected a study of at most 1 MiB, got {size} bytes.")
        content = yaml.load(read_text(path), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist. The guide on studies shows an example.") from None
    except UnicodeDecodeError:
        raise FileFormatError(f"{path} is not text.") from None
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise FileFormatError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}.") from None
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: expected a study with methods, tasks, scenarios and seeds.")
    try:
        return (RowsSpec if "experiment" in content else StudySpec).model_validate(content)
    except ValidationError as error:
        raise FileFormatError(f"{path}: {_first(error)}") from None
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: {error}") from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that occurs twice is an error, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key '{key}' occurs twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def _first(error: ValidationError) -> str:
    """One line on the first mistake, with the nearest known name for an unknown key."""
    found = error.errors()  # an unknown entry comes before the missing one that it was meant to be
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        models = {"methods": MethodSpec, "scenarios": ScenarioSpec}
        model = models.get(str(first["loc"][0]), RowsSpec if error.title == "RowsSpec" else StudySpec)
        return describe_unknown("entry", str(first["loc"][-1]), model.model_fields)
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where and first["type"] != "value_error" else message


def _known(what: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise ValueError(describe_unknown(what, name, names))


def _once(what: str, values: list[Any], remedy: str = " Leave one out.") -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what} '{value}' occurs twice.{remedy}")
