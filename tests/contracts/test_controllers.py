"""What every controller promises."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch

from constrained_nn.testing import check_controller
from tests.cases import ControllerCase, every
from tests.oracles import numpy

BATCH = 6


def call(case: ControllerCase, controller, x: torch.Tensor) -> torch.Tensor:
    """The input at `t = 0`; for a controller with a state the input and the rate of its state, at a state of 0.1."""
    if not case.make().state_dim:
        return controller(0.0, x)
    z = torch.full((*x.shape[:-1], controller.state_dim), 0.1, dtype=x.dtype)
    reference = case.reference.expand(*x.shape[:-1], *case.reference.shape)
    return torch.cat(controller(0.0, x, reference, z), -1)


@every(ControllerCase)
def test_equals_the_oracle(case: ControllerCase, generator: torch.Generator) -> None:
    x = case.states(generator, 20)
    u = call(case, case.make().eval(), x)
    for i in range(20):
        np.testing.assert_allclose(numpy(u[i]), case.oracle(numpy(x[i])), rtol=case.atol, atol=case.atol)


@every(ControllerCase)
def test_contract(case: ControllerCase, generator: torch.Generator) -> None:
    states = case.states(generator, BATCH)
    check_controller(case.make(), states, reference=case.reference, atol=case.atol)


@every(ControllerCase)
def test_is_differentiable_in_the_state(case: ControllerCase, generator: torch.Generator) -> None:
    controller, x = case.make().eval(), case.states(generator, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: call(case, controller, x), (x,), atol=1e-4, rtol=1e-4)


@every(ControllerCase)
def test_state_dict_round_trip(case: ControllerCase, generator: torch.Generator) -> None:
    controller, other, x = case.make().eval(), case.make().eval(), case.states(generator, BATCH)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(controller.state_dict())
    for same in (other, copy.deepcopy(controller)):
        assert torch.equal(call(case, same, x), call(case, controller, x))
    if not any(inspect.isfunction(v) and v.__name__ == "<lambda>" for v in vars(controller).values()):
        assert torch.equal(call(case, pickle.loads(pickle.dumps(controller)), x), call(case, controller, x))


@pytest.mark.untyped
@every(ControllerCase)
def test_compiles(case: ControllerCase, generator: torch.Generator) -> None:
    """Traced alone: the solvers inside are compiled with derivatives by their own tests."""
    controller, x = case.make().train(), case.states(generator, BATCH)
    compiled = torch.compile(controller, backend="eager")
    torch.testing.assert_close(call(case, compiled, x), call(case, controller, x), rtol=1e-9, atol=case.atol)
