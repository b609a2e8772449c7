"""Plants: one file each, physics written once."""

from control_envs.dynamics._base import ControlAffine, Dynamics, Quantity
from control_envs.dynamics.double_integrator import DoubleIntegrator
from control_envs.dynamics.pendulum import Pendulum
from control_envs.dynamics.unicycle import Unicycle

__all__ = ["ControlAffine", "DoubleIntegrator", "Dynamics", "Pendulum", "Quantity", "Unicycle"]
