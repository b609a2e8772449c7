"""Flows: chaotic partial differential equations on periodic grids, solved in Fourier space."""

from control_envs.flows.base import Flow
from control_envs.flows.kolmogorov import KolmogorovFlow
from control_envs.flows.kuramoto_sivashinsky import KuramotoSivashinsky
from control_envs.flows.random_fields import gaussian_field
from control_envs.flows.record import record
from control_envs.flows.steppers import ETDRK4, CrankNicolsonHeun, Stepper

__all__ = [
    "ETDRK4",
    "CrankNicolsonHeun",
    "Flow",
    "KolmogorovFlow",
    "KuramotoSivashinsky",
    "Stepper",
    "gaussian_field",
    "record",
]
