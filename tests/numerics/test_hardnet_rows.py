"""HardNetAffine on rows of every kind: nothing is violated in silence, and the scaling of rows does not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from constrained_nn import Euclidean, Fixed, HardNetAffine, Parallel, Polyhedron, Status
from tests.cases.sets import rand, randn
from tests.numerics.random_polyhedra import RandomSets, random_sets


def silent(sets: RandomSets, solution, dtype: torch.dtype) -> np.ndarray:
    """Elements reported as satisfied that are not, judged in NumPy on the very data that the layer saw.

    Rows hold to 1e-9 (1e-4 in float32) of `|A||x| + |bound|`, and to rounding of `y`, 1e-14 of `|a||y|`.
    """
    rtol = 1e-9 if dtype == torch.float64 else 1e-4
    y, A, lower, upper = (
        torch.tensor(a).to(dtype).double().numpy() for a in (sets.y, sets.A, sets.lower, sets.upper)
    )
    x = solution.value.double().numpy()
    reached = np.einsum("bmn,bn->bm", A, x)
    size = np.einsum("bmn,bn->bm", np.abs(A), np.abs(x))
    rounding = 48 * torch.finfo(dtype).eps * np.linalg.norm(A, axis=-1) * np.linalg.norm(y, axis=-1)[:, None]
    with np.errstate(invalid="ignore"):
        above = np.where(np.isfinite(upper), reached - upper - rtol * (size + np.abs(upper)) - rounding, -1.0)
        below = np.where(np.isfinite(lower), lower - reached - rtol * (size + np.abs(lower)) - rounding, -1.0)
    held = (np.maximum(above, below) <= 0).all(-1)  # False for NaN
    return solution.ok.numpy() & ~held


def full_rank_sets(rng: np.random.Generator, batch: int, n: int, m: int) -> RandomSets:
    """Independent rows, some of them equalities or without a side: what the closed form covers."""
    scale = 10.0 ** rng.uniform(-3, 3, (batch, m))
    q = rng.standard_normal((batch, m))
    room = np.abs(rng.standard_normal((2, batch, m))) * (rng.random((batch, m)) < 0.8)
    lower = np.where(rng.random((batch, m)) < 0.3, -np.inf, q - room[0])
    A = rng.standard_normal((batch, m, n)) * scale[..., None]
    y = 4.0 * rng.standard_normal((batch, n))
    return RandomSets(y, A, lower * scale, (q + room[1]) * scale, None, np.zeros(batch))


def check(
    layer: HardNetAffine, dtype: torch.dtype, batches: int, batch: int, rows: int = 40
) -> dict[Status, int]:
    rng = np.random.default_rng(6)
    counts: dict[Status, int] = {}
    for i in range(batches):
        n, m = int(rng.integers(1, 21)), int(rng.integers(1, rows + 1))
        sets = random_sets(rng, batch, n, m) if i % 4 else full_rank_sets(rng, batch, n, min(m, n))
        y, A, lower, upper = (torch.tensor(a).to(dtype) for a in (sets.y, sets.A, sets.lower, sets.upper))
        solution = layer.solve(y, Polyhedron(A, lower, upper))
        assert not silent(sets, solution, dtype).any()
        if dtype == torch.float64:
            ok = solution.ok.numpy()
            assert ok[sets.gap == 0].all()
            assert not ok[
                sets.gap >= 1e-6
            ].any()  # what is empty by less is flagged, or holds within rounding
        for status, count in solution.counts().items():
            counts[status] = counts.get(status, 0) + count
    return counts


@pytest.mark.once  # one solver on many sets
def test_random_polyhedra() -> None:
    """In float64 feasible sets are enforced to 1e-9 and empty ones flagged: nothing in between."""
    counts = check(HardNetAffine(), torch.float64, batches=8, batch=250, rows=20)
    assert {Status.OK, Status.INFEASIBLE} <= set(counts)
    counts = check(HardNetAffine(metric=Euclidean()), torch.float64, batches=4, batch=250)
    assert {Status.OK, Status.INFEASIBLE} <= set(counts)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_ten_thousand_random_polyhedra(dtype: torch.dtype) -> None:
    """1 to 40 rows, 1 to 20 outputs: every element is enforced or flagged, in both precisions."""
    counts = check(HardNetAffine(), dtype, batches=40, batch=250)
    assert sum(counts.values()) == 10_000
    enforced = counts[Status.OK]
    assert enforced > 0.75 * 10_000 if dtype == torch.float64 else enforced > 0.4 * 10_000


@pytest.mark.once  # one solver on many sets
def test_random_polyhedra_in_single_precision() -> None:
    """Rounding the data to float32 can empty a tight set; what is not flagged holds to 1e-4."""
    counts = check(HardNetAffine(), torch.float32, batches=8, batch=250, rows=20)
    assert counts[Status.OK] > 500


def test_scaling_of_rows_changes_nothing(generator: torch.Generator) -> None:
    A, q = randn(generator, 200, 3, 5), randn(generator, 200, 3)
    lower, upper = q - rand(generator, 200, 3), q + rand(generator, 200, 3)
    y = 4.0 * randn(generator, 200, 5)
    scale = 10.0 ** (16 * rand(generator, 200, 3) - 8)
    plain = HardNetAffine().solve(y, Polyhedron(A, lower, upper))
    scaled_set = Polyhedron(A * scale.unsqueeze(-1), lower * scale, upper * scale)
    scaled = HardNetAffine().solve(y, scaled_set)
    assert (plain.status == Status.OK).all()
    assert torch.equal(plain.status, scaled.status)
    torch.testing.assert_close(scaled.value, plain.value, rtol=1e-11, atol=1e-11)
    layer = HardNetAffine()
    ours = layer.condition_number(Polyhedron(A))
    np.testing.assert_allclose(ours.numpy(), np.linalg.cond(A.numpy()), rtol=1e-10)
    assert layer.condition_number(scaled_set).median() > 1e3 * ours.median()


@pytest.mark.parametrize("angle", [1e-4, 1e-10])
def test_scaling_does_not_decide_on_the_rank(angle: float, generator: torch.Generator) -> None:
    """Rows at a small angle are independent at every scale, and dependent ones dependent."""
    a, side = randn(generator, 50, 2, 4).unbind(-2)
    for b, independent in ((a + angle * side, True), (2.0 * a, False)):
        for scale in (1e-9, 1.0, 1e9):
            rows = torch.stack([a, scale * b], -2)
            factor = HardNetAffine().factor(Polyhedron(rows))
            assert factor is not None
            assert (factor.qr.independent.all(-1) == independent).all()


def test_condition_number_of_bad_rows() -> None:
    A = torch.eye(2).double().repeat(4, 1, 1)
    A[1, 1] = A[1, 0]
    A[2, 1, 1] = 0.01
    A[3, 0, 0] = torch.nan
    found = HardNetAffine().condition_number(Polyhedron(A))
    assert found[0] == 1.0
    assert found[1] > 1e15
    assert found[2] == pytest.approx(100.0)
    assert found[3].isnan()
    assert HardNetAffine().condition_number(Polyhedron(torch.ones(3, 2))).isinf()


@pytest.mark.parametrize("metric", [Parallel(), Euclidean()], ids=["Parallel", "Euclidean"])
def test_no_rows_and_no_outputs(metric) -> None:
    layer, y = HardNetAffine(metric=metric), torch.ones(4, 3).double()
    free = Polyhedron(torch.zeros(0, 3).double())
    assert torch.equal(layer(y, free), y)
    assert layer.factor(free) is None
    assert layer.condition_number(free) == 1.0
    for bound, status in ((1.0, Status.OK), (-1.0, Status.INFEASIBLE)):
        nothing = Polyhedron(torch.zeros(2, 0).double(), upper=torch.full((2,), bound).double())
        solution = layer.solve(y[:, :0], nothing)
        assert (solution.status == status).all()
        assert (solution.violation == max(0.0, -bound)).all()
        assert layer.condition_number(nothing).isinf()


@pytest.mark.untyped
def test_vmap_over_a_one_sided_polyhedron(generator: torch.Generator) -> None:
    y, A, bound = randn(generator, 6, 4), randn(generator, 6, 2, 4), randn(generator, 6, 2)
    layer = HardNetAffine()
    for set in (Polyhedron(A, upper=bound), Polyhedron(A, lower=bound), Polyhedron(A[:, :1], bound[:, :1])):
        found = torch.func.vmap(lambda y, set: layer.solve(y, set).value)(y, set)
        torch.testing.assert_close(found, layer.solve(y, set).value, rtol=1e-9, atol=1e-9)


def test_the_metric_is_a_choice() -> None:
    A = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double()
    corner = Polyhedron(A, upper=torch.ones(2).double())
    y = torch.tensor([0.5, 2.5]).double()
    torch.testing.assert_close(HardNetAffine()(y, corner), torch.tensor([0.5, 0.5]).double())
    euclidean = HardNetAffine(metric=Euclidean())
    torch.testing.assert_close(euclidean(y, corner), torch.tensor([-0.5, 1.5]).double())
    assert euclidean.solve(y, corner).status == Status.OK
    fixed = Fixed(corner)
    fixed.prepare(euclidean)
    assert fixed.factor is None


@pytest.mark.untyped  # dual numbers
@pytest.mark.parametrize("moved", ["y", "A", "lower", "upper", "y A lower upper"])
@pytest.mark.parametrize("rows", [2, 4], ids=["wide", "square"])
def test_forward_mode_is_that_of_finite_differences(
    rows: int, moved: str, generator: torch.Generator
) -> None:
    """Rows above, below, inside and equal, by dual numbers and by `torch.func.jvp`."""
    A, y = randn(generator, 6, rows, 4), 3.0 * randn(generator, 6, 4)
    middle, half = randn(generator, 6, rows), 0.1 + rand(generator, 6, rows)
    half[0] = 0.0
    half[1:3] += 50.0  # inside
    points = {"y": y, "A": A, "lower": middle - half, "upper": middle + half}
    names = moved.split()
    if "upper" in names or "lower" in names:  # an equality whose sides part has no derivative
        points = {name: t[1:] for name, t in points.items()}
    along = {name: randn(generator, *points[name].shape) for name in names}

    def enforce(given: dict) -> torch.Tensor:
        t = {**points, **given}
        return HardNetAffine().solve(t["y"], Polyhedron(t["A"], t["lower"], t["upper"])).value

    step = 1e-6
    ahead, behind = (enforce({n: points[n] + s * step * d for n, d in along.items()}) for s in (1, -1))
    expected = (ahead - behind) / (2 * step)
    values = {n: points[n] for n in names}
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(
        torch.func.jvp(enforce, (values,), (along,))[1], expected, rtol=1e-6, atol=1e-6
    )
    with forward_ad.dual_level():
        dual = enforce({n: forward_ad.make_dual(points[n], d) for n, d in along.items()})
        tangent = forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-6)
