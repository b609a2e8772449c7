"""Networks, policies, layers and Lyapunov functions as programs: the same values at 10,000 points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from constrained_nn.certificates import NeuralLyapunov, QuadraticLyapunov
from constrained_nn.control import AnchoredController
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence.tracing import Builder, evaluate, program_of, trace_module, trace_quadratic
from constrained_nn.evidence.tracing.closed_forms import along_ray
from constrained_nn.layers import Constrained, Euclidean, EuclideanProjection, Fixed, HardNetAffine
from constrained_nn.sets import AffineSubspace, Box, Halfspace, Polyhedron
from constrained_nn.verify.arithmetic import Interpreter, enclose, precision

ROWS = {
    "relu": lambda: body(nn.ReLU()),
    "tanh": lambda: body(nn.Tanh()),
    "silu": lambda: body(nn.SiLU()),
    "gelu": lambda: body(nn.GELU()),
    "softplus": lambda: body(nn.Softplus()),
    "softplus-beta": lambda: body(nn.Softplus(beta=2.0)),
    "sigmoid": lambda: body(nn.Sigmoid()),
    "leaky": lambda: body(nn.LeakyReLU(0.1)),
    "hardtanh": lambda: body(nn.Hardtanh(-0.5, 0.3)),
    "anchored": lambda: AnchoredController(
        body(nn.Tanh()), torch.tensor([0.3, -0.2]), torch.zeros(2), -torch.ones(2), torch.ones(2)
    ),
    "anchored-one-sided": lambda: AnchoredController(
        body(nn.Tanh()), torch.zeros(2), 0.1 * torch.ones(2), -torch.ones(2), 2 * torch.ones(2)
    ),
    "anchored-free": lambda: AnchoredController(body(nn.Tanh()), torch.zeros(2), torch.zeros(2)),
    "box": lambda: Constrained(
        body(nn.Tanh()),
        Fixed(Box(torch.tensor([-0.2, -torch.inf]), torch.tensor([0.1, 0.05]))),
        EuclideanProjection(),
    ),
    "halfspace": lambda: Constrained(
        body(nn.Tanh()), Fixed(Halfspace(torch.tensor([1.0, 2.0]), torch.tensor(0.1))), HardNetAffine()
    ),
    "row": lambda: Constrained(
        body(nn.Tanh()),
        Fixed(Polyhedron(torch.tensor([[1.0, -1.0]]), torch.tensor([-0.1]), torch.tensor([0.2]))),
        HardNetAffine(),
    ),
    "rows": lambda: Constrained(
        body(nn.Tanh()),
        Fixed(
            Polyhedron(
                torch.tensor([[1.0, -1.0], [0.5, 2.0]]),
                torch.tensor([-0.01, -torch.inf]),
                torch.tensor([0.02, -0.7]),
            )
        ),
        HardNetAffine(),
    ),
    "equality": lambda: Constrained(
        body(nn.Tanh()),
        Fixed(AffineSubspace(torch.tensor([[1.0, 3.0]]), torch.tensor([0.4]))),
        HardNetAffine(),
    ),
    "quadratic": lambda: QuadraticLyapunov(
        torch.tensor([[2.0, 0.3], [0.3, 1.0]]), rate=1.0, origin=torch.tensor([0.5, 0.0])
    ),
    "neural": lambda: NeuralLyapunov(2, rate=1.0, hidden=(8, 6, 5), origin=torch.tensor([0.5, -0.1])),
}


def several(rows: list[list[float]], layer: nn.Module) -> nn.Module:
    """Several rows `A y <= 1` behind a layer."""
    return Constrained(
        nn.Identity(), Fixed(Polyhedron(torch.tensor(rows), upper=torch.ones(len(rows)))), layer
    )


def body(activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 9), activation, nn.Linear(9, 7, bias=False), activation, nn.Linear(7, 2)
    )


@pytest.mark.parametrize("name", ROWS)
def test_program_is_the_module_and_is_enclosed(name: str, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    module = ROWS[name]().double().eval()
    x = rng.uniform(-3.0, 3.0, (10_000, 2))
    program = program_of(trace_module(module, 2))
    with torch.no_grad():
        points = torch.from_numpy(x)
        expected = module(0.0, points) if isinstance(module, AnchoredController) else module(points)
    expected = expected.numpy().reshape(len(x), -1)
    found = evaluate(program, x)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    run = Interpreter(program)
    for center in x[:5]:
        for width in (1e-6, 0.05, 0.5):
            lower, upper = center - width, center + width
            with precision(64):
                over = enclose(run, lower.tolist(), upper.tolist())
                low, high = np.array([[float(v.lower()), float(v.upper())] for v in over.values]).T
            values = evaluate(program, lower + (upper - lower) * rng.uniform(size=(500, 2)))
            assert (values >= low - 1e-12).all()
            assert (values <= high + 1e-12).all()
            if width == 1e-6:
                assert (high - low).max() < 1e-3


def test_lyapunov_functions_vanish_at_their_origin() -> None:
    torch.manual_seed(0)
    for name in ("quadratic", "neural"):
        module = ROWS[name]().double()
        run = Interpreter(program_of(trace_module(module, 2)))
        with precision(128):
            (value,) = enclose(run, module.origin.tolist(), module.origin.tolist()).values
        assert abs(value) < 1e-30


def test_ray_is_that_of_the_ellipsoid(rng: np.random.Generator) -> None:
    builder = Builder(2)
    Q, center = np.array([[1.0, 0.2], [0.2, 3.0]]), np.array([0.1, -0.3])
    program = program_of(builder.program(along_ray(builder, 0, center, Q, builder.constant([0.7]))))
    x = rng.normal(size=(1000, 2))
    y = evaluate(program, x)
    energy = np.einsum("bi,ij,bj->b", y - center, Q, y - center)
    before = np.einsum("bi,ij,bj->b", x - center, Q, x - center)
    np.testing.assert_allclose(energy, np.minimum(before, 0.7), rtol=1e-12)
    inside = before < 0.7
    np.testing.assert_allclose(y[inside], x[inside], rtol=1e-12, atol=1e-14)


def test_quadratic_program(rng: np.random.Generator) -> None:
    P, center, x = np.array([[1.0, 0.2], [0.2, 3.0]]), np.array([0.1, -0.3]), rng.normal(size=(50, 2))
    expected = np.einsum("bi,ij,bj->b", x - center, P, x - center)
    np.testing.assert_allclose(evaluate(program_of(trace_quadratic(P, center)), x)[:, 0], expected)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.LSTM(2, 2), "LSTM"),
        (nn.GELU("tanh"), "approximate"),
        (nn.Dropout(), "eval"),
        (Constrained(nn.Identity(), lambda x: Box(-x, x), HardNetAffine()), "Fixed"),
        (QuadraticLyapunov(torch.eye(3), rate=1.0, angles=(0,)), "angles"),
        (several([[1.0, -1.0], [2.0, -2.0]], HardNetAffine()), "independent rows"),
        (several([[1.0, -1.0], [2.0, 1.0], [0.0, 1.0]], HardNetAffine()), "independent rows"),
        (several([[1.0, -1.0], [2.0, 1.0]], HardNetAffine(metric=Euclidean())), "independent rows"),
        (several([[1.0, -1.0], [2.0, 1.0]], EuclideanProjection()), "independent rows"),
    ],
)
def test_what_has_no_program_is_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(SetTypeError, match=words):
        trace_module(module, 2)
