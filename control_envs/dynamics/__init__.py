"""Plants: one file each, physics written once."""

from control_envs.arrays import constant, namespace, stack
from control_envs.dynamics.base import ControlAffine, Dynamics, Mechanical, Quantity, circle
from control_envs.dynamics.car import Car
from control_envs.dynamics.cart_pole import CartPole
from control_envs.dynamics.double_integrator import DoubleIntegrator
from control_envs.dynamics.kinematic_unicycle import KinematicUnicycle
from control_envs.dynamics.linear import LinearSystem, symmetric_family
from control_envs.dynamics.lorenz import Lorenz63, Lorenz96
from control_envs.dynamics.manipulator import Manipulator
from control_envs.dynamics.n_link_pendulum import NLinkPendulum
from control_envs.dynamics.path_following import PathFollowing
from control_envs.dynamics.pendulum import Pendulum
from control_envs.dynamics.planar_birotor import PlanarBirotor
from control_envs.dynamics.planar_rotorcraft import PlanarRotorcraft, air_velocity
from control_envs.dynamics.pvtol import PVTOL
from control_envs.dynamics.quadrotor import Quadrotor
from control_envs.dynamics.spacecraft import Spacecraft
from control_envs.dynamics.unicycle import Unicycle
from control_envs.dynamics.van_der_pol import VanDerPol

__all__ = [
    "PVTOL",
    "Car",
    "CartPole",
    "ControlAffine",
    "DoubleIntegrator",
    "Dynamics",
    "KinematicUnicycle",
    "LinearSystem",
    "Lorenz63",
    "Lorenz96",
    "Manipulator",
    "Mechanical",
    "NLinkPendulum",
    "PathFollowing",
    "Pendulum",
    "PlanarBirotor",
    "PlanarRotorcraft",
    "Quadrotor",
    "Quantity",
    "Spacecraft",
    "Unicycle",
    "VanDerPol",
    "air_velocity",
    "circle",
    "constant",
    "namespace",
    "stack",
    "symmetric_family",
]
