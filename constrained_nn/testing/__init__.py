"""The contracts of this package, for other people's sets, layers, controllers and tasks.

Each function raises `AssertionError` with what was expected, what came and what to do; pytest is not needed.
"""

from constrained_nn.testing.controllers import check_controller
from constrained_nn.testing.layers import check_layer
from constrained_nn.testing.sets import check_set
from constrained_nn.testing.tasks import check_task
from constrained_nn.testing.tensors import element, is_shared, tensor_fields, tensor_of, with_tensors

__all__ = [
    "check_controller",
    "check_layer",
    "check_set",
    "check_task",
    "element",
    "is_shared",
    "tensor_fields",
    "tensor_of",
    "with_tensors",
]
