"""Methods that are compared, one object a file: how a network is wrapped, penalized and corrected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from constrained_nn.training.methods.base import Condition, Method, MethodController
from constrained_nn.training.methods.cbf_qp import CBFQP
from constrained_nn.training.methods.completed import Completed
from constrained_nn.training.methods.dc3 import DC3
from constrained_nn.training.methods.hardnet import HardNet
from constrained_nn.training.methods.nominal import Nominal
from constrained_nn.training.methods.soft import Soft
from constrained_nn.training.methods.unconstrained import Unconstrained
from constrained_nn.training.names import find, make

METHODS: dict[str, Method] = {
    method.name: method for method in (Unconstrained(), Soft(), DC3(), HardNet(), CBFQP(), Nominal())
}


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method of this name, or of a class `module:Name` of one's own, whose module is imported.

    Raises:
        UnknownNameError: No method has this name; the message suggests the nearest.
        TypeError: The method has no such option.
    """
    kinds = {known: type(method) for known, method in METHODS.items()}
    return make(find(name, kinds, Method, "method"), options or {}, f"method '{name}'")


__all__ = [
    "CBFQP",
    "DC3",
    "METHODS",
    "Completed",
    "Condition",
    "HardNet",
    "Method",
    "MethodController",
    "Nominal",
    "Soft",
    "Unconstrained",
    "make_method",
]
