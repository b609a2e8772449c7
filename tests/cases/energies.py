"""Rows of the energies, of their ellipsoids, and of the layers that bound them."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import torch

from constrained_nn.certificates import (
    DenseEnergy,
    DiagonalEnergy,
    FourierEnergy,
    LowRankEnergy,
    NeuralEnergy,
)
from constrained_nn.errors import ConvergenceError, InfeasibleError, SetTypeError, ShapeError
from constrained_nn.layers import BlendedProjection, EuclideanProjection, RayProjection
from constrained_nn.models import ECO
from constrained_nn.sets import Ball, SpectralEllipsoid, WeightedEllipsoid
from control_envs.dynamics import LinearSystem
from tests.cases._rows import BadCall, Batch, CertificateCase, Edge, LayerCase, SetCase
from tests.cases.certificates import P, seeded, states
from tests.cases.sets import rand, randn, tensor
from tests.cases.sets_convex import ellipsoid, number
from tests.oracles import numpy


def diagonal(generator: torch.Generator, batch: Batch) -> WeightedEllipsoid:
    weights = 0.2 + 2.0 * rand(generator, *batch, 4)
    none = torch.zeros(*batch, 4, 0, dtype=torch.float64)
    return WeightedEllipsoid(randn(generator, *batch, 4), weights, 0.5 + rand(generator, *batch), none)


def low_rank(generator: torch.Generator, batch: Batch) -> WeightedEllipsoid:
    weights, factor = 0.5 + rand(generator, *batch, 4), 0.5 * randn(generator, *batch, 4, 2)
    return WeightedEllipsoid(randn(generator, *batch, 4), weights, 0.5 + rand(generator, *batch), factor)


def spectral(rows: int, columns: int):
    def build(generator: torch.Generator, batch: Batch) -> SpectralEllipsoid:
        spectrum = 0.2 + 2.0 * rand(generator, *batch, rows, columns // 2 + 1)
        center = randn(generator, *batch, rows * columns)
        return SpectralEllipsoid(center, spectrum, 0.5 + rand(generator, *batch))

    return build


def fitted(generator: torch.Generator) -> list:
    """One energy of each kind on 16 components, fitted to the same data."""
    x = 0.5 + randn(generator, 300, 16) @ randn(generator, 16, 16) / 4
    points = torch.linspace(0, 1, 17, dtype=torch.float64)[:-1].unsqueeze(-1)
    quadrature = torch.full((16,), 1 / 16, dtype=torch.float64)
    return [
        DiagonalEnergy.from_data(x),
        DenseEnergy.from_data(x),
        LowRankEnergy.from_data(x, rank=3),
        FourierEnergy.from_data(x, 16),
        FourierEnergy.from_data(x, (4, 4)),
        NeuralEnergy.from_data(x, points, quadrature, hidden=(16,)),
    ]


def matrix(set) -> np.ndarray:
    """`Q` entry by entry, from its definition."""
    if isinstance(set, WeightedEllipsoid):
        return np.diag(numpy(set.weights)) + numpy(set.factor) @ numpy(set.factor).T
    if not isinstance(set, SpectralEllipsoid):
        return numpy(set.P)
    (rows, half), n = set.spectrum.shape, set.dim
    columns = n // rows
    half_spectrum = numpy(set.spectrum)
    Q = np.zeros((n, n), dtype=complex)
    i, j = np.divmod(np.arange(n), columns)
    for k in range(rows):
        for m in range(columns):
            mirrored = half_spectrum[-k % rows, -m % columns] if -m % columns < half else None
            own = half_spectrum[k, m] if m < half else None
            weight = np.mean([w for w in (own, mirrored) if w is not None])
            wave = np.exp(-2j * np.pi * (k * i / rows + m * j / columns)) / np.sqrt(n)
            Q += weight * np.outer(wave.conj(), wave)
    assert np.abs(Q.imag).max() < 1e-12
    return Q.real


def violation(set, y: np.ndarray) -> float:
    d = y - numpy(set.center)
    return max(0.0, float(d @ matrix(set) @ d - numpy(set.level)))


def rows(set, z) -> list:
    root = np.linalg.cholesky(matrix(set)).T
    return [cp.sum_squares(root @ (z - numpy(set.center))) <= float(set.level)]


def along_the_ray(set, y: np.ndarray) -> np.ndarray:
    """The point of the segment to the center with the largest share of `y`, by bisection."""
    center, low, high = numpy(set.center), 0.0, 1.0
    for _ in range(60):
        share = 0.5 * (low + high)
        low, high = (share, high) if violation(set, center + share * (y - center)) == 0.0 else (low, share)
    return y if violation(set, y) == 0.0 else center + low * (y - center)


def center(set) -> torch.Tensor:
    return set.center + 0.1


def edges() -> list[Edge]:
    flat = WeightedEllipsoid(tensor(0.0, 0.0), tensor(1.0, 4.0), number(4.0))
    point = WeightedEllipsoid(tensor(1.0, 2.0), tensor(1.0, 4.0), number(0.0))
    tied = WeightedEllipsoid(tensor(0.0, 0.0), tensor(0.5, 0.5), number(50.0), tensor([1.0, 0.0], [0.0, 1.0]))
    return [
        Edge("axis", flat, tensor(0.0, 3.0), tensor(0.0, 1.0)),
        Edge("inside", flat, tensor(1.0, 0.5), tensor(1.0, 0.5)),
        Edge("center", flat, tensor(0.0, 0.0), tensor(0.0, 0.0)),
        Edge("boundary", flat, tensor(2.0, 0.0), tensor(2.0, 0.0)),
        Edge("one point", point, tensor(4.0, 4.0), tensor(1.0, 2.0)),
        Edge("center of one point", point, tensor(1.0, 2.0), tensor(1.0, 2.0)),
        Edge("repeated eigenvalues", tied, tensor(6.0, 8.0), tensor(6.0, 8.0) * (1 / 3) ** 0.5),
    ]


def ray_edges() -> list[Edge]:
    flat = WeightedEllipsoid(tensor(0.0, 0.0), tensor(1.0, 4.0), number(4.0))
    far = Edge("beyond floats", flat, tensor(1e200, 1e200), tensor(0.0, 0.0))
    return [*edges(), far, Edge("oblique", flat, tensor(6.0, 4.0), tensor(1.2, 0.8))]


def empty() -> tuple[torch.Tensor, WeightedEllipsoid]:
    level = tensor(1.0, -1.0)
    return tensor([3.0, 0.0], [3.0, 0.0]), WeightedEllipsoid(
        torch.zeros(2, 2).double(), torch.ones(2, 2).double(), level
    )


# A sharp blend is the ray; what the blend itself promises is in tests/papers/test_eco.py.
def sharp() -> BlendedProjection:
    return BlendedProjection(1e12)


def _ray(name: str, build, make=RayProjection, **options) -> LayerCase:
    return LayerCase(
        f"{make().__class__.__name__}-{name}", type(make()), make, build, along_the_ray, center, **options
    )


def nearest(set, y: np.ndarray) -> np.ndarray:
    """The secular equation by bisection, in NumPy's eigenbasis."""
    values, basis = np.linalg.eigh(matrix(set))
    d, level = basis.T @ (y - numpy(set.center)), float(set.level)
    if values @ d**2 <= level:
        return y
    low, high = 0.0, 1e6
    for _ in range(200):
        nu = 0.5 * (low + high)
        low, high = (nu, high) if values @ (d / (1 + nu * values)) ** 2 > level else (low, nu)
    return numpy(set.center) + basis @ (d / (1 + low * values))


