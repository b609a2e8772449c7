"""Backbones of learned dynamics: networks between states and between fields on periodic grids."""

from constrained_nn.operators.deeponet import DeepONet
from constrained_nn.operators.fourier import FNO, SpectralConv, SpectralScaling, resample
from constrained_nn.operators.gated import GatedOperator
from constrained_nn.operators.increment import FieldIncrement, Increment
from constrained_nn.operators.mlp import MLP
from constrained_nn.operators.transport import TransportOperator

__all__ = [
    "FNO",
    "MLP",
    "DeepONet",
    "FieldIncrement",
    "GatedOperator",
    "Increment",
    "SpectralConv",
    "SpectralScaling",
    "TransportOperator",
    "resample",
]
