"""What the single and the vector environment share: spaces, scaling of actions, and the report on constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from control_envs.disturbances import Disturbance
from control_envs.dynamics import Dynamics
from control_envs.scenarios import Parameters, Scenario, Scenarios, check_parameters, draw_scenario
from control_envs.tasks import Task, make_task

ACTION_ATOL = 1e-6  # rounding of float32 wrappers around the action box


class Interface:
    """Spaces and scenario rules of one task.

    Args:
        task: A task, or its name.
        horizon: Control intervals after which an episode is truncated; default the task's.
        parameters: Values or laws of physical parameters of the true plant, by name.
        disturbance: Replaces the task's disturbance of the dynamics.
        input_disturbance, measurement_disturbance: Added to the inputs and to the observed states, or None.
        scenarios: Table whose rows are played in turn instead of fresh draws.
        prior: The plant that controllers may know; default the task's plant.
    """

    def __init__(
        self,
        task: Task | str,
        *,
        horizon: int | None,
        parameters: Parameters | None,
        disturbance: Disturbance | None,
        input_disturbance: Disturbance | None,
        measurement_disturbance: Disturbance | None,
        scenarios: Scenarios | None,
        prior: Dynamics | None,
    ) -> None:
        self.task = make_task(task) if isinstance(task, str) else task
        self.horizon = int(self.task.horizon if horizon is None else horizon)
        if self.horizon < 1:
            raise ValueError(f"horizon: expected at least 1 control interval, got {horizon}.")
        self.parameters = dict(parameters or {})
        check_parameters(self.task, self.parameters)
        self.disturbances = {
            "disturbance": disturbance,
            "input_disturbance": input_disturbance,
            "measurement_disturbance": measurement_disturbance,
        }
        self.scenarios = scenarios
        if scenarios is not None:
            expected = f"{self.task.name}-v{self.task.version}"
            if scenarios.task != expected:
                raise ValueError(
                    f"scenarios: expected a table of task '{expected}', got one of '{scenarios.task}'. Draw it "
                    f"with `Scenarios.draw(task, seed=..., count=...)`."
                )
        self.prior = self.task.plant if prior is None else prior
        self.center = 0.5 * (self.task.input_low + self.task.input_high)
        self.half = 0.5 * (self.task.input_high - self.task.input_low)
        m = self.task.plant.input_dim
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (m,), np.float32)
        self.feature_low = np.asarray(self.task.feature_low, dtype=np.float32)
        self.feature_high = np.asarray(self.task.feature_high, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(self.feature_low, self.feature_high, dtype=np.float32)

    @property
    def randomized(self) -> tuple[str, ...]:
        """Parameters that every scenario brings."""
        if self.scenarios is not None:
            return tuple(self.scenarios.parameters)
        return tuple(self.parameters)

    def scenario(self, seed: int, index: int) -> Scenario:
        """Row `index` of the table where there is one, else the draw `(seed, index)`."""
        if self.scenarios is not None:
            return self.scenarios[index % len(self.scenarios)]
        return draw_scenario(
            self.task,
            seed,
            index,
            steps=self.horizon,
            parameters=self.parameters,
            **self.disturbances,
        )

    def plant(self, values: Mapping[str, Any]) -> Dynamics:
        """The true plant with these parameter values."""
        plant = self.task.plant
        return replace(plant, **values) if values else plant  # pyright: ignore[reportArgumentType]

    def metadata(self) -> dict[str, Any]:
        return {"render_modes": ["human", "rgb_array"], "render_fps": max(1, round(1.0 / self.task.dt))}

    def describe_action(self) -> str:
        """Names and units of the inputs that actions are scaled to."""
        quantities = zip(self.task.plant.input, self.task.input_low, self.task.input_high, strict=True)
        return ", ".join(f"{q.name} in [{low:g}, {high:g}] {q.unit}" for q, low, high in quantities)
