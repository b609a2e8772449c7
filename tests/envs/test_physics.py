"""Conserved quantities, mechanical structure, linearization, and the default pictures of plants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from control_envs.dynamics import (
    CartPole,
    LinearSystem,
    Manipulator,
    Mechanical,
    Pendulum,
    Quadrotor,
    symmetric_family,
)
from control_envs.simulate import RK4, rollout
from tests.cases import PlantCase, every

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked


def cart_pole_energy(plant, x):
    _, theta, v, omega = np.moveaxis(x, -1, 0)
    moment = plant.pole_mass * plant.length
    kinetic = 0.5 * (plant.cart_mass + plant.pole_mass) * v**2 + moment * v * omega * np.cos(theta)
    return kinetic + 0.5 * moment * plant.length * omega**2 + moment * plant.gravity * np.cos(theta)


def pendulum_energy(plant, x):
    weight = plant.mass * plant.gravity * plant.length
    return 0.5 * plant.inertia * x[..., 1] ** 2 - weight * np.cos(x[..., 0])


def manipulator_energy(plant, x):
    """From the positions of the rods' own points, by finite differences: no matrix of the plant is used."""
    d, energy = plant.degrees, 0.0
    nodes, weights = np.polynomial.legendre.leggauss(4)

    def point(q, link, s):
        a = np.cumsum(q, -1)[..., : link + 1]
        reach = np.array([*plant.lengths[:link], s * plant.lengths[link]])
        return np.stack([(reach * np.sin(a)).sum(-1), -(reach * np.cos(a)).sum(-1)], -1)

    h = 1e-5
    bodies = [
        (i, 0.5 * (s + 1), 0.5 * w * m)
        for i, m in enumerate(plant.masses)
        for s, w in zip(nodes, weights, strict=True)
    ]
    for link, s, mass in [*bodies, (d - 1, 1.0, plant.payload)]:
        q, rate = x[..., :d], x[..., d:]
        velocity = (point(q + h * rate, link, s) - point(q - h * rate, link, s)) / (2 * h)
        energy = (
            energy + 0.5 * mass * (velocity**2).sum(-1) + mass * plant.gravity * point(q, link, s)[..., 1]
        )
    return energy


@pytest.mark.parametrize(
    ("plant", "energy", "start"),
    [
        (CartPole(), cart_pole_energy, [0.0, 0.5, 1.0, -2.0]),
        (Pendulum(damping=0.0), pendulum_energy, [2.0, 1.0]),
        (
            Manipulator((0.6, 0.5, 0.4), (1.0, 0.8, 0.5), payload=0.3, damping=0.0),
            manipulator_energy,
            [1.0, 0.5, -2.0, 0.5, -1.0, 1.0],
        ),
    ],
    ids=["cart-pole", "pendulum", "manipulator"],
)
def test_energy_is_conserved_to_the_order_of_the_integrator(plant, energy, start):
    drifts = []
    for substeps in (8, 16):
        path = rollout(
            plant,
            lambda t, x: np.zeros(plant.input_dim),
            np.array(start),
            dt=0.02,
            horizon=50,
            integrator=RK4(substeps),
        )
        e = energy(plant, path.x)
        drifts.append(np.abs(e - e[0]).max())
    assert drifts[0] < 3e-6
    assert drifts[1] < max(drifts[0] / 12, 2e-8)  # order 4, down to the error of the finite difference


def test_quaternion_keeps_its_length_and_momentum_its_direction():
    plant = Quadrotor(gravity=0.0)
    start = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3.0, -2.0, 1.0])
    hold = lambda t, x: np.zeros(4)  # noqa: E731
    path = rollout(plant, hold, start, dt=0.01, horizon=100, integrator=RK4(4))
    e = path.x[:, 3:7]
    np.testing.assert_allclose(np.linalg.norm(e, axis=1), 1.0, atol=1e-9)
    body = path.x[:, 10:] * [plant.Jx, plant.Jy, plant.Jz]
    w, v = e[:, :1], e[:, 1:]
    world = body + 2 * np.cross(v, np.cross(v, body) + w * body)
    np.testing.assert_allclose(world, world[:1].repeat(101, 0), atol=1e-9)


