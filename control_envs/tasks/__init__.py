"""Tasks: one gym-free file each, discovered by name."""

from __future__ import annotations

import difflib

from control_envs.errors import UnknownTaskError
from control_envs.tasks.base import Task, TaskConstraint, embed, keep_out, limit
from control_envs.tasks.car import CarTask
from control_envs.tasks.cart_pole import CartPoleTask
from control_envs.tasks.clearance import Clearance
from control_envs.tasks.double_integrator import DoubleIntegratorTask
from control_envs.tasks.kinematic_unicycle import ELLIPSE, KinematicUnicycleTask
from control_envs.tasks.linear import LinearTask
from control_envs.tasks.manipulator import ManipulatorTask
from control_envs.tasks.pendulum import PendulumTask
from control_envs.tasks.planar_birotor import PlanarBirotorTask
from control_envs.tasks.planar_rotorcraft import PlanarRotorcraftTask, PVTOLTask
from control_envs.tasks.quadrotor import QuadrotorTask
from control_envs.tasks.regulation import QuadraticTask, RegulationTask
from control_envs.tasks.spacecraft import SpacecraftTask
from control_envs.tasks.unicycle_obstacles import EllipseBarrier, UnicycleObstacles
from control_envs.tasks.van_der_pol import VanDerPolTask

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        UnicycleObstacles,
        KinematicUnicycleTask,
        DoubleIntegratorTask,
        PendulumTask,
        CartPoleTask,
        CarTask,
        PlanarRotorcraftTask,
        PVTOLTask,
        QuadrotorTask,
        ManipulatorTask,
        LinearTask,
        VanDerPolTask,
        SpacecraftTask,
        PlanarBirotorTask,
    )
}


def make_task(name: str) -> Task:
    """The task of this name with its published constants.

    Raises:
        UnknownTaskError: No task has this name; the message suggests the nearest.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)
        raise UnknownTaskError(f"unknown task '{name}'. Did you mean '{near[0]}'? Tasks: {', '.join(TASKS)}.")
    return TASKS[name]()


__all__ = [
    "ELLIPSE",
    "TASKS",
    "CarTask",
    "CartPoleTask",
    "Clearance",
    "DoubleIntegratorTask",
    "EllipseBarrier",
    "KinematicUnicycleTask",
    "LinearTask",
    "ManipulatorTask",
    "PVTOLTask",
    "PendulumTask",
    "PlanarBirotorTask",
    "PlanarRotorcraftTask",
    "QuadraticTask",
    "QuadrotorTask",
    "RegulationTask",
    "SpacecraftTask",
    "Task",
    "TaskConstraint",
    "UnicycleObstacles",
    "VanDerPolTask",
    "embed",
    "keep_out",
    "limit",
    "make_task",
]
