"""Flows: chaotic partial differential equations on periodic grids, solved in Fourier space."""

from control_envs.flows._base import Flow
from control_envs.flows._random_fields import gaussian_field
from control_envs.flows._record import record
from control_envs.flows._steppers import ETDRK4, CrankNicolsonHeun, Stepper
from control_envs.flows.kolmogorov import KolmogorovFlow
from control_envs.flows.kuramoto_sivashinsky import KuramotoSivashinsky

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
