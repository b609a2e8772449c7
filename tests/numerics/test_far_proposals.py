"""Verdict and value in the unit of the result: scaled data, far proposals, sets that are empty by little."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from constrained_nn import (
    AffineSubspace,
    Ball,
    Box,
    Ellipsoid,
    EuclideanProjection,
    Halfspace,
    HardNetAffine,
    Intersection,
    L1Ball,
    Polyhedron,
    PSDCone,
    RayProjection,
    SecondOrderCone,
    Simplex,
    WeightedEllipsoid,
)
from constrained_nn.sets import map_tensors
from constrained_nn.solvers import Status

WIDE, NARROW = torch.float64, torch.float32
TRIANGLE = Polyhedron(
    torch.tensor([[1.0, 3.0], [2.0, -1.0], [-1.0, -1.0]], dtype=WIDE),
    upper=torch.tensor([1.0, 2.0, 1.0], dtype=WIDE),
)


def build(kind: str, generator, unit: float = 1.0, row: float = 1.0):
    """Sets of size about one with decisions in `unit` and rows in `row`; eight elements in three dimensions."""
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=WIDE)  # noqa: E731
    A, c, one = draw(8, 2, 3), draw(8, 3), torch.ones(8, dtype=WIDE)
    P = A.mT @ A + torch.eye(3, dtype=WIDE)
    upper = (A @ c.unsqueeze(-1)).squeeze(-1) + 0.1
    rows = Polyhedron(A * row, (upper - 0.3) * row * unit, upper * row * unit)
    opposite = torch.cat([A[:, :1], -A[:, :1]], -2)
    box = Box(c * unit, (c + 1.0) * unit)
    return {
        "rows": lambda: rows,
        "empty": lambda: Polyhedron(opposite * row, upper=torch.tensor([0.0, -1.0]).double() * row * unit),
        "half-space": lambda: Halfspace(A[:, 0] * row, -one * row * unit),
        "equalities": lambda: AffineSubspace(A * row, upper * row * unit),
        "box": lambda: box,
        "simplex": lambda: Simplex(c * unit, (c.sum(-1) + 1.0) * unit),
        "ball": lambda: Ball(c * unit, one * unit),
        "1-norm": lambda: L1Ball(c * unit, one * unit),
        "ellipsoid": lambda: Ellipsoid(c * unit, P * row, one * row * unit * unit),
        "weights": lambda: WeightedEllipsoid(c * unit, (1 + c.square()) * row, one * row * unit * unit),
        "cone": lambda: SecondOrderCone(c * unit, 0.5 * one),
        "matrices": lambda: PSDCone(c * unit),
        "rows and box": lambda: Intersection(rows, Box((c - 2) * unit, (c + 2) * unit)),
        "cut ball": lambda: Intersection(box, Ball(c * unit, 0.8 * one * unit)),
    }[kind]()


KINDS = [
    *("rows", "empty", "half-space", "equalities", "box", "simplex", "ball", "1-norm"),
    *("ellipsoid", "weights", "cone", "matrices", "rows and box", "cut ball"),
]
LAYERS = (EuclideanProjection(), HardNetAffine(), RayProjection())


def for_kind(kind: str):
    set = build(kind, torch.Generator().manual_seed(0))
    return [layer for layer in LAYERS if isinstance(set, layer.accepts)]


@pytest.mark.once
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [WIDE, NARROW])
def test_the_unit_of_the_data_changes_no_status(kind: str, dtype: torch.dtype) -> None:
    exponents = (-150, 150) if dtype == WIDE else (-15, 15)
    quadratic = kind in ("ellipsoid", "weights")
    for layer in for_kind(kind):

        def run(unit: float, row: float, layer=layer):
            generator = torch.Generator().manual_seed(3)
            set = map_tensors(build(kind, generator, unit, row), lambda t, name, core: t.to(dtype))
            y = 2 * unit * torch.randn(8, 3, generator=generator, dtype=WIDE)
            solution = layer.solve(y.to(dtype), set)
            return solution.status, solution.value.double() / unit

        status, value = run(1.0, 1.0)
        for k in exponents:
            for unit, row in ((k, 0), (0, k), (k // 2, k // 2), (k, -k)):
                if quadratic and abs(2 * unit + row) > 2 * max(exponents):
                    continue  # the level is beyond the dtype
                found, point = run(10.0**unit, 10.0**row)
                assert torch.equal(found, status), (layer, unit, row)
                tolerance = 1e-9 if dtype == WIDE else 1e-4
                torch.testing.assert_close(point, value, rtol=tolerance, atol=tolerance)


@pytest.mark.once
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "empty"])
@pytest.mark.parametrize("dtype", [WIDE, NARROW])
def test_far_proposals_land_in_the_set(kind: str, dtype: torch.dtype) -> None:
    for layer in for_kind(kind):
        for k in (3, 6, 9, 12, 16, 20, 30) if kind != "cut ball" else (3, 12, 20):
            generator = torch.Generator().manual_seed(3)
            set = map_tensors(build(kind, generator), lambda t, name, core: t.to(dtype))
            y = (10.0**k * torch.randn(8, 3, generator=generator, dtype=WIDE)).to(dtype)
            solution = layer.solve(y, set)
            assert kind == "cut ball" or solution.ok.all(), (layer, k, solution.describe_failures())
            wide = map_tensors(set, lambda t, name, core: t.double())
            off = wide.residual(solution.value.double()).abs()
            limit = (1e-9 if dtype == WIDE else 1e-4) * wide.scale(solution.value.double())
            assert (off <= limit)[solution.ok].all(), (layer, k)


@pytest.mark.parametrize("size", [1e3, 1e9, 1e13, 1e16, 1e20, 1e100, 1e300])
def test_a_far_proposal_finds_its_corner(size: float) -> None:
    """`(1, 0.3)` is a positive combination of the first two normals, which meet at `(1, 0)`."""
    y = torch.tensor([size, 0.3 * size], dtype=WIDE)
    for layer in (EuclideanProjection(), HardNetAffine()):
        solution = layer.solve(y, TRIANGLE)
        assert solution.ok
        torch.testing.assert_close(solution.value, torch.tensor([1.0, 0.0], dtype=WIDE), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "size"), [(NARROW, 1e7), (NARROW, 1e30), (WIDE, 1e17), (WIDE, 1e300)])
def test_far_points_keep_their_place_on_the_simplex(dtype: torch.dtype, size: float, generator) -> None:
    """Judged and found in exact arithmetic: only the largest entry is left, or entries that are as large."""
    n = 20
    v = (size * torch.randn(4, n, generator=generator, dtype=WIDE)).to(dtype)
    one, zeros = torch.ones(1, dtype=dtype), torch.zeros(n, dtype=dtype)
    as_rows = Intersection(Polyhedron(one.expand(1, n), one, one), Box(zeros, zeros + 1.0))
    for set in (Simplex(zeros, one.squeeze()), as_rows):
        solution = EuclideanProjection().solve(v, set)
        assert solution.ok.all()
        for point, value in zip(v.tolist(), solution.value.tolist(), strict=True):
            exact = simplex_point([Fraction(t) for t in point])
            assert all(abs(Fraction(a) - b) <= Fraction(1, 10**6) for a, b in zip(value, exact, strict=True))


def simplex_point(v: list[Fraction]) -> list[Fraction]:
    ordered = sorted(v, reverse=True)
    k = max(k for k in range(1, len(v) + 1) if ordered[k - 1] * k > sum(ordered[:k]) - 1)
    level = (sum(ordered[:k]) - 1) / k
    return [max(t - level, Fraction(0)) for t in v]


@pytest.mark.once  # values only
@pytest.mark.parametrize("size", [1.0, 1e6, 1e12, 1e16, 1e20, 1e100])
def test_an_empty_set_is_empty_from_afar(size: float, generator) -> None:
    a = torch.randn(8, 1, 3, generator=generator, dtype=WIDE)
    y = size * torch.randn(8, 3, generator=generator, dtype=WIDE)
    bounds = torch.tensor([0.0, -1.0], dtype=WIDE)
    slab = Polyhedron(torch.cat([a, -a], -2), upper=bounds)
    cut = Polyhedron(TRIANGLE.A, upper=torch.tensor([-3.0, -3.0, 1.0], dtype=WIDE))
    lines = AffineSubspace(torch.cat([a, a], -2), bounds)
    for layer in (EuclideanProjection(), HardNetAffine()):
        for set, point in ((slab, y), (cut, y[:, :2]), (lines, y)):
            solution = layer.solve(point, set)
            assert not solution.ok.any(), (layer, solution.status)
            assert solution.value.isfinite().all()
    balls = Intersection(
        *(Ball(c, torch.ones((), dtype=WIDE)) for c in (torch.zeros(3).double(), 3 + y[0] * 0))
    )
    assert (EuclideanProjection().solve(y, balls).status == Status.INFEASIBLE).all()


def test_bounds_crossed_by_one_unit_of_rounding_are_infeasible() -> None:
    one = torch.ones(2, dtype=WIDE)
    above = torch.nextafter(one, 2 * one)
    box, rows = Box(above, one), Polyhedron(torch.eye(2, dtype=WIDE), above, one)
    inside = Intersection(box, Ball(0 * one, torch.tensor(9.0, dtype=WIDE)))
    negative = Ball(0 * one, torch.tensor(-5e-324, dtype=WIDE))
    for layer in (EuclideanProjection(), HardNetAffine()):
        for set in (box, rows, inside, negative, Intersection(box, rows)):
            if isinstance(set, layer.accepts):
                assert layer.solve(one, set).status == Status.INFEASIBLE, (layer, set)


@pytest.mark.parametrize("dtype", [WIDE, NARROW])
def test_cones_are_never_empty(dtype: torch.dtype, generator) -> None:
    smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    y = torch.randint(-30, 30, (500, 6), generator=generator).to(dtype) * smallest
    zeros = torch.zeros(6, dtype=dtype)
    for set in (SecondOrderCone(zeros, torch.tensor(0.3, dtype=dtype)), PSDCone(zeros)):
        assert EuclideanProjection().solve(y, set).ok.all()


@pytest.mark.once
@pytest.mark.parametrize(("dtype", "digits", "limit"), [(NARROW, 6, 1e-3), (WIDE, 14, 1e-7)])
def test_nearly_parallel_rows_hold_in_the_unit_of_the_data(
    dtype: torch.dtype, digits: int, limit: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        a, d, c, upper, y = torch.randn(5, 3, generator=generator, dtype=WIDE)
        angle = 10 ** (-digits * float(torch.rand(1, generator=generator)))
        A = torch.stack([a / a.norm(), a / a.norm() + angle * d, c]).to(dtype)
        solution = HardNetAffine().solve(y.to(dtype), Polyhedron(A, upper=upper.to(dtype)))
        excess = A.double() @ solution.value.double() - upper.to(dtype).double()
        assert not solution.ok or excess.max() <= limit
