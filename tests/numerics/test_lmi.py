"""The projection onto linear matrix inequalities: certificates, derivatives, structure, failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn.experiments.tables.lmi import problems as systems
from constrained_nn.layers import FixedPoint, LeastViolation, LMINet, Unrolled
from constrained_nn.linalg import adjoint_at, certified_above, columns, linear_part, matrix_at
from constrained_nn.sets import LMI, LMIBlock, map_tensors
from constrained_nn.solvers import FoundBy, Status
from constrained_nn.solvers.lmi import problem as problems
from constrained_nn.solvers.lmi import search as search
from tests.cases.lmi import block, joint, matrices, stable
from tests.oracles import numpy


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def exactly_positive(F: np.ndarray) -> bool:
    """Whether a matrix of floats is positive definite, by fractions."""
    from fractions import Fraction

    A = [
        [(Fraction(a) + Fraction(b)) / 2 for a, b in zip(r, c, strict=True)]
        for r, c in zip(F, F.T, strict=True)
    ]
    for i in range(len(A)):
        if A[i][i] <= 0:
            return False
        for j in range(i + 1, len(A)):
            ratio = A[j][i] / A[i][i]
            A[j] = [a - ratio * b for a, b in zip(A[j], A[i], strict=True)]
    return True


def exact_blocks(set: LMI, y: torch.Tensor, element: int) -> list[bool]:
    """Every block of one element, evaluated and factored in fractions from `S`, `Y`, `z` and the matrices."""
    from fractions import Fraction

    S, Y, _ = (t[element].tolist() for t in set.variables(y))
    V = [[Fraction(v) for v in row] for row in [*S, *Y]]
    found = []
    for b in set.blocks:
        C, L, R = (
            [[Fraction(v) for v in row] for row in (t if t.ndim == 2 else t[element]).tolist()]
            for t in (b.constant, b.left, b.right)
        )
        LV = [[sum(a * V[k][j] for k, a in enumerate(row)) for j in range(len(S))] for row in L]
        G = [[sum(a * R[k][j] for k, a in enumerate(row)) for j in range(b.order)] for row in LV]
        A = [[C[i][j] + G[i][j] + G[j][i] for j in range(b.order)] for i in range(b.order)]
        good = True
        for i in range(b.order):
            good = good and A[i][i] > 0
            for j in range(i + 1, b.order) if good else ():
                ratio = A[j][i] / A[i][i]
                A[j] = [p - ratio * q for p, q in zip(A[j], A[i], strict=True)]
        found.append(good)
    return found


@pytest.mark.parametrize("build", [block, joint])
def test_factored_map_is_linear_and_has_its_adjoint(build, generator: torch.Generator) -> None:
    set = build(generator, (4,))
    for b in getattr(set, "blocks", (set,)):
        y, X = normal(generator, 4, set.dim), normal(generator, 4, b.order, b.order)
        X = X + X.mT
        image = linear_part(b.map, y)
        torch.testing.assert_close((X * image).sum((-2, -1)), (adjoint_at(b.map, X) * y).sum(-1))
        torch.testing.assert_close((columns(b.map) * y[..., None, None]).sum(-3), image)
        for i in range(4):
            single = type(b)(*(t[i] if t.ndim > c else t for t, c in zip(b.map, (2, 2, 2, 3), strict=True)))
            (expected,) = matrices(single, numpy(y[i]))
            torch.testing.assert_close(matrix_at(b.map, y)[i], torch.from_numpy(expected))


def test_certificate_is_never_given_in_vain(generator: torch.Generator) -> None:
    """Matrices within a few units of rounding of the boundary: what is certified is positive in fractions."""
    count = 400
    R = normal(generator, count, 3, 2)
    edge = R @ R.mT  # singular up to rounding
    noise = 10.0 ** (-17.0 + 6.0 * torch.rand(count, 1, 1, generator=generator, dtype=torch.float64))
    set = LMI.dense(
        edge + noise * torch.eye(3, dtype=torch.float64), torch.zeros(1, 3, 3, dtype=torch.float64)
    )
    map = set.blocks[0].map
    proved = certified_above(map, torch.zeros(count, 1, dtype=torch.float64))
    truth = torch.tensor([exactly_positive(F) for F in numpy(map.constant)])
    assert not (proved & ~truth).any()
    assert 50 < proved.sum() < count - 50
    assert (~truth).any(), "the draw has no matrix beyond the boundary"


def test_increment_bounds_the_violation(generator: torch.Generator) -> None:
    """`λ_min(F(y_k)) >= −r_k` at every number of Douglas-Rachford steps."""
    A, B = systems.stable_systems("train", 64, 5)
    set = systems.ellipsoid(A, B)
    y = normal(generator, 64, 3)
    for steps in (1, 5, 50, 200):
        layer = LMINet(accelerate=False, interior_steps=0, max_steps=steps, margin=0.0, congruence=False)
        solution = layer.solve(y, set)
        assert (set.violation(solution.value) <= solution.increment * 1.7 + 1e-9).all()


def test_splitting_alone_finds_the_projection(generator: torch.Generator) -> None:
    set = joint(generator, (8,))
    y = normal(generator, 8, set.dim)
    alone = LMINet(accelerate=False, interior_steps=0, max_steps=6000, margin=1e-9).solve(y, set)
    interior = LMINet(splitting_steps=0, newton_steps=0, margin=1e-9).solve(y, set)
    torch.testing.assert_close(alone.value, LMINet(margin=1e-9).solve(y, set).value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(interior.value, LMINet(margin=1e-9).solve(y, set).value, rtol=1e-6, atol=1e-6)
    outside = set.violation(y) > 0
    assert (interior.found_by[outside] == FoundBy.INTERIOR_POINT).all()


@pytest.mark.once  # samples of the same functions
@pytest.mark.parametrize("name", ["train", "slow", "large"])
def test_ellipsoids_are_proved_for_random_proposals(name: str, generator: torch.Generator) -> None:
    A, B = systems.stable_systems(name, 256, 11)
    set = systems.ellipsoid(A, B)
    solution = LMINet().solve(normal(generator, 256, 3), set)
    assert solution.ok.all(), solution.describe_failures()
    assert set.certified(solution.value).all()
    assert solution.steps.max() <= 500
    assert all(all(exact_blocks(set, solution.value, i)) for i in range(24))


@pytest.mark.once  # samples of the same functions
@pytest.mark.parametrize("name", ["train", "ood"])
def test_controllers_are_proved_for_random_proposals(name: str, generator: torch.Generator) -> None:
    A, B, G = systems.joint_systems(name, 256, 12)
    set = systems.controller(A, B, G)
    solution = LMINet().solve(normal(generator, 256, 5), set)
    assert solution.ok.all(), solution.describe_failures()
    assert set.certified(solution.value).all()
    assert solution.steps.max() <= 500
    assert all(all(exact_blocks(set, solution.value, i)) for i in range(24))
    Q, Y, _ = set.variables(solution.value)
    assert (torch.linalg.eigvals(A + B @ Y @ torch.linalg.inv(Q)).real < 0).all()


@pytest.mark.slow
def test_nothing_reported_feasible_fails_the_exact_check() -> None:
    """100,000 decisions: every one that is `OK` is positive definite in fractions."""
    checked = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        if seed % 2:
            set = systems.ellipsoid(*systems.stable_systems(("train", "slow", "large")[seed % 3], 1000, seed))
        else:
            set = systems.controller(*systems.joint_systems(("train", "ood")[seed // 2 % 2], 1000, seed))
        y = 10.0 ** (seed % 5 - 1) * normal(generator, 1000, set.dim)
        solution = LMINet().solve(y, set)
        for i in solution.ok.nonzero().squeeze(-1).tolist():
            assert all(exact_blocks(set, solution.value, i)), (seed, i)
            checked += 1
    assert checked > 99_000


def dual_distance(set: LMI, solution, y: torch.Tensor, i: int) -> float:
    """Bound on the distance of element `i` to the projection of `y`, by weak duality in extended precision.

    `|x − x*|² <= |x − y − LᵀZ|² + 2 ⟨Z, F(x)⟩` for every `Z ⪰ 0`; what `Z` lacks of that is added to it.
    """
    x, target, Z = (numpy(t[i]).astype(np.longdouble) for t in (solution.value, y, solution.duals))
    gradient, total = x - target, np.longdouble(0)
    for b in set.blocks:
        n = b.order
        z, Z = Z[: n * n].reshape(n, n), Z[n * n :]
        d = np.sqrt(np.maximum(np.diag(z), np.finfo(float).tiny)).astype(float)
        lack = max(0.0, -np.linalg.eigvalsh((z + z.T).astype(float) / (2.0 * np.outer(d, d)))[0])
        z = 0.5 * (z + z.T) + (lack + 1e-15) * np.diag(np.diag(z))
        one = type(b.map)(*(t[i] if t.ndim > c else t for t, c in zip(b.map, (2, 2, 2, 3), strict=True)))
        L = numpy(columns(one)).astype(np.longdouble)
        F = numpy(one.constant).astype(np.longdouble) + np.tensordot(x, L, 1)
        gradient = gradient - (L * z).sum((-2, -1))
        total += 2.0 * (z * F).sum()
    return float(np.sqrt((gradient**2).sum() + total))


@pytest.mark.once  # values only
@pytest.mark.parametrize("margin", [1e-12, None])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_error_bounds_the_distance_to_the_projection(margin: float | None, size: float) -> None:
    """The reported `error` is what duality says in extended precision, and small for a small margin."""
    for set, dim in (
        (systems.ellipsoid(*systems.stable_systems("train", 100, 3)), 3),
        (systems.controller(*systems.joint_systems("train", 100, 3)), 5),
    ):
        y = size * normal(torch.Generator().manual_seed(2), 100, dim)
        solution = LMINet(margin=margin).solve(y, set)
        assert solution.ok.sum() >= 98
        bound = torch.tensor([dual_distance(set, solution, y, i) for i in range(100)]).double()
        assert (bound <= solution.error * (1.0 + 1e-6) + 1e-14 * (1.0 + size)).all()
        relative = solution.error / (1.0 + torch.linalg.vector_norm(solution.value, dim=-1))
        assert relative.median() <= (1e-4 if margin else 1e-1)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_distance_to_a_conic_solver() -> None:
    """Clarabel's points are near, and where they are feasible none is closer to the proposal than `error` allows.

    Two solvers agree in general to 1e-8, and to 1e-5 where a multiplier is huge; which of them is then the better
    one hangs on rounding. `error` says so for each element, and no verdict hangs on more.
    """
    for set, conic, data, dim in (
        (systems.ellipsoid, systems.conic_ellipsoid, systems.stable_systems("train", 40, 3), 3),
        (systems.controller, systems.conic_controller, systems.joint_systems("train", 40, 3), 5),
    ):
        y = normal(torch.Generator().manual_seed(2), 40, dim)
        solution = LMINet(margin=1e-12).solve(y, set(*data))
        ours, problem, apart, judged = solution.value, conic("nearest"), [], 0
        for i in solution.ok.nonzero().squeeze(-1).tolist():
            value, *_ = problem.solve(
                *(numpy(t[i]) for t in data), numpy(y[i]), solver="CLARABEL", **systems.TIGHT
            )
            if not np.isfinite(value).all():
                continue
            apart.append(np.abs(value - numpy(ours[i])).max() / (1.0 + np.abs(value).max()))
            if all(exact_blocks(set(*(t[i : i + 1] for t in data)), torch.from_numpy(value)[None], 0)):
                nearer = (ours[i] - y[i]).square().sum().item() - np.square(value - numpy(y[i])).sum()
                assert nearer <= solution.error[i].square().item() + 1e-12 * (1.0 + np.square(value).sum())
                judged += 1
        assert len(apart) >= 30
        assert judged >= 5
        assert np.median(apart) <= 1e-6
        assert np.quantile(apart, 0.8) <= 1e-4


def test_jacobian_is_that_of_finite_differences(generator: torch.Generator) -> None:
    A, B = systems.stable_systems("train", 40, 21)
    set = systems.ellipsoid(A, B)
    y = normal(generator, 40, 3)
    layer = LMINet()
    jacobian = torch.autograd.functional.jacobian(lambda p: layer.solve(p, set).value.sum(0), y).permute(
        1, 0, 2
    )
    expected = torch.stack(
        [
            (layer.solve(y + 1e-5 * e, set).value - layer.solve(y - 1e-5 * e, set).value) / 2e-5
            for e in torch.eye(3, dtype=torch.float64)
        ],
        -1,
    )
    error = torch.linalg.matrix_norm(jacobian - expected)
    assert error.median() <= 1e-7
    values = torch.linalg.eigvalsh(0.5 * (jacobian + jacobian.mT))
    assert (values > -1e-9).all()
    assert (values < 1 + 1e-9).all()


def test_gradients_of_the_system_matrices(generator: torch.Generator) -> None:
    A = stable(generator, (4,), 2, 2.0)
    B, G = normal(generator, 4, 2, 1), 0.3 * normal(generator, 4, 2, 1)
    y = 3.0 * normal(generator, 4, 5)

    def function(A, B, G, y):
        set = LMI.state_feedback(A, B, rate=0.5, disturbance=G, floor=0.1)
        return LMINet().solve(y, set).value

    inputs = tuple(t.requires_grad_() for t in (A, B, G, y))
    assert torch.autograd.gradcheck(function, inputs, atol=1e-5, rtol=1e-4, eps=1e-6, fast_mode=True)


def test_other_adjoints_agree(generator: torch.Generator) -> None:
    set = joint(generator, (5,))
    y = normal(generator, 5, set.dim).requires_grad_()
    weights = normal(generator, 5, set.dim)
    (kkt,) = torch.autograd.grad((LMINet().solve(y, set).value * weights).sum(), y)
    for adjoint in (FixedPoint(), Unrolled(steps=1500)):
        (other,) = torch.autograd.grad((LMINet(adjoint=adjoint).solve(y, set).value * weights).sum(), y)
        torch.testing.assert_close(other, kkt, rtol=1e-3, atol=1e-4)
    (short,) = torch.autograd.grad((LMINet(adjoint=Unrolled(steps=2)).solve(y, set).value * weights).sum(), y)
    assert (short - kkt).abs().max() > 1e-2  # truncation is another derivative


def test_infeasible_systems_are_flagged_with_proof() -> None:
    """An unstable mode without input: no state feedback exists."""
    A = torch.diag_embed(torch.tensor([[1.0, -2.0], [-1.0, -2.0]], dtype=torch.float64))
    B = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64).expand(2, 2, 1)
    set = LMI.state_feedback(A, B, rate=0.1, floor=1e-3)
    solution = LMINet().solve(torch.ones(2, 5, dtype=torch.float64), set)
    assert solution.status.tolist() == [Status.INFEASIBLE, Status.OK]
    assert solution.violation[0] > 1e-4


def test_warm_start_takes_fewer_steps(generator: torch.Generator) -> None:
    A, B = systems.stable_systems("train", 64, 31)
    set = systems.ellipsoid(A, B)
    y = normal(generator, 64, 3)
    first = LMINet().solve(y, set)
    moved = y + 1e-6 * normal(generator, 64, 3)
    cold, warm = LMINet().solve(moved, set), LMINet().solve(moved, set, warm_start=first)
    assert warm.steps.double().median() < 0.5 * cold.steps.double().median()
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-6, atol=1e-6)


def test_float32_decisions_are_proved_after_rounding(generator: torch.Generator) -> None:
    A, B = (t.float() for t in systems.stable_systems("train", 64, 41))
    set = systems.ellipsoid(A, B)
    solution = LMINet().solve(normal(generator, 64, 3).float(), set)
    assert solution.value.dtype == torch.float32
    assert solution.ok.all()
    wide = LMI(*(type(b)(*(t.double() for t in b.map)) for b in set.blocks))
    assert wide.certified(solution.value.double()).all()


def test_factored_blocks_of_large_order(generator: torch.Generator) -> None:
    """Order 12, 78 unknowns: the dense form is not built, and the answer is the same."""
    n = 12
    set = LMI.lyapunov(stable(generator, (2,), n, 0.2), floor=0.1)
    y = normal(generator, 2, set.dim)
    maps = [b.map for b in set.blocks]
    flat = [
        type(m)(*(t if t.ndim > c else t[None] for t, c in zip(m, (2, 2, 2, 3), strict=True))) for m in maps
    ]
    rows = torch.zeros(2, sum(m.order for m in flat)).double()
    assert problems.build(y, flat, rows, torch.linalg.eigh).dense is None
    solution = LMINet().solve(y, set)
    assert solution.ok.all()
    assert set.certified(solution.value).all()
    weights, direction = normal(generator, 2, set.dim), normal(generator, 2, set.dim)
    leaf = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((LMINet().solve(leaf, set).value * weights).sum(), leaf)
    ends = [(LMINet().solve(y + h * direction, set).value * weights).sum() for h in (1e-5, -1e-5)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-4, atol=1e-5)


def test_eigenvalue_kernel_can_be_replaced(generator: torch.Generator) -> None:
    set, calls = joint(generator, (4,)), []

    def kernel(S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(S.shape[-1])
        return torch.linalg.eigh(S)

    y = normal(generator, 4, set.dim)
    torch.testing.assert_close(LMINet(eigen=kernel).solve(y, set).value, LMINet().solve(y, set).value)
    assert {2, 3} <= {*calls}


def test_slopes_are_safe_at_repeated_eigenvalues() -> None:
    values = torch.tensor([[2.0, 2.0, -1.0, -1.0, 0.0]], dtype=torch.float64)
    slopes = search.slopes_of(values)[0]
    assert slopes.isfinite().all()
    assert slopes[0, 1] == 1
    assert slopes[2, 3] == 0
    assert slopes[0, 2] == pytest.approx(2 / 3)
    assert slopes[4, 2] == 0


def test_constructors_say_what_their_theorems_say(generator: torch.Generator) -> None:
    """Bounded real: the smallest certified gain is the peak of the frequency response; passive: no phase beyond 90°."""
    A = torch.tensor([[0.0, 1.0], [-4.0, -0.4]], dtype=torch.float64)
    B, C = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    D = torch.zeros(1, 1, dtype=torch.float64)
    w = torch.linspace(0.0, 10.0, 20001, dtype=torch.float64)
    response = C.cdouble() @ torch.linalg.solve(1j * w[:, None, None] * torch.eye(2) - A, B.cdouble())
    peak = response.abs().max().item()
    for gain, feasible in ((1.02 * peak, True), (0.98 * peak, False)):
        status = LMINet().solve(torch.ones(3).double(), LMI.bounded_real(A, B, C, D, gain=gain)).status
        assert (status == Status.OK) == feasible
    y = torch.tensor([10.0, 0.0, 10.0, 0.0], dtype=torch.float64)
    squared = LMINet().solve(y, LMI.bounded_real(A, B, C, D)).value[-1]
    assert squared >= 0.999 * peak**2
    velocity = torch.tensor(
        [[0.0, 1.0]], dtype=torch.float64
    )  # collocated velocity is passive, position is not
    small = torch.tensor([[1e-3]], dtype=torch.float64)
    assert LMINet().solve(torch.ones(3).double(), LMI.passivity(A, B, velocity, small)).ok
    assert not LMINet().solve(torch.ones(3).double(), LMI.passivity(A, B, C, small)).ok


def test_least_violation_of_a_whole_batch_is_finite() -> None:
    set = LMI.dense(-torch.ones(3, 1, 1).double(), torch.zeros(3, 1, 1, 1).double())
    layer = LMINet(on_failure=LeastViolation())
    y = torch.ones(3, 1, dtype=torch.float64).requires_grad_()
    value = layer(y, set)
    assert value.isfinite().all()
    (gradient,) = torch.autograd.grad(value.sum(), y)
    assert (gradient == 0).all()


@pytest.mark.parametrize("width", [0.0, 1e-9])
def test_margin_never_proves_a_feasible_set_empty(width: float) -> None:
    """`0 <= y <= width`: thinner than any margin, not empty."""
    constant = torch.diag(torch.tensor([0.0, width]).double())
    set = LMI.dense(constant, torch.diag(torch.tensor([1.0, -1.0]).double())[None])
    assert LMINet().solve(torch.ones(1).double(), set).status != Status.INFEASIBLE


def test_underflow_proves_nothing() -> None:
    tiny = [torch.tensor([[v]]).double() for v in (1e-105, 1e-200, 1e300)]
    assert not bool(LMIBlock(*tiny).certified(torch.tensor([-1e-200]).double()))  # F = -2e-100


def test_failed_element_adds_nothing_to_gradients_of_shared_matrices() -> None:
    A = torch.tensor([[-1.0, 4.0], [0.0, -1.0]]).double().requires_grad_()
    y = torch.tensor([[1.0, 1.0, 1.0], [-1e200, -1e200, -1e200]]).double()
    solution = LMINet().solve(y, LMI.lyapunov(A, floor=0.1))
    assert solution.status[1] != Status.OK
    solution.value[0].sum().backward()
    both, A.grad = A.grad, None
    LMINet().solve(y[:1], LMI.lyapunov(A, floor=0.1)).value.sum().backward()
    torch.testing.assert_close(both, A.grad)


def test_batch_without_elements() -> None:
    A = torch.tensor([[-1.0, 4.0], [0.0, -1.0]]).double()
    assert LMINet().solve(torch.ones(0, 3).double(), LMI.lyapunov(A)).value.shape == (0, 3)


@pytest.mark.untyped
def test_row_units_and_vmap_change_no_status() -> None:
    """`F` times 10^k is the same set; every tensor batched, and a fixed number of steps, solve the same."""
    set = systems.ellipsoid(*systems.stable_systems("train", 30, 7))
    y = normal(torch.Generator().manual_seed(4), 30, 3)
    expected = LMINet().solve(y, set)
    assert expected.ok.all()
    for c in (1e-30, 1e-6, 1e6, 1e30):
        rows = LMI(*(LMIBlock(b.constant * c, b.left * c, b.right, b.slopes) for b in set.blocks))
        assert LMINet().solve(y, rows).ok.all()
    full = map_tensors(set, lambda t, _, core: t.expand(30, *t.shape[t.ndim - core :]).clone())
    assert LMINet().solve(y, full).ok.all()
    traced = torch.func.vmap(lambda p, q: LMINet().solve(p, q))(y, full)
    assert traced.ok.sum() >= 29
    both = traced.ok
    torch.testing.assert_close(traced.value[both], expected.value[both], rtol=1e-5, atol=1e-5)


def test_certificate_and_status_agree_in_float32() -> None:
    """`OK` and `certified` are one statement about the numbers returned, whatever the dtype."""
    generator = torch.Generator().manual_seed(5)
    A = torch.randn(50, 2, 2, generator=generator) - 3.0 * torch.eye(2)
    set = LMI.lyapunov(A, floor=0.1)
    solution = LMINet().solve(100.0 * torch.randn(50, 3, generator=generator), set)
    assert solution.ok.sum() >= 45
    assert set.certified(solution.value)[solution.ok].all()
