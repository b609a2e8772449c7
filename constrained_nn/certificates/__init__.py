"""Certificate functions: state -> constraint set."""

from constrained_nn.certificates._barrier import ControlBarrier
from constrained_nn.certificates._lyapunov import LyapunovFunction, QuadraticLyapunov
from constrained_nn.certificates._neural_lyapunov import BiLipschitzLyapunov, NeuralLyapunov

__all__ = [
    "BiLipschitzLyapunov",
    "ControlBarrier",
    "LyapunovFunction",
    "NeuralLyapunov",
    "QuadraticLyapunov",
]
