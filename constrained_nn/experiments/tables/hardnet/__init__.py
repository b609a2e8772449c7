"""Tables of HardNet."""

from constrained_nn.experiments.tables.hardnet.learning_to_optimize import published_program

__all__ = ["published_program"]
