"""Certificate functions: state -> constraint set."""

from constrained_nn.certificates.barrier import ControlBarrier
from constrained_nn.certificates.energy import (
    DenseEnergy,
    DiagonalEnergy,
    EnergyFunction,
    FourierEnergy,
    LowRankEnergy,
    NeuralEnergy,
    energy_report,
)
from constrained_nn.certificates.lyapunov import AngleEmbedding, LyapunovFunction, QuadraticLyapunov
from constrained_nn.certificates.neural_lyapunov import BiLipschitzLyapunov, NeuralLyapunov
from constrained_nn.certificates.safe_inputs import (
    MOST_CORNERS,
    DegreeError,
    Judgement,
    Requirement,
    SafeInputs,
    judge,
)
from constrained_nn.certificates.sampled_barrier import SampledBarrier

__all__ = [
    "MOST_CORNERS",
    "AngleEmbedding",
    "BiLipschitzLyapunov",
    "ControlBarrier",
    "DegreeError",
    "DenseEnergy",
    "DiagonalEnergy",
    "EnergyFunction",
    "FourierEnergy",
    "Judgement",
    "LowRankEnergy",
    "LyapunovFunction",
    "NeuralEnergy",
    "NeuralLyapunov",
    "QuadraticLyapunov",
    "Requirement",
    "SafeInputs",
    "SampledBarrier",
    "energy_report",
    "judge",
]
