"""Certificate functions: state -> constraint set."""

from constrained_nn.certificates._barrier import ControlBarrier
from constrained_nn.certificates._energy import DenseEnergy, DiagonalEnergy, EnergyFunction, LowRankEnergy
from constrained_nn.certificates._energy_fields import FourierEnergy, NeuralEnergy
from constrained_nn.certificates._energy_report import energy_report
from constrained_nn.certificates._lyapunov import LyapunovFunction, QuadraticLyapunov
from constrained_nn.certificates._neural_lyapunov import BiLipschitzLyapunov, NeuralLyapunov
from constrained_nn.certificates._sampled_barrier import SampledBarrier

__all__ = [
    "BiLipschitzLyapunov",
    "ControlBarrier",
    "DenseEnergy",
    "DiagonalEnergy",
    "EnergyFunction",
    "FourierEnergy",
    "LowRankEnergy",
    "LyapunovFunction",
    "NeuralEnergy",
    "NeuralLyapunov",
    "QuadraticLyapunov",
    "SampledBarrier",
    "energy_report",
]
