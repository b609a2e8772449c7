"""A set as a newcomer writes it, without the future import: a number for each element, and a setting beside it."""

import copy
import pickle

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn import (
    Constrained,
    EuclideanProjection,
    Fixed,
    HardNetConvex,
    HardNetPlusPlus,
    Intersection,
)
from constrained_nn.layers import ProjectionLayer
from constrained_nn.sets import Box, ConstraintSet, ProjectableSet, batched, constraint_set
from tests.contracts.naive import NonnegativeSum, Own

LAYERS = [Own, EuclideanProjection, HardNetConvex, HardNetPlusPlus]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda kind: kind.__name__)
def test_number_for_each_element_in_every_layer(layer: type[ProjectionLayer], generator) -> None:
    floor = torch.tensor([1.0, 5.0, -2.0], dtype=torch.float64)
    y = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    expected = y + torch.relu(floor - y.sum(-1)).unsqueeze(-1) / 2
    solution = layer().solve(y, NonnegativeSum(floor))
    assert solution.ok.all(), solution.describe_failures()
    torch.testing.assert_close(solution.value, expected, rtol=1e-7, atol=1e-7)
    single = layer().solve(y, NonnegativeSum(floor[0], n=2))
    torch.testing.assert_close(single.value[0], expected[0], rtol=1e-7, atol=1e-7)


def test_in_an_intersection(generator) -> None:
    box = Box(torch.zeros(2).double(), torch.ones(2).double())
    both = Intersection(box, NonnegativeSum(torch.tensor(1.5).double()))
    y = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    solution = EuclideanProjection().solve(y, both)
    assert solution.ok.all()
    assert both.contains(solution.value, atol=1e-9).all()


def test_constant_and_trained(generator) -> None:
    floor = nn.Parameter(torch.tensor(1.0).double())
    net = Constrained(nn.Linear(3, 2).double(), Fixed(NonnegativeSum(floor)), Own())
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    net(x).sum().backward()
    assert floor.grad is not None
    assert "constraint.floor" in net.state_dict()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), net(x))


@pytest.mark.parametrize("text", [True, False], ids=["text", "type"])
def test_declarations_say_the_same(text: bool) -> None:
    """By annotation, as text or as a type, and in numbers."""
    annotations = {"A": Float[Tensor, "*#batch m n"], "b": Float[Tensor, "*#batch"], "n": int}
    if text:
        annotations = {
            "A": 'Float[Tensor, "*#batch m n"]',
            "b": "Float[Tensor, '*#batch'] | None",
            "n": "int",
        }
    body = {"__annotations__": annotations, "n": 2, "__module__": __name__}
    assert constraint_set(type("Rows", (ConstraintSet,), body)).core_ndims == {"A": 2, "b": 0}
    numbers = {"__annotations__": {"A": Tensor, "b": Tensor}, "A": batched(core=2), "b": batched(core=0)}
    assert constraint_set(type("Rows2", (ConstraintSet,), numbers)).core_ndims == {"A": 2, "b": 0}


@pytest.mark.parametrize("kind", [Tensor, "Tensor", "Unknown[Tensor]"], ids=str)
def test_tensor_of_unknown_shape_is_refused(kind) -> None:
    body = {"__annotations__": {"A": kind}, "__module__": __name__}
    with pytest.raises(TypeError, match=r"batched\(core=1\)"):
        constraint_set(type("Bad", (ProjectableSet,), body))
