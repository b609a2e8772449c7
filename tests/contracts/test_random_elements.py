"""Random elements over layers, dtypes and modes: no value that is OK misses its set, judged in fractions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from constrained_nn import (
    AffineSubspace,
    Ball,
    BlendedProjection,
    Box,
    EuclideanProjection,
    Halfspace,
    HardNetAffine,
    HardNetConvex,
    HardNetPlusPlus,
    Intersection,
    NearestPoint,
    Polyhedron,
    RayProjection,
    SecondOrderCone,
    Simplex,
    StrictInterior,
    WeightedEllipsoid,
)
from constrained_nn.sets import ConstraintSet, IntervalSet
from constrained_nn.solvers import Status
from tests.oracles import element

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# What the guide on batches promises: relative to the size of each row, and roundings of the largest component.
RTOL = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-9, torch.float16: 1e-9}
BATCH = 50


def magnitude(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Powers of ten between two exponents."""
    return 10.0 ** (low + (high - low) * torch.rand(*shape, generator=g, dtype=torch.float64))


def randn(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def rows(g: torch.Generator, n: int) -> Polyhedron:
    """Rows of all sizes: duplicate, opposite, nearly parallel, zero; one-sided, two-sided, equal, empty."""
    m = int(torch.randint(1, 2 * n + 2, (), generator=g))
    A = randn(g, BATCH, m, n) * magnitude(g, -2, 2, BATCH, m, 1)
    kind = torch.rand(BATCH, generator=g)
    if m > 1:
        near = A[:, :1] * magnitude(g, -1, 1, BATCH, 1, 1) + randn(g, BATCH, 1, n) * magnitude(
            g, -16, 0, BATCH, 1, 1
        )
        A[:, 1:2] = torch.where((kind < 0.3)[:, None, None], near, A[:, 1:2])
        A[:, 1:2] = torch.where((kind > 0.9)[:, None, None], -A[:, :1], A[:, 1:2])
    A[:, -1] = torch.where(((kind > 0.5) & (kind < 0.55))[:, None], 0.0, A[:, -1])
    center = (A @ randn(g, BATCH, n, 1)).squeeze(-1)
    width = torch.rand(BATCH, m, generator=g, dtype=torch.float64) * magnitude(g, -3, 1, BATCH, m)
    side = torch.rand(BATCH, m, generator=g)
    lower = torch.where(side < 0.4, -torch.inf, center - width)
    upper = torch.where(side > 0.8, torch.inf, center + width)
    return Polyhedron(A, lower, torch.where((side > 0.4) & (side < 0.45), lower, upper))


def box(g: torch.Generator, n: int) -> Box:
    low = randn(g, BATCH, n) * magnitude(g, -2, 2, BATCH, n)
    return Box(
        low, low + torch.rand(BATCH, n, generator=g, dtype=torch.float64) * magnitude(g, -4, 2, BATCH, n)
    )


def weighted(g: torch.Generator, n: int) -> WeightedEllipsoid:
    none = torch.zeros(BATCH, n, 0).double()
    return WeightedEllipsoid(
        randn(g, BATCH, n), magnitude(g, -3, 3, BATCH, n), magnitude(g, -3, 3, BATCH), none
    )


SETS: dict[str, Callable[[torch.Generator, int], ConstraintSet]] = {
    "rows": rows,
    "box": box,
    "halfspace": lambda g, n: Halfspace(randn(g, BATCH, n), randn(g, BATCH) * magnitude(g, -3, 3, BATCH)),
    "equalities": lambda g, n: AffineSubspace(
        randn(g, BATCH, max(1, n - 1), n), randn(g, BATCH, max(1, n - 1))
    ),
    "simplex": lambda g, n: Simplex(-torch.rand(BATCH, n, generator=g).double(), magnitude(g, -2, 2, BATCH)),
    "ball": lambda g, n: Ball(randn(g, BATCH, n) * magnitude(g, -2, 2, BATCH, 1), magnitude(g, -3, 3, BATCH)),
    "ellipsoid": weighted,
    "cone": lambda g, n: SecondOrderCone(randn(g, BATCH, n + 1), magnitude(g, -2, 2, BATCH)),
    "both": lambda g, n: Intersection(rows(g, n), box(g, n)),
}
LAYERS = {
    "HardNetAffine": (lambda: HardNetAffine(), ("rows", "box", "halfspace", "equalities")),
    "HardNetAffine-wide": (lambda: HardNetAffine(compute_dtype=torch.float64), ("rows", "equalities")),
    "EuclideanProjection": (lambda: EuclideanProjection(), tuple(SETS)),
    "HardNetConvex": (lambda: HardNetConvex(), ("rows", "cone")),
    "StrictInterior": (lambda: StrictInterior(EuclideanProjection()), ("rows", "box", "both")),
    "RayProjection": (lambda: RayProjection(), ("ellipsoid",)),
    "BlendedProjection": (lambda: BlendedProjection(1e9), ("ellipsoid",)),
    "HardNetPlusPlus": (lambda: HardNetPlusPlus(), ("rows", "ball")),
    "NearestPoint": (lambda: NearestPoint(), ("ball",)),
}
TRACED = ("HardNetAffine", "EuclideanProjection", "RayProjection")


def solve(layer, y: Tensor, set: ConstraintSet, mode: str):
    """Value and status in that mode."""

    def plain(y: Tensor, set):
        solution = layer.solve(y, set)
        return solution.value, solution.status

    if mode == "vmap":
        return torch.func.vmap(plain)(y, set)
    if mode == "compile":
        return torch.compile(plain, backend="aot_eager")(y, set)
    if mode == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(y, set)
    return plain(y, set)


def exact(values: Tensor) -> list[Fraction]:
    return [Fraction(v) for v in values.double().tolist()]


def misses(set, x: Tensor, rtol: float, half: bool) -> bool:
    """Whether one element misses its set by more than the tolerance, in fractions."""
    if not bool(x.isfinite().all()):
        return True
    if isinstance(set, Intersection):
        return any(misses(member, x, rtol, half) for member in set.sets)
    wide = x.double()
    floor = Fraction(torch.finfo(x.dtype).tiny)
    unit = Fraction(2**-53 if half or x.dtype == torch.float64 else 2**-24)
    room = [
        Fraction(rtol) * Fraction(a) + 32 * unit * Fraction(b) + floor
        for a, b in zip(
            set.scale(wide).tolist(), set.scale(wide.abs().amax().expand_as(wide)).tolist(), strict=True
        )
    ]
    v = exact(x)
    if isinstance(set, Ball | WeightedEllipsoid | SecondOrderCone):
        return curved(set, v) > curved_bound(set, v, room[0])
    assert isinstance(set, IntervalSet)
    for i, row in enumerate(set.jacobian(wide).tolist()):
        value = sum(Fraction(a) * b for a, b in zip(row, v, strict=True))
        low, up = float(set.lower[i]), float(set.upper[i])
        allowed = room[i]
        if half and low == up:
            allowed += (
                4 * len(v) * Fraction(torch.finfo(x.dtype).eps) / 2 * Fraction(float(set.scale(wide)[i]))
            )
        if low != -torch.inf and value < Fraction(low) - allowed:
            return True
        if up != torch.inf and value > Fraction(up) + allowed:
            return True
    return False


def curved(set, v: list[Fraction]) -> Fraction:
    """The square that a curved set bounds."""
    if isinstance(set, SecondOrderCone):
        return sum(((a - b) ** 2 for a, b in zip(v[1:], exact(set.apex)[1:], strict=True)), Fraction(0))
    d = [a - b for a, b in zip(v, exact(set.center), strict=True)]
    weights = exact(set.weights) if isinstance(set, WeightedEllipsoid) else [Fraction(1)] * len(d)
    return sum((w * t * t for w, t in zip(weights, d, strict=True)), Fraction(0))


def curved_bound(set, v: list[Fraction], room: Fraction) -> Fraction:
    if isinstance(set, WeightedEllipsoid):
        return Fraction(float(set.level)) + room
    if isinstance(set, Ball):
        return (Fraction(float(set.radius)) + room) ** 2
    side = Fraction(float(set.slope)) * (v[0] - exact(set.apex)[0]) + room
    return side**2 if side >= 0 else Fraction(-1)


def check(name: str, kind: str, dtype: torch.dtype, mode: str, g: torch.Generator) -> Counter:
    """One batch; counts of statuses."""
    n = int(torch.randint(1, 6, (), generator=g))
    set = SETS[kind](g, n)
    y = randn(g, BATCH, set.dim) * magnitude(g, -6, 8, BATCH, 1)
    y[3] = torch.nan
    reduced = torch.utils._pytree.tree_map(lambda t: t.to(dtype), set)
    wide = torch.utils._pytree.tree_map(lambda t: t.double(), reduced)
    value, status = solve(LAYERS[name][0](), y.to(dtype), reduced, mode)
    assert value.dtype == dtype
    if bool(y.to(dtype)[3].isnan().any()):
        assert status[3] != Status.OK
    # layers with a tolerance in the units of the rows state it themselves
    absolute = {"HardNetPlusPlus", "NearestPoint"} & {name}
    for i in (status == Status.OK).nonzero().squeeze(-1).tolist():
        one = element(wide, i)
        if absolute:
            eps = torch.finfo(dtype).eps
            limit = max(1e-10, 64 * eps) + 8 * eps * float(one.scale(value[i].double()).max())
            assert float(one.violation(value[i].double())) <= limit, (name, kind, dtype, mode, i)
        else:
            half = dtype in (torch.bfloat16, torch.float16)
            assert not misses(one, value[i], RTOL[dtype], half), (name, kind, dtype, mode, i, value[i], one)
    return Counter(Status(s).name for s in status.tolist())


def combinations(slow: bool):
    for name, (_, kinds) in LAYERS.items():
        for kind in kinds:
            for dtype in DTYPES:
                yield name, kind, dtype, "eager"
                yield name, kind, dtype, "autocast"
                if name in TRACED:
                    yield name, kind, dtype, "vmap"
                if slow and name in TRACED and kind != "both":
                    yield name, kind, dtype, "compile"


@pytest.mark.untyped
def test_random_elements() -> None:
    """Every combination once, with a batch of its own."""
    g = torch.Generator().manual_seed(1)
    found = sum((check(*one, g) for one in combinations(slow=False)), Counter())
    assert found["OK"] > 0.6 * sum(found.values())


@pytest.mark.slow
def test_hundred_thousand_random_elements() -> None:
    g, found = torch.Generator().manual_seed(2), Counter()
    while sum(found.values()) < 100_000:
        for one in combinations(slow=sum(found.values()) < 8_000):
            found += check(*one, g)
    print(dict(found))