# --- energies ----------------------------------------------------------------------------------------------

CENTER = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
WEIGHTS = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
FACTOR = torch.tensor([[0.5], [-1.0], [0.3]], dtype=torch.float64)
SPECTRUM = torch.tensor([1.5, 0.5], dtype=torch.float64)
GRID = torch.tensor([[0.1], [0.4], [0.8]], dtype=torch.float64)
VELOCITY = LinearSystem(np.zeros((3, 3)), np.eye(3))
OPTIONS = {"level": 0.7, "rate": 0.5}


def neural() -> NeuralEnergy:
    energy = seeded(lambda: NeuralEnergy(GRID.float(), torch.full((3,), 0.25), hidden=(5,), **OPTIONS))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for network in (energy.density_net, energy.center_net):
            network[-1].weight.copy_(0.5 * randn(generator, 1, 5))
    energy.points.copy_(GRID)
    return energy


def quadratic(Q: torch.Tensor, center: torch.Tensor):
    def value(x: np.ndarray) -> np.ndarray:
        d = x - numpy(center)
        return np.array(d @ numpy(Q) @ d)

    return value


def neural_value(x: np.ndarray) -> np.ndarray:
    energy = neural()

    def network(net) -> np.ndarray:
        h = numpy(GRID) @ numpy(net[0].weight).T + numpy(net[0].bias)
        return (h / (1 + np.exp(-h))) @ numpy(net[2].weight)[0] + numpy(net[2].bias)

    weights = 0.25 * np.exp(5 * np.tanh(network(energy.density_net) / 5))
    return np.array(np.sum(weights * (x - network(energy.center_net)) ** 2))


