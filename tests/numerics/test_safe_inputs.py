"""Safe inputs at the next samples: against closed forms, linear programs, and runs in closed loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.optimize import linprog

from constrained_nn.certificates import DegreeError, Requirement, SafeInputs, judge
from constrained_nn.certificates.safe_inputs import relax_in_order
from constrained_nn.control import Brake, FunctionController, InOrder, SafetyFilter
from constrained_nn.layers import EuclideanProjection, LeastViolation
from constrained_nn.sets import Box

DT = 0.1


def box(*ends: float) -> tuple[torch.Tensor, torch.Tensor]:
    high = torch.tensor(ends, dtype=torch.float64)
    return -high, high


def cart(t, x, u):
    """A mass on a line, exactly: position and speed, force `u`."""
    p, v, a = x[..., 0], x[..., 1], u[..., 0]
    return torch.stack([p + DT * v + 0.5 * DT * DT * a, v + DT * a], -1)


WALL = Requirement("wall", lambda t, x, u: x[..., 0] - 1.0, (2.0, 4.0))
SPEED = Requirement("speed", lambda t, x, u: x[..., 1] - 0.8, (3.0,))


def test_rows_of_a_mass_are_those_on_paper() -> None:
    """`s = p + dt v + dt²/2 − 1 − 0.8 (p − 1)`; a row bounds `s(x⁺) = s(x⁺)|0 + dt² 1.5 u − ...`."""
    low, high = box(1.0)
    safe = SafeInputs([WALL, SPEED], cart, dt=DT, low=low, high=high)
    x = torch.tensor([[0.3, 0.2], [0.9, 0.5], [-2.0, 0.7]], dtype=torch.float64)

    def s(p, v):
        return p + DT * v + 0.5 * DT * DT - 1.0 - 0.8 * (p - 1.0)

    p, v = x.T
    torch.testing.assert_close(safe.value(0.0, x)[:, 0], s(p, v), rtol=1e-12, atol=1e-14)
    A, upper = safe.rows(0.0, x)
    for u in (-1.0, -0.3, 0.5, 1.0):
        after = cart(0.0, x, torch.full((3, 1), u).double())
        wanted = s(*after.T) - 0.6 * s(p, v)
        torch.testing.assert_close(A[:, 0, 0] * u - upper[:, 0], wanted, rtol=0, atol=1e-8)
        wanted = (v + DT * u - 0.8) - 0.7 * (v - 0.8)
        torch.testing.assert_close(A[:, 1, 0] * u - upper[:, 1], wanted, rtol=0, atol=1e-8)
    assert isinstance(safe.condition(0.0, x), Box)


def linear(A: np.ndarray, B: np.ndarray):
    """The exact sample of a linear system."""
    n, m = B.shape
    whole = expm(DT * np.block([[A, B], [np.zeros((m, n + m))]]))
    F, G = torch.from_numpy(whole[:n, :n].copy()), torch.from_numpy(whole[:n, n:].copy())
    return lambda t, x, u: x @ F.mT + u @ G.mT


@pytest.mark.once
@pytest.mark.parametrize("inputs", [1, 2, 3, 5])
def test_no_run_breaks_a_constraint_while_the_set_is_not_empty(inputs: int) -> None:
    """Two masses in a plane behind walls and a ball, pushed at random; five inputs share the work."""
    generator = torch.Generator().manual_seed(inputs)
    A = np.zeros((4, 4))
    A[0, 2] = A[1, 3] = 1.0
    B = np.zeros((4, inputs))
    B[2:] = np.random.default_rng(inputs).uniform(0.2, 1.0, (2, inputs))
    ball = Requirement("ball", lambda t, x, u: 1.0 - torch.linalg.vector_norm(x[..., :2], dim=-1), (1.0, 2.0))
    wall = Requirement("wall", lambda t, x, u: x[..., 0] - 3.0, (1.0, 2.0))
    fast = Requirement("fast", lambda t, x, u: x[..., 2:].square().sum(-1) - 2.0, (4.0,))
    low, high = box(*[2.0] * inputs)
    safe = SafeInputs([ball, wall, fast], linear(A, B), dt=DT, low=low, high=high)
    x = torch.tensor([-2.0, 0.1, 0.0, 0.0], dtype=torch.float64).repeat(30, 1)
    layer, met = EuclideanProjection(on_failure=LeastViolation()), 0
    healthy = torch.ones(30, dtype=torch.bool)
    for k in range(60):
        raw = 4.0 * torch.randn(30, inputs, generator=generator, dtype=torch.float64)
        raw[:, 0] += 1.0
        solution = layer.solve(raw, safe.condition(k * DT, x))
        healthy &= solution.ok
        met += int(healthy.sum())
        before = safe.value(k * DT, x)
        x = safe.advance(k * DT, x, solution.value)
        after = torch.stack([r.g(0.0, x, raw) for r in safe.requirements], -1)
        assert bool((after[healthy] <= 0).all()), (k, after.amax(0))
        assert bool((safe.value(k * DT + DT, x)[healthy] <= before[healthy].clamp_min(0.0)).all())
    assert met > 900, "most sets are empty: the test shows nothing"


def test_plane_lies_above_what_is_not_affine() -> None:
    """A thrust that is squared: the row forbids a little too much, never too little."""
    square = Requirement("square", lambda t, x, u: x[..., 0] - 1.0, (5.0,))
    low, high = box(1.0, 2.0)

    def advance(t, x, u):
        return x + DT * (u[..., :1] * u[..., :1].abs() + 0.3 * u[..., 1:] * u[..., :1] + u[..., 1:])

    safe = SafeInputs([square], advance, dt=DT, low=low, high=high)
    x = torch.linspace(-1.0, 1.0, 50, dtype=torch.float64).unsqueeze(-1)
    A, upper = safe.rows(0.0, x)
    for u in itertools.product((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0)):
        u = torch.tensor(u, dtype=torch.float64).expand(50, 2)
        allowed = (A[:, 0] * u).sum(-1) <= upper[:, 0]
        after = advance(0.0, x, u)[:, 0] - 1.0
        corner = bool((u[0].abs() == high).all()) or not bool(u[0].any())
        assert not corner or bool((after[allowed] <= 0.5 * (x[allowed, 0] - 1.0)).all())


def test_rows_on_the_input_itself_and_on_time() -> None:
    moving = Requirement("moving", lambda t, x, u: x[..., 0] - t, (5.0,))
    together = Requirement("together", lambda t, x, u: u.sum(-1) - 1.0)
    low, high = box(1.0, 1.0)
    safe = SafeInputs([together, moving], lambda t, x, u: x + DT * u, dt=DT, low=low, high=high)
    set = safe.condition(2.0, torch.tensor([[1.9, 0.0]], dtype=torch.float64))
    found = EuclideanProjection()(torch.ones(1, 2, dtype=torch.float64) * 3.0, set)
    assert found.sum() == pytest.approx(1.0, abs=1e-8)
    # 1.9 + 0.1 u − 2.1 <= 0.5 (1.9 − 2)
    A, upper = safe.rows(2.0, torch.tensor([[1.9, 0.0]], dtype=torch.float64))
    assert float(upper[0, 1] / A[0, 1, 0]) == pytest.approx(1.5, abs=1e-6)


@pytest.mark.once
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_constraints_give_way_in_their_order(inputs: int) -> None:
    """Against one linear program for each row."""
    generator = torch.Generator().manual_seed(inputs)
    A = torch.randn(40, 4, inputs, generator=generator, dtype=torch.float64)
    upper = 0.5 * torch.randn(40, 4, generator=generator, dtype=torch.float64) - 0.5 * (inputs - 1)
    low, high = -torch.ones(inputs).double(), torch.tensor([1.0, 2.0, 0.5][:inputs]).double()
    relaxed = relax_in_order(A, upper, low, high)
    gave_way = 0
    for a, b, found in zip(A.numpy(), upper.numpy(), relaxed.numpy(), strict=True):
        kept: list[float] = []
        for i in range(4):
            least = linprog(
                a[i],
                A_ub=a[:i] if i else None,
                b_ub=kept if i else None,
                bounds=list(zip(low.tolist(), high.tolist(), strict=True)),
            )
            assert least.status == 0
            wanted = max(b[i], least.fun)
            assert found[i] == pytest.approx(wanted, abs=1e-4)
            assert found[i] >= wanted - 1e-9
            gave_way += found[i] > b[i] + 1e-6
            kept.append(found[i])
    assert 20 < gave_way < 150


def test_a_filter_resolves_conflicts_and_counts_them() -> None:
    """Too fast before the wall: the force is at its limit, and the speed gives way after the wall."""
    low, high = box(1.0)
    safe = SafeInputs([WALL, SPEED], cart, dt=DT, low=low, high=high)
    push = FunctionController(lambda t, x: torch.full_like(x[..., :1], 9.0))
    rule = InOrder(safe)
    filtered = SafetyFilter(push, safe.condition, EuclideanProjection(), on_conflict=rule).eval()
    x = torch.tensor([[-5.0, 0.1], [0.9, 0.7], [-5.0, 3.0]], dtype=torch.float64)
    u = filtered(0.0, x)
    assert u[0] == pytest.approx(1.0, abs=1e-6)
    assert u[1:].flatten().tolist() == pytest.approx([-1.0, -1.0], abs=1e-6)
    assert rule.counts == {"wall": 1, "speed": 1}
    assert rule.asked == 3
    braking = Brake(lambda t, x: torch.zeros_like(x[..., :1]))
    u = SafetyFilter(push, safe.condition, EuclideanProjection(), on_conflict=braking).eval()(0.0, x)
    assert u[1:].flatten().tolist() == [0.0, 0.0]
    assert braking.counts == {"brake": 2}
    rule.reset()
    assert (rule.counts, rule.asked) == ({}, 0)


def test_gradients_pass_through_rows_and_compromise() -> None:
    low, high = box(1.0)
    safe = SafeInputs([WALL, SPEED], cart, dt=DT, low=low, high=high)
    gain = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    push = FunctionController(lambda t, x: gain * (1.0 - x[..., :1]))
    filtered = SafetyFilter(push, safe.condition, EuclideanProjection(), on_conflict=InOrder(safe))
    x = torch.tensor([[-0.2, 0.6], [0.9, 0.9]], dtype=torch.float64)
    for _ in range(5):
        x = safe.advance(0.0, x, filtered(0.0, x))
    (slope,) = torch.autograd.grad(x.sum(), gain)
    assert bool(slope.isfinite())


# --- relative degree -----------------------------------------------------------------------------

LOW, HIGH = box(1.0, 1.0)
STATES = 4.0 * torch.rand(400, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2.0


def plane(t, x, u):
    """Two masses on a plane."""
    return torch.cat([x[..., 2:], u.expand(*x.shape[:-1], 2)], -1)


@pytest.mark.parametrize(
    ("g", "degree"),
    [
        (lambda t, x, u: u[..., 0] - 0.5 + x[..., 0], 0),
        (lambda t, x, u: x[..., 2] - 0.5, 1),
        (lambda t, x, u: x[..., 0] - 0.5, 2),
        (lambda t, x, u: 1.0 - torch.linalg.vector_norm(x[..., :2], dim=-1), 2),
    ],
)
def test_relative_degree(g, degree: int) -> None:
    found = judge("g", g, plane, STATES, LOW, HIGH)
    assert found.degree == degree
    assert found.boundary > 20
    assert found.fades < 0.05


def test_constraints_that_rows_cannot_keep_are_named() -> None:
    def turn(t, x, u):  # the input acts on the third derivative of x0
        return torch.stack([x[..., 1], x[..., 2], u[..., 0], x[..., 3] * 0.0], -1)

    with pytest.raises(DegreeError, match=r"'far'.* at most 2, got more"):
        judge("far", lambda t, x, u: x[..., 0] - 0.5, turn, STATES, LOW, HIGH)
    with pytest.raises(DegreeError, match=r"'flat'.*gradient on the boundary"):
        judge("flat", lambda t, x, u: (x[..., 0] - 0.5).clamp_min(0.0) - 1e-30, plane, STATES, LOW, HIGH)
    with pytest.raises(DegreeError, match=r"'hole'.*finite"):
        judge("hole", lambda t, x, u: torch.sqrt(x[..., 0]), plane, STATES, LOW, HIGH)

    def gated(t, x, u):  # the input acts on x0 only where x1 > 0
        gate = torch.where(x[..., 1] > 0, 1.0, 0.0)
        return torch.stack([gate * u[..., 0], x[..., 3], x[..., 3], u[..., 1]], -1)

    with pytest.raises(DegreeError, match=r"'gate'.*one relative degree"):
        judge("gate", lambda t, x, u: x[..., 0] - 0.5, gated, STATES, LOW, HIGH)


def test_bad_settings_are_refused() -> None:
    low, high = box(1.0)
    with pytest.raises(ValueError, match="finite input limits"):
        SafeInputs([WALL], cart, dt=DT, low=-high * torch.inf, high=high)
    with pytest.raises(ValueError, match=r"gains of 'wall' in \(0, 1/dt\]"):
        SafeInputs([Requirement("wall", WALL.g, (2.0, 11.0))], cart, dt=DT, low=low, high=high)


def test_degree_is_judged_within_the_limits() -> None:
    """A valve that only opens: at the middle of 0 to 2 it acts, below 0 it would not."""
    low, high = torch.zeros(1).double(), torch.full((1,), 2.0).double()
    found = judge(
        "g", lambda t, x, u: x[..., 0], lambda t, x, u: u.clamp_min(0.0) + 0.0 * x, STATES[:, :1], low, high
    )
    assert found.degree == 1


def test_inputs_that_fade_on_the_boundary_are_told() -> None:
    """The thrust acts on `x0` in the direction `x1`, which is next to nothing for some states."""

    def thrust(t, x, u):
        return torch.stack([x[..., 2], x[..., 3], 50.0 * x[..., 1] ** 3 * u[..., 0], u[..., 1]], -1)

    found = judge("g", lambda t, x, u: x[..., 0] - 0.5, thrust, STATES, LOW, HIGH)
    assert found.degree == 2
    assert 0.02 < found.fades < 0.3


def test_rows_and_limits_of_any_number_of_batch_dimensions() -> None:
    low, high = box(1.0, 2.0)
    safe = SafeInputs(
        [WALL, SPEED], lambda t, x, u: cart(t, x, u.sum(-1, keepdim=True)), dt=DT, low=low, high=high
    )
    x = torch.rand(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    many, one = safe.condition(0.0, x), safe.condition(0.0, x[1, 2])
    assert many.batch_shape == (2, 3)
    torch.testing.assert_close(many.A[1, 2], one.A, rtol=0, atol=1e-14)
    torch.testing.assert_close(many.upper[1, 2], one.upper, rtol=0, atol=1e-12)