@every(PlantCase, where=lambda row: issubclass(row.kind, Mechanical))
def test_matrices_of_a_mechanism(case):
    plant = case.make()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, plant.state_dim))
    d, h = plant.degrees, 1e-6
    q, rate, force = x[:, :d], x[:, d:], rng.normal(size=(20, d))
    H = plant.H(q)
    np.testing.assert_allclose(H, np.swapaxes(H, -1, -2))
    assert (np.linalg.eigvalsh(H) > 0).all()
    change = (plant.H(q + h * rate) - plant.H(q - h * rate)) / (2 * h)
    skew = change - 2 * plant.C(q, rate)
    np.testing.assert_allclose(skew, -np.swapaxes(skew, -1, -2), atol=1e-8)
    np.testing.assert_allclose((H @ plant.accelerate(q, force)[..., None])[..., 0], force, atol=1e-12)


@every(PlantCase)
def test_linearization_is_that_of_finite_differences(case):
    plant = case.make()
    rng = np.random.default_rng(0)
    x, u = rng.uniform(-1, 1, plant.state_dim) * np.array(case.scale), rng.normal(size=plant.input_dim)
    A, B = plant.linearize(x, u)
    h = 1e-6
    for M, point, f in (
        (A, x, lambda z: plant.derivative(0.0, z, u)),
        (B, u, lambda z: plant.derivative(0.0, x, z)),
    ):
        for j in range(len(point)):
            step = h * np.eye(len(point))[j]
            expected = (f(point + step) - f(point - step)) / (2 * h)
            np.testing.assert_allclose(M[:, j], expected, rtol=1e-6, atol=1e-6)
    tensor, _ = plant.linearize(torch.from_numpy(x), torch.from_numpy(u))
    np.testing.assert_array_equal(tensor.numpy(), A)


@every(PlantCase)
def test_every_plant_has_a_picture(case):
    from matplotlib.figure import Figure

    plant = case.make()
    x = 0.3 * np.array(case.scale)
    lines = plant.outline(x)
    assert lines
    assert all(line.shape[1] == 2 and np.isfinite(line).all() for line in lines)
    ax = Figure().add_subplot()
    plant.draw(ax, x, 0.5)
    assert len(ax.lines) == len(lines)


def test_family_of_linear_systems_has_the_asked_spectrum():
    plant = symmetric_family(np.random.default_rng(0), 200, eigenvalues=(-2.0, -0.5))
    spectrum = np.linalg.eigvalsh(plant.A)
    assert spectrum.min() > -2.0
    assert spectrum.max() < -0.5
    x = np.ones((200, 2))
    assert plant.derivative(0.0, x, np.zeros((200, 1)), np.zeros((200, 1))).shape == (200, 2)


def test_manipulator_refuses_unequal_links():
    with pytest.raises(ValueError, match="as many masses as lengths, got 1 and 2"):
        Manipulator(lengths=(1.0, 1.0), masses=(1.0,))


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)], ids=str)
def test_linear_systems_of_any_number_of_batch_dimensions(batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    A, B, E = (rng.standard_normal((*batch, 3, k)) for k in (3, 2, 1))
    x, u, w = (rng.standard_normal((*batch, k)) for k in (3, 2, 1))
    plant = LinearSystem(A, B, E)
    assert (plant.state_dim, plant.input_dim, len(plant.disturbance)) == (3, 2, 1)
    expected = sum(np.einsum("...ij,...j->...i", M, v) for M, v in ((A, x), (B, u), (E, w)))
    np.testing.assert_allclose(plant.derivative(0.0, x, u, w), expected, rtol=1e-12, atol=1e-14)
