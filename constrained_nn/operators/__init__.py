"""Backbones of learned dynamics: networks between states and between fields on periodic grids."""

from constrained_nn.operators._deeponet import DeepONet
from constrained_nn.operators._fourier import FNO, SpectralConv, SpectralScaling, resample
from constrained_nn.operators._gated import GatedOperator
from constrained_nn.operators._increment import FieldIncrement, Increment
from constrained_nn.operators._mlp import MLP
from constrained_nn.operators._transport import TransportOperator

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