def fourier_value(x: np.ndarray) -> np.ndarray:
    modes = np.fft.fft(x - 0.2, norm="ortho")
    return np.array(np.sum(np.array([1.5, 0.5, 0.5]) * np.abs(modes) ** 2))


def decreasing(value: np.ndarray, rate: np.ndarray) -> np.ndarray:
    return -(rate + 0.5 * (value - 0.7))


def _energy(kind: type, make, value) -> CertificateCase:
    return CertificateCase(kind.__name__, kind, make, VELOCITY, states, value, decreasing)


ROWS = [
    SetCase(
        "WeightedEllipsoid", WeightedEllipsoid, diagonal, violation, center, rows, edges, cvxpy_atol=2e-5
    ),
    SetCase(
        "WeightedEllipsoid-low-rank",
        WeightedEllipsoid,
        low_rank,
        violation,
        center,
        rows,
        edges,
        cvxpy_atol=2e-5,
    ),
    SetCase("SpectralEllipsoid", SpectralEllipsoid, spectral(1, 5), violation, center, rows, cvxpy_atol=2e-5),
    SetCase(
        "SpectralEllipsoid-2d", SpectralEllipsoid, spectral(3, 4), violation, center, rows, cvxpy_atol=2e-5
    ),
    _ray("diagonal", diagonal, infeasible=empty, edges=ray_edges),
    _ray("low-rank", low_rank, compiles=False),
    _ray("fourier", spectral(2, 4)),
    _ray("dense", ellipsoid, compiles=False),
    _ray(
        "sharp",
        low_rank,
        make=sharp,
        edges=lambda: [e for e in edges() if "point" not in e.name],
        gradient_atol=1e-5,
        compiles=False,
    ),
    LayerCase(
        "EuclideanProjection-WeightedEllipsoid",
        EuclideanProjection,
        EuclideanProjection,
        low_rank,
        nearest,
        center,
        euclidean=True,
        compiles=False,
    ),
    LayerCase(
        "EuclideanProjection-SpectralEllipsoid",
        EuclideanProjection,
        EuclideanProjection,
        spectral(3, 4),
        nearest,
        center,
        euclidean=True,
        compiles=False,
    ),
    _energy(
        DiagonalEnergy,
        lambda: DiagonalEnergy(WEIGHTS, center=CENTER, **OPTIONS),
        quadratic(torch.diag(WEIGHTS), CENTER),
    ),
    _energy(DenseEnergy, lambda: DenseEnergy(P, center=CENTER, **OPTIONS), quadratic(P, CENTER)),
    _energy(
        LowRankEnergy,
        lambda: LowRankEnergy(WEIGHTS, FACTOR, center=CENTER, **OPTIONS),
        quadratic(torch.diag(WEIGHTS) + FACTOR @ FACTOR.mT, CENTER),
    ),
    _energy(FourierEnergy, lambda: FourierEnergy(SPECTRUM, 3, mean=0.2, **OPTIONS), fourier_value),
    _energy(NeuralEnergy, neural, neural_value),
    BadCall(
        "WeightedEllipsoid",
        ShapeError,
        lambda: WeightedEllipsoid(torch.zeros(2), torch.ones(3), number(1.0).float()),
        "(3,)",
    ),
    BadCall(
        "SpectralEllipsoid",
        ShapeError,
        lambda: SpectralEllipsoid(torch.zeros(6), torch.ones(1, 3), number(1.0).float()),
        "(1, 3)",
    ),
    BadCall(
        "RayProjection",
        SetTypeError,
        lambda: RayProjection()(torch.zeros(2), Ball(torch.zeros(2), torch.ones(()))),
        "Ball",
    ),  # pyright: ignore
    BadCall(
        "RayProjection",
        ShapeError,
        lambda: RayProjection()(torch.zeros(3).double(), empty()[1]),
        "(*batch, 2)",
    ),
    BadCall("RayProjection", InfeasibleError, lambda: RayProjection().eval()(*empty()), "index [1]"),
    BadCall(
        "RayProjection",
        ConvergenceError,
        lambda: RayProjection().eval()(torch.full((2,), torch.nan).double(), edges()[0].set),
        "NaN",
    ),
    BadCall("BlendedProjection", ValueError, lambda: BlendedProjection(0.0), "got 0.0"),
    BadCall("EnergyFunction", ValueError, lambda: DiagonalEnergy(WEIGHTS, level=0.0), "got 0.0"),
    BadCall("EnergyFunction", ValueError, lambda: DiagonalEnergy(WEIGHTS, rate=-1.0), "got -1.0"),
    BadCall("EnergyFunction", ShapeError, lambda: DiagonalEnergy(torch.ones(2, 2)), "(2, 2)"),
    BadCall("DiagonalEnergy", ValueError, lambda: DiagonalEnergy(-WEIGHTS), "got -2"),
    BadCall("DenseEnergy", ValueError, lambda: DenseEnergy(-P), "got an eigenvalue -3.02"),
    BadCall("DenseEnergy", ShapeError, lambda: DenseEnergy(P[:2]), "(2, 3)"),
    BadCall(
        "EnergyFunction.set_level",
        ValueError,
        lambda: DiagonalEnergy(WEIGHTS).set_level(float("nan")),
        "got nan",
    ),
    BadCall("LowRankEnergy", ValueError, lambda: LowRankEnergy(-WEIGHTS, FACTOR), "got -2"),
    BadCall("FourierEnergy", ValueError, lambda: FourierEnergy(-SPECTRUM, 3), "got -1.5"),
    BadCall("FourierEnergy", ShapeError, lambda: FourierEnergy(SPECTRUM, 4), "(1, 3)"),
    BadCall("NeuralEnergy", ValueError, lambda: NeuralEnergy(GRID, -WEIGHTS), "got -2"),
    BadCall("NeuralEnergy", ShapeError, lambda: NeuralEnergy(GRID, WEIGHTS[:2]), "(3, 1)"),
    BadCall(
        "ECO", ValueError, lambda: ECO(torch.nn.Identity(), DiagonalEnergy(WEIGHTS), alpha=1.5), "got 1.5"
    ),
    BadCall(
        "ECO",
        ConvergenceError,
        lambda: ECO(torch.nn.Identity(), DiagonalEnergy(WEIGHTS)).eval()(
            torch.full((3,), torch.inf).double()
        ),
        "got 1 of 1",
    ),
]
