"""Energy functions: quadratic and spectral, their fit to data, and a report on them."""

from constrained_nn.certificates.energy.fields import FourierEnergy, NeuralEnergy
from constrained_nn.certificates.energy.functions import (
    DenseEnergy,
    DiagonalEnergy,
    EnergyFunction,
    LowRankEnergy,
)
from constrained_nn.certificates.energy.report import energy_report

__all__ = [
    "DenseEnergy",
    "DiagonalEnergy",
    "EnergyFunction",
    "FourierEnergy",
    "LowRankEnergy",
    "NeuralEnergy",
    "energy_report",
]
