"""Methods that are compared, one object a file: how a network is wrapped, penalized and corrected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from constrained_nn.registry import Kind, find
from constrained_nn.training.methods.base import Condition, Method, MethodController
from constrained_nn.training.methods.cbf_qp import CBFQP
from constrained_nn.training.methods.completed import Completed
from constrained_nn.training.methods.dc3 import DC3
from constrained_nn.training.methods.hardnet import HardNet
from constrained_nn.training.methods.nominal import Nominal
from constrained_nn.training.methods.soft import Soft
from constrained_nn.training.methods.unconstrained import Unconstrained

METHODS: dict[str, Method] = {
    method.name: method for method in (Unconstrained(), Soft(), DC3(), HardNet(), CBFQP(), Nominal())
}


KIND = Kind("method", Method, "constrained_nn.methods")


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method that a name, `module:Name`, `file.py:Name` or an entry point means, with options.

    Raises:
        UnknownNameError: There is no such method; the message suggests the nearest.
        TypeError: The method has no such option.
    """
    return find(KIND, name, METHODS, options)


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
