"""Closed-loop training: the loop, the methods it compares, their evaluation, and runs on disk."""

from constrained_nn.training.closed_loop.config import TrainConfig
from constrained_nn.training.closed_loop.dc3 import DC3Controller
from constrained_nn.training.closed_loop.evaluation import Evaluation, evaluate, measure, simulate
from constrained_nn.training.closed_loop.loop import train
from constrained_nn.training.closed_loop.methods import (
    METHODS,
    Method,
    barrier_of,
    make_backbone,
    make_method,
)
from constrained_nn.training.closed_loop.parallel import train_many
from constrained_nn.training.closed_loop.runs import RESULT, Run, load_run, new_run, read_config, read_result

__all__ = [
    "METHODS",
    "RESULT",
    "DC3Controller",
    "Evaluation",
    "Method",
    "Run",
    "TrainConfig",
    "barrier_of",
    "evaluate",
    "load_run",
    "make_backbone",
    "make_method",
    "measure",
    "new_run",
    "read_config",
    "read_result",
    "simulate",
    "train",
    "train_many",
]
