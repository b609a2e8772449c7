"""Control-oriented meta-learning: an ensemble of models, and features trained through the closed loop."""

from constrained_nn.training.meta.ensemble import ForceData, ForceEnsemble, fit_ensemble, force_data
from constrained_nn.training.meta.loop import LearnedPlant, MetaConfig, meta_train
from constrained_nn.training.meta.ridge import fit_ridge_features
from constrained_nn.training.meta.stacked import StackedAffine, StackedMLP, StackedSamples, StateFeatures

__all__ = [
    "ForceData",
    "ForceEnsemble",
    "LearnedPlant",
    "MetaConfig",
    "StackedAffine",
    "StackedMLP",
    "StackedSamples",
    "StateFeatures",
    "fit_ensemble",
    "fit_ridge_features",
    "force_data",
    "meta_train",
]
