"""Training loops, the methods that they compare, and runs on disk."""

from constrained_nn.training._config import TrainConfig
from constrained_nn.training._dc3 import DC3Controller
from constrained_nn.training._descend import History, descend
from constrained_nn.training._dynamics import (
    Samples,
    WorstStates,
    dynamics_loss,
    fit_dynamics,
    sample_dynamics,
)
from constrained_nn.training._ensemble import ForceData, ForceEnsemble, fit_ensemble, force_data
from constrained_nn.training._evaluate import Evaluation, evaluate, measure, simulate
from constrained_nn.training._meta import LearnedPlant, MetaConfig, meta_train
from constrained_nn.training._methods import (
    METHODS,
    Method,
    barrier_of,
    make_backbone,
    make_method,
)
from constrained_nn.training._operators import (
    Sobolev,
    SoftDissipativity,
    fit_operator,
    mean_square,
    multistep_loss,
)
from constrained_nn.training._parallel import train_many
from constrained_nn.training._ridge import fit_ridge_features
from constrained_nn.training._run import Run, load_run, read_config, read_result
from constrained_nn.training._stacked import StackedAffine, StackedMLP, StackedSamples, StateFeatures
from constrained_nn.training._supervised import Completed, Correction, Enforcement, Layer, Penalty, fit
from constrained_nn.training._train import train

__all__ = [
    "METHODS",
    "Completed",
    "Correction",
    "DC3Controller",
    "Enforcement",
    "Evaluation",
    "ForceData",
    "ForceEnsemble",
    "History",
    "Layer",
    "LearnedPlant",
    "MetaConfig",
    "Method",
    "Penalty",
    "Run",
    "Samples",
    "Sobolev",
    "SoftDissipativity",
    "StackedAffine",
    "StackedMLP",
    "StackedSamples",
    "StateFeatures",
    "TrainConfig",
    "WorstStates",
    "barrier_of",
    "descend",
    "dynamics_loss",
    "evaluate",
    "fit",
    "fit_dynamics",
    "fit_ensemble",
    "fit_operator",
    "fit_ridge_features",
    "force_data",
    "load_run",
    "make_backbone",
    "make_method",
    "mean_square",
    "measure",
    "meta_train",
    "multistep_loss",
    "read_config",
    "read_result",
    "sample_dynamics",
    "simulate",
    "train",
    "train_many",
]
