"""Closed-loop training: what is trained, its evaluation, and runs on disk."""

from constrained_nn.training.closed_loop.backbone import make_backbone
from constrained_nn.training.closed_loop.config import TrainConfig
from constrained_nn.training.closed_loop.defaults import default_settings
from constrained_nn.training.closed_loop.evaluation import Evaluation, evaluate, measure, simulate
from constrained_nn.training.closed_loop.loop import TEST_STARTS, describe_test_starts, train
from constrained_nn.training.closed_loop.margins import ConstraintReport, report_constraints
from constrained_nn.training.closed_loop.parallel import train_many
from constrained_nn.training.closed_loop.runs import RESULT, Run, load_run, new_run, read_config, read_result

__all__ = [
    "RESULT",
    "TEST_STARTS",
    "ConstraintReport",
    "Evaluation",
    "Run",
    "TrainConfig",
    "default_settings",
    "describe_test_starts",
    "evaluate",
    "load_run",
    "make_backbone",
    "measure",
    "new_run",
    "read_config",
    "read_result",
    "report_constraints",
    "simulate",
    "train",
    "train_many",
]
