"""The batched polyhedron projector against independent oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import jacrev, jvp, vmap

from constrained_nn.solvers import Status, factor_polyhedron, project_polyhedron
from constrained_nn.solvers.polyhedron import careful as careful
from constrained_nn.solvers.polyhedron.farkas import proves_empty
from tests.fake_cuda import fake_cuda
from tests.numerics.random_polyhedra import check_random
from tests.oracles import nearest_in_polyhedron

INF = float("inf")


def sample(generator, batch=6, n=5, m=7, shared=False):
    """Feasible sets with about half of the rows active."""
    A = torch.randn(*(() if shared else (batch,)), m, n, generator=generator, dtype=torch.float64)
    inner = 0.3 * torch.randn(batch, n, generator=generator, dtype=torch.float64)
    gap = 0.1 + torch.rand(batch, m, generator=generator, dtype=torch.float64)
    upper = (A @ inner.unsqueeze(-1)).squeeze(-1) + gap
    y = inner + 1.5 * torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return y, A, upper - 3.0, upper


@pytest.mark.once  # samples of the same functions
@pytest.mark.parametrize("seed", [0, 1])
def test_random_sets(seed):
    counts = check_random(seed, batches=12, full_batch=80)
    assert counts["bad"] == []
    assert counts["sets"] >= 800
    assert counts["empty INFEASIBLE"] > 20
    assert not any(name.startswith("feasible") and name != "feasible OK" for name in counts)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_hundred_thousand_random_sets(seed):
    counts = check_random(100 + seed, batches=30, full_batch=200)
    assert counts["bad"] == []
    assert counts["sets"] >= 5000
    late = sum(n for name, n in counts.items() if name.startswith("feasible") and name != "feasible OK")
    assert late <= 1e-3 * counts["sets"]


def test_agrees_with_enumeration(generator):
    y, A, lower, upper = sample(generator, batch=5, n=3, m=4)
    solution = project_polyhedron(y, A, lower, upper)
    for i in range(5):
        expected = nearest_in_polyhedron(*(t[i].numpy() for t in (y, A, lower, upper)))
        np.testing.assert_allclose(solution.value[i].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("shared", [False, True])
def test_batch_equals_loop(generator, shared):
    y, A, lower, upper = sample(generator, shared=shared)
    whole = project_polyhedron(y, A, lower, upper)
    for i in range(len(y)):
        one = project_polyhedron(y[i], A if shared else A[i], lower[i], upper[i])
        torch.testing.assert_close(whole.value[i], one.value, rtol=1e-12, atol=1e-13)
        assert whole.status[i] == one.status == Status.OK


def test_multipliers_and_warm_start(generator):
    y, A, lower, upper = sample(generator)
    cold = project_polyhedron(y, A, lower, upper)
    torch.testing.assert_close(y - cold.value, (A.mT @ cold.duals.unsqueeze(-1)).squeeze(-1))
    warm = project_polyhedron(y, A, lower, upper, warm_start=cold)
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-12, atol=1e-13)
    assert (warm.steps <= cold.steps).all()
    assert warm.steps.sum() < cold.steps.sum()


def test_a_box_is_the_same_set_as_its_rows(generator):
    y, A, lower, upper = sample(generator)
    low, up = torch.full((5,), -0.4, dtype=torch.float64), torch.full((5,), 0.4, dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64).expand(6, 5, 5)
    rows = project_polyhedron(
        y,
        torch.cat([A, eye], -2),
        torch.cat([lower, low.expand(6, 5)], -1),
        torch.cat([upper, up.expand(6, 5)], -1),
    )
    boxed = project_polyhedron(y, A, lower, upper, box=(low, up))
    assert (boxed.status == rows.status).all()
    torch.testing.assert_close(boxed.value, rows.value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_derivatives_are_those_of_finite_differences(generator, shared):
    y, A, lower, upper = (t.requires_grad_() for t in sample(generator, batch=3, n=4, m=5, shared=shared))
    assert torch.autograd.gradcheck(lambda *a: project_polyhedron(*a).value, (y, A, lower, upper))
    assert torch.autograd.gradgradcheck(lambda *a: project_polyhedron(*a).value, (y, A, lower, upper))


def test_shared_parameters_get_the_sum_over_the_batch(generator):
    y, A, lower, upper = sample(generator, shared=True)
    weight = torch.randn(y.shape, generator=generator, dtype=torch.float64)

    def gradients(y, weight):
        leaves = [A.clone().requires_grad_(), upper[0].clone().requires_grad_()]
        value = project_polyhedron(y, leaves[0], lower[0], leaves[1]).value
        return torch.autograd.grad((weight * value).sum(), leaves)

    whole = gradients(y, weight)
    parts = [gradients(y[i], weight[i]) for i in range(len(y))]
    for k in range(2):
        torch.testing.assert_close(whole[k], sum(p[k] for p in parts))


@pytest.mark.untyped
def test_transforms(generator):
    y, A, lower, upper = sample(generator, batch=4, n=3, m=4)
    expected = project_polyhedron(y, A, lower, upper).value

    def value(y, A, upper):
        return project_polyhedron(y, A, lower[0], upper).value

    eager = value(y, A, upper)
    torch.testing.assert_close(vmap(value)(y, A, upper), eager, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        vmap(lambda a, b, c, d: project_polyhedron(a, b, c, d).value)(y, A, lower, upper), expected
    )
    jacobian = vmap(jacrev(value, argnums=(0, 1, 2)))(y, A, upper)
    tangent = tuple(torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in (y, A, upper))
    forward = jvp(value, (y, A, upper), tangent)[1]
    backward = sum((j * t.unsqueeze(1)).flatten(2).sum(-1) for j, t in zip(jacobian, tangent, strict=True))
    torch.testing.assert_close(forward, backward)


@pytest.mark.untyped
def test_compiles_without_a_graph_break(generator):
    y, A, lower, upper = sample(generator, batch=3, n=2, m=3)
    compiled = torch.compile(
        lambda *a: project_polyhedron(*a, max_steps=4).value, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(y, A, lower, upper), project_polyhedron(y, A, lower, upper).value)


def test_runs_on_a_gpu_without_reading_a_value():
    with fake_cuda():
        f = lambda *shape: torch.empty(*shape, device="cuda")  # noqa: E731
        solution = project_polyhedron(f(8, 4), f(5, 4), f(5), f(8, 5), box=(f(4), f(4)))
        assert solution.value.device.type == "cuda"
        assert solution.status.shape == (8,)


def test_a_factor_changes_nothing(generator):
    y, A, lower, upper = sample(generator, n=6, m=5, shared=True)
    lower = torch.where(torch.arange(5) < 2, upper, lower)
    box = (torch.full((6,), -1.5).double(), torch.full((6,), 1.5).double())
    factor = factor_polyhedron(A, torch.arange(5) < 2, box=True)
    leaves = [y.requires_grad_(), A.requires_grad_(), upper.requires_grad_()]
    weight = torch.randn(y.shape, generator=generator, dtype=torch.float64)

    def run(**kwargs):
        bound = torch.where(torch.arange(5) < 2, leaves[2], lower.detach())
        solution = project_polyhedron(leaves[0], leaves[1], bound, leaves[2], box=box, **kwargs)
        return solution, torch.autograd.grad((weight * solution.value).sum(), leaves)

    (plain, plain_gradients), (kept, kept_gradients) = run(), run(factor=factor)
    assert (kept.status == plain.status).all()
    torch.testing.assert_close(kept.value, plain.value, rtol=1e-11, atol=1e-12)
    for a, b in zip(kept_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.untyped
@pytest.mark.parametrize("shared", [False, True])
def test_fixed_steps_find_the_same_points(generator, shared):
    y, A, lower, upper = sample(generator, batch=20, n=10, m=18, shared=shared)
    lower = torch.where(torch.arange(18) < 2, upper, lower)
    eager = project_polyhedron(y, A, lower, upper)

    def one(y, A, lower, upper):
        solution = project_polyhedron(y, A, lower, upper)
        return solution.value, solution.status

    value, status = vmap(one, in_dims=(0, None if shared else 0, 0, 0))(y, A, lower, upper)
    assert (status == eager.status).all()
    torch.testing.assert_close(value, eager.value, rtol=1e-11, atol=1e-12)


def test_chunks_change_nothing(generator, monkeypatch):
    y, A, lower, upper = sample(generator, batch=11)
    whole = project_polyhedron(y, A, lower, upper)
    monkeypatch.setattr("constrained_nn.solvers.polyhedron.nearest._chunk", lambda *a, **k: 3)
    parts = project_polyhedron(y, A, lower, upper)
    torch.testing.assert_close(parts.value, whole.value, rtol=1e-12, atol=1e-13)
    assert (parts.status == whole.status).all()


def test_an_equality_that_holds_already_still_has_its_derivative():
    A, zero = torch.tensor([[1.0, 1.0]]).double(), torch.zeros(1).double()
    for batch in ((), (3,)):
        y = torch.zeros(*batch, 2, dtype=torch.float64, requires_grad=True)
        value = project_polyhedron(y, A.expand(*batch, 1, 2), zero, zero).value
        (slope,) = torch.autograd.grad(value.select(-1, 0).sum(), y)
        torch.testing.assert_close(slope, torch.tensor([0.5, -0.5]).double().expand_as(slope))


@pytest.mark.parametrize("poison", ["y", "A", "upper", "empty"])
def test_a_bad_element_hurts_no_other(generator, poison):
    data = dict(zip(("y", "A", "lower", "upper"), sample(generator), strict=True))
    clean = {k: v.clone().requires_grad_() for k, v in data.items()}
    good = project_polyhedron(**clean)
    good.value[1:].sum().backward()
    if poison == "empty":
        data["upper"][0] = data["lower"][0] - 1.0
    else:
        data[poison][0].view(-1)[0] = float("nan")
    bad = {k: v.clone().requires_grad_() for k, v in data.items()}
    solution = project_polyhedron(**bad)
    expected = Status.INFEASIBLE if poison == "empty" else Status.NONFINITE_INPUT
    assert solution.status[0] == expected
    assert (solution.status[1:] == Status.OK).all()
    torch.testing.assert_close(solution.value[1:], good.value[1:], rtol=1e-12, atol=1e-13)
    solution.value.sum().backward()
    for name, leaf in bad.items():
        assert leaf.grad.isfinite().all()
        torch.testing.assert_close(leaf.grad[1:], clean[name].grad[1:], rtol=1e-12, atol=1e-12)


def test_least_violation_of_crossed_bounds_is_their_middle(generator):
    """Independent rows, the first of them with crossed bounds: the others hold, and it is violated evenly."""
    A = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    middle = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    half = torch.tensor([-0.3, 0.2, 0.5], dtype=torch.float64)
    y = 3.0 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    solution = project_polyhedron(y, A, middle - half, middle + half)
    assert (solution.status == Status.INFEASIBLE).all()
    off = (A @ solution.value.unsqueeze(-1)).squeeze(-1) - middle
    torch.testing.assert_close(off[:, 0], torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-8)
    assert (off[:, 1:].abs() <= half[1:] + 1e-8).all()


def test_an_empty_set_is_proved_empty_and_its_value_violates_least():
    A = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    upper = torch.tensor([0.0, -1.0, 5.0], dtype=torch.float64)  # x <= 0 and x >= 1
    solution = project_polyhedron(torch.tensor([3.0, 2.0]).double(), A, torch.full_like(upper, -INF), upper)
    assert solution.status == Status.INFEASIBLE
    torch.testing.assert_close(solution.value, torch.tensor([0.5, 2.0]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(solution.violation, torch.tensor(0.5).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("lower", "upper", "status"),
    [(1.0, 0.0, Status.INFEASIBLE), (INF, INF, Status.NONFINITE_INPUT), (-INF, INF, Status.OK)],
)
def test_unusual_bounds(lower, upper, status):
    A = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    bounds = (torch.tensor([b], dtype=torch.float64) for b in (lower, upper))
    assert project_polyhedron(torch.ones(2).double(), A, *bounds).status == status


def test_zero_rows():
    A = torch.zeros(1, 2, dtype=torch.float64)
    y = torch.ones(2, dtype=torch.float64)
    free = project_polyhedron(y, A, -torch.ones(1).double(), torch.zeros(1).double())
    assert free.status == Status.OK
    assert (free.value == y).all()
    assert (
        project_polyhedron(y, A, torch.ones(1).double(), 2 * torch.ones(1).double()).status
        == Status.INFEASIBLE
    )


def test_no_rows_and_no_elements():
    y = torch.ones(3, 2, dtype=torch.float64)
    empty = torch.zeros(0, dtype=torch.float64)
    assert (project_polyhedron(y, torch.zeros(0, 2).double(), empty, empty).value == y).all()
    A, b = torch.ones(1, 2).double(), torch.ones(1).double()
    assert project_polyhedron(y[:0], A, -b, b).value.shape == (0, 2)


def test_float32_in_float32_out(generator):
    y, A, lower, upper = sample(generator)
    exact = project_polyhedron(y, A, lower, upper)
    narrow = project_polyhedron(*(t.float() for t in (y, A, lower, upper)))
    assert narrow.value.dtype == narrow.violation.dtype == narrow.duals.dtype == torch.float32
    assert (narrow.status == Status.OK).all()
    torch.testing.assert_close(narrow.value.double(), exact.value, atol=1e-5, rtol=1e-5)
    assert narrow.violation.max() < 1e-5


def test_steps_run_out_honestly(generator):
    y, A, lower, upper = sample(generator)
    solution = project_polyhedron(3 * y, A, lower, upper, max_steps=1)
    assert (solution.status == Status.MAX_STEPS).any()
    late = solution.status == Status.MAX_STEPS
    assert (solution.violation[solution.status == Status.OK] < 1e-9).all()
    assert late.any()


@pytest.mark.untyped
def test_fixed_steps_that_fail_return_the_least_violated_point(generator):
    """More steps never return a point that is worse, although the iterates themselves go up and down."""
    y, A, lower, upper = sample(generator, batch=30, n=8, m=16)
    upper[0] = lower[0] - 1.0  # crossed: empty
    rows = A / torch.linalg.vector_norm(A, dim=-1, keepdim=True)
    scale = torch.linalg.vector_norm(A, dim=-1)

    def run(steps):
        return careful.project(3 * y, A, lower, upper, None, careful.Limits(steps, 1, fixed=True))

    def worst(x):
        value = (rows @ x.unsqueeze(-1)).squeeze(-1)
        return torch.maximum(value - upper / scale, lower / scale - value).amax(-1)[1:]

    previous, failures = worst(3 * y), 0
    for steps in range(1, 12):
        solution = run(steps)
        now = worst(solution.value)
        late = solution.status[1:] != Status.OK
        assert (now[late] <= previous[late] + 1e-12).all()
        previous, failures = now, failures + int(late.sum())
        assert solution.status[0] == Status.INFEASIBLE
    assert failures > 0


@pytest.mark.untyped
@pytest.mark.parametrize("poison", ["y", "A", "upper"])
def test_a_bad_element_changes_no_other_bit_with_fixed_steps(generator, poison):
    data = dict(zip(("y", "A", "lower", "upper"), sample(generator, batch=4, n=6, m=8), strict=True))
    run = vmap(lambda y, A, lower, upper: project_polyhedron(y, A, lower, upper).value)
    good = run(*data.values())
    data[poison][0].view(-1)[0] = float("nan")
    assert (run(*data.values())[1:] == good[1:]).all()


@pytest.mark.parametrize(
    ("size", "slant", "proved"), [(10.0, 5e-5, False), (10.0, 5e-6, True), (0.1, 5e-4, True)]
)
def test_emptiness_is_proved_for_all_points_up_to_ten_thousand_sizes(size, slant, proved):
    """`x <= 0` and `x + slant y >= 1` meet where `y = 1 / slant`, which is near, or beyond `1e4 size`."""
    rows = torch.tensor([[[1.0, 0.0], [1.0, slant]]], dtype=torch.float64)
    lower, upper = torch.tensor([[-INF, 1.0]]).double(), torch.tensor([[0.0, INF]]).double()
    assert (1 / slant > 1e4 * size) == proved
    weights, sizes = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([size]).double()
    assert bool(proves_empty(weights, rows, lower, upper, sizes)) == proved
