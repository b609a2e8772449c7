"""Published experiments, one file each, and what runs them."""

from constrained_nn.experiments.runner import Column, Comparison, Experiment, Published, Row, available, load

__all__ = ["Column", "Comparison", "Experiment", "Published", "Row", "available", "load"]
