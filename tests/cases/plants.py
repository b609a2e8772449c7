"""Rows of the plants, each with its equations of motion written out for one element in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import cos, pi, sin, tan

import numpy as np
import sympy

from control_envs.dynamics import (
    PVTOL,
    Car,
    CartPole,
    DoubleIntegrator,
    KinematicUnicycle,
    LinearSystem,
    Lorenz63,
    Lorenz96,
    Manipulator,
    NLinkPendulum,
    PathFollowing,
    Pendulum,
    PlanarBirotor,
    PlanarRotorcraft,
    Quadrotor,
    Spacecraft,
    Unicycle,
    VanDerPol,
)
from tests.cases._rows import BadCall, PlantCase


def _unicycle(t, x, u, w):
    _, _, theta, v, omega = x
    return [v * cos(theta), v * sin(theta), omega, u[0], u[1]]


def _double_integrator(t, x, u, w):
    return [x[1], (u[0] + w[0]) / 2.5]


def _pendulum(t, x, u, w):
    m, length, b, g = 0.7, 1.3, 0.2, 9.81
    torque = u[0] + w[0] - b * x[1] - m * g * length * sin(x[0])
    return [x[1], torque / (m * length**2)]


def lagrangian(bodies: Callable, degrees: int) -> Callable:
    """Motion of a mechanism by SymPy's Euler-Lagrange equations: `(q, q', generalized force) -> q''`.

    `bodies(q)` lists (mass, x, y, angle, moment of inertia) of every body and the gravity; nothing is shared with
    the plants' own matrices.
    """
    t = sympy.Symbol("t")
    q = [sympy.Function(f"q{i}")(t) for i in range(degrees)]
    kinetic = potential = sympy.Integer(0)
    parts, gravity = bodies(q)
    for mass, x, y, angle, moment in parts:
        kinetic += (
            mass * (x.diff(t) ** 2 + y.diff(t) ** 2) / 2 + moment * sympy.sympify(angle).diff(t) ** 2 / 2
        )
        potential += mass * gravity * y
    L = kinetic - potential
    rates = [qi.diff(t) for qi in q]
    equations = sympy.Matrix([L.diff(v).diff(t) - L.diff(qi) for qi, v in zip(q, rates, strict=True)])
    names = [sympy.symbols(f"{letter}:{degrees}") for letter in ("a", "v", "p")]
    flat = [*zip([v.diff(t) for v in rates], names[0], strict=True)]
    flat += [*zip(rates, names[1], strict=True), *zip(q, names[2], strict=True)]
    for old, new in flat:
        equations = equations.subs(old, new)
    mass_matrix = equations.jacobian(names[0])
    bias = equations.subs({a: 0 for a in names[0]})
    values = sympy.lambdify([names[2], names[1]], [mass_matrix, bias], "numpy")

    def motion(positions, velocities, force):
        M, b = values(positions, velocities)
        return np.linalg.solve(M, np.asarray(force) - b[:, 0])

    return motion


@cache
def _cart_pole_motion():
    def bodies(q):
        p, theta = q
        tip = (p + 0.8 * sympy.sin(theta), 0.8 * sympy.cos(theta))
        return [(1.5, p, sympy.Integer(0), 0, 0), (0.3, *tip, 0, 0)], 9.81

    return lagrangian(bodies, 2)


def _cart_pole(t, x, u, w):
    force = [u[0] + w[0] - 0.2 * x[2], 0.0]
    return [x[2], x[3], *_cart_pole_motion()(x[:2], x[2:], force)]


LENGTHS, MASSES, PAYLOAD = (0.6, 0.5, 0.4), (1.0, 0.8, 0.5), 0.3


@cache
def _manipulator_motion():
    def bodies(q):
        parts, x, y, angle = [], 0, 0, 0
        for qi, length, mass in zip(q, LENGTHS, MASSES, strict=True):
            angle = angle + qi
            dx, dy = length * sympy.sin(angle), -length * sympy.cos(angle)
            parts.append((mass, x + dx / 2, y + dy / 2, angle, mass * length**2 / 12))
            x, y = x + dx, y + dy
        return [*parts, (PAYLOAD, x, y, 0, 0)], 9.81

    return lagrangian(bodies, 3)


def _manipulator(t, x, u, w):
    q, rate = x[:3], x[3:]
    return [*rate, *_manipulator_motion()(q, rate, u + w - 0.2 * rate)]


LONG = (2.0, 1.8, 1.6)


@cache
def _n_link_motion():
    def bodies(q):
        parts, x, y = [], 0, 0
        for qi, length, mass in zip(q, LONG, MASSES, strict=True):
            x, y = x + length * sympy.sin(qi), y - length * sympy.cos(qi)
            parts.append((mass, x, y, 0, 0))
        return parts, 9.81

    return lagrangian(bodies, 3)


def _n_link(t, x, u, w):
    q, rate = x[:3], x[3:]
    return [*rate, *_n_link_motion()(q, rate, np.array([u[0], 0.0, 0.0]) - 0.2 * rate)]


def _path_following(t, x, u, w):
    d, theta = x  # the place on the circle turns by v cos θ / (radius − d)
    return [0.5 * sin(theta), 0.5 * tan(u[0]) / 1.2 - 0.5 * cos(theta) / (4.0 - d)]


def _kinematic_unicycle(t, x, u, w):
    return [u[0] * cos(x[2]), u[0] * sin(x[2]), u[1]]


def _car(t, x, u, w):
    _, _, theta, v, delta = x
    radius = 1.7 / tan(delta)  # of the rear axle's circle
    return [v * cos(theta), v * sin(theta), v / radius, u[0], u[1]]


def _drag(x, w, b1, b2):
    """Force on the body in a wind along `px`: rotate into the body, quadratic law, rotate back."""
    R = np.array([[cos(x[2]), -sin(x[2])], [sin(x[2]), cos(x[2])]])
    v = R.T @ np.array([x[3] - w[0], x[4]])
    return R @ -(np.array([b1, b2]) * v * np.abs(v)), v


def _planar_rotorcraft(t, x, u, w):
    (fx, fy), _ = _drag(x, w, 0.1, 1.0)
    thrust, torque, side = u
    ax = -sin(x[2]) * thrust + cos(x[2]) * side + fx
    ay = cos(x[2]) * thrust + sin(x[2]) * side - 9.81 + fy
    return [x[3], x[4], x[5], ax, ay, torque]


def _pvtol(t, x, u, w):
    (fx, fy), v = _drag(x, w, 0.01, 1.0)
    ax = -sin(x[2]) * u[0] + 0.1 * cos(x[2]) * u[1] + fx
    ay = cos(x[2]) * u[0] + 0.1 * sin(x[2]) * u[1] - 9.81 + fy
    right, left = 0.5 * x[5] - v[1], -0.5 * x[5] - v[1]
    return [x[3], x[4], x[5], ax, ay, u[1] - 0.7 * (right * abs(right) - left * abs(left))]


def _times(a, b):
    """Product of two quaternions."""
    aw, av, bw, bv = a[0], np.array(a[1:]), b[0], np.array(b[1:])
    return np.array([aw * bw - av @ bv, *(aw * bv + bw * av + np.cross(av, bv))])


def _quadrotor(t, x, u, w):
    e, v, omega = x[3:7], x[7:10], x[10:]
    J = np.diag([0.4, 0.5, 0.7])
    thrust = _times(_times(e, [0, 0, 0, u[0]]), e * [1, -1, -1, -1])[1:]
    acceleration = (thrust + w) / 1.4 - np.array([0, 0, 9.81])
    turn = np.linalg.solve(J, u[1:] - np.cross(omega, J @ omega))
    return [*v, *(0.5 * _times(e, [0, *omega])), *acceleration, *turn]


A, B, E = np.array([[-1.0, 2.0], [0.5, -3.0]]), np.array([[1.0], [2.0]]), np.array([[0.3, 0.0], [0.1, -1.0]])


def _linear(t, x, u, w):
    return [sum(A[i] * x) + B[i, 0] * u[0] + sum(E[i] * w) for i in range(2)]


def _van_der_pol(t, x, u, w):
    return [x[1], 0.7 * (1 - x[0] * x[0]) * x[1] - x[0] + u[0] + w[0]]


def _lorenz_63(t, x, u, w):
    x, y, z = x
    return [2.0 * (y - x), 3.0 * x - x * z - y, x * y - 1.5 * z]


def _lorenz_96(t, x, u, w):
    return [x[i - 1] * (x[(i + 1) % 6] - x[i - 2]) - x[i] + 7.0 for i in range(6)]


def _spacecraft(t, x, u, w):
    """Through the matrix of the paper's code: the forces and the moment move a point that is not the center."""
    m, J, ox, oy = 0.4, 0.2, 0.2, -0.1
    moment = u[2] + np.cross([ox, oy, 0.0], [-u[0], -u[1], 0.0])[2]
    turn = moment / J
    acceleration = (np.array(u[:2]) + turn * np.array([oy, -ox]) + x[5] ** 2 * np.array([ox, oy])) / m
    return [*x[3:], *acceleration, turn]


def _birotor(t, x, u, w):
    """Newton in the inertial frame, turned into body axes."""
    m, arm, J, g = 0.6, 0.3, 0.01, 9.81
    c, s = cos(x[2]), sin(x[2])
    R, turned = np.array([[c, -s], [s, c]]), np.array([[-s, -c], [c, -s]])  # and its derivative in the angle
    velocity = R @ x[3:5]
    acceleration = R @ [0.0, (u[0] + u[1]) / m] - [0.0, g]
    body = R.T @ acceleration + x[5] * turned.T @ velocity
    return [*velocity, x[5], *body, arm * (u[0] - u[1]) / J]


ROWS = [
    PlantCase(
        "PlanarBirotor",
        PlanarBirotor,
        lambda: PlanarBirotor(0.6, 0.3, 0.01),
        _birotor,
        (10.0, 10.0, pi / 3, 2.0, 1.0, pi / 3),
    ),
    PlantCase("VanDerPol", VanDerPol, lambda: VanDerPol(0.7), _van_der_pol, (3.0, 3.0)),
    PlantCase(
        "Spacecraft",
        Spacecraft,
        lambda: Spacecraft(0.4, 0.2, 0.2, -0.1),
        _spacecraft,
        (1.0, 1.0, pi, 0.2, 0.2, 0.25),
    ),
    PlantCase("Unicycle", Unicycle, Unicycle, _unicycle, (3.0, 3.0, pi, 2.0, 2.0)),
    PlantCase(
        "DoubleIntegrator",
        DoubleIntegrator,
        lambda: DoubleIntegrator(mass=2.5),
        _double_integrator,
        (2.0, 2.0),
    ),
    PlantCase(
        "Pendulum", Pendulum, lambda: Pendulum(mass=0.7, length=1.3, damping=0.2), _pendulum, (pi, 3.0)
    ),
    PlantCase(
        "CartPole",
        CartPole,
        lambda: CartPole(cart_mass=1.5, pole_mass=0.3, length=0.8, friction=0.2),
        _cart_pole,
        (2.0, pi, 2.0, 3.0),
    ),
    PlantCase(
        "Manipulator",
        Manipulator,
        lambda: Manipulator(lengths=LENGTHS, masses=MASSES, payload=PAYLOAD, damping=0.2),
        _manipulator,
        (pi, pi, pi, 2.0, 2.0, 2.0),
    ),
    PlantCase(
        "NLinkPendulum",
        NLinkPendulum,
        lambda: NLinkPendulum(lengths=LONG, masses=MASSES, damping=0.2),
        _n_link,
        (pi, pi, pi, 1.0, 1.0, 1.0),
    ),
    PlantCase(
        "PathFollowing", PathFollowing, lambda: PathFollowing(0.5, 1.2, 4.0), _path_following, (1.0, 1.0)
    ),
    PlantCase("KinematicUnicycle", KinematicUnicycle, KinematicUnicycle, _kinematic_unicycle, (3.0, 3.0, pi)),
    PlantCase("Car", Car, lambda: Car(wheelbase=1.7), _car, (3.0, 3.0, pi, 3.0, 0.5)),
    PlantCase(
        "PlanarRotorcraft",
        PlanarRotorcraft,
        PlanarRotorcraft,
        _planar_rotorcraft,
        (3.0, 3.0, pi, 3.0, 3.0, 3.0),
    ),
    PlantCase(
        "PVTOL",
        PVTOL,
        lambda: PVTOL(coupling=0.1, arm=0.5, drag_rotor=0.7),
        _pvtol,
        (3.0, 3.0, pi, 3.0, 3.0, 3.0),
    ),
    PlantCase(
        "Quadrotor",
        Quadrotor,
        lambda: Quadrotor(mass=1.4, Jx=0.4, Jy=0.5, Jz=0.7),
        _quadrotor,
        (2.0,) * 3 + (1.0,) * 4 + (2.0,) * 6,
    ),
    PlantCase("LinearSystem", LinearSystem, lambda: LinearSystem(A, B, E), _linear, (2.0, 2.0)),
    PlantCase("Lorenz63", Lorenz63, lambda: Lorenz63(2.0, 3.0, 1.5), _lorenz_63, (2.0, 2.0, 2.0)),
    PlantCase("Lorenz96", Lorenz96, lambda: Lorenz96(6, 7.0), _lorenz_96, (3.0,) * 6),
    BadCall("Lorenz96", ValueError, lambda: Lorenz96(3), "got 3"),
    BadCall("LinearSystem", ValueError, lambda: LinearSystem(np.eye(2), np.ones((3, 1))), "got [2, 3]"),
    BadCall(
        "NLinkPendulum", ValueError, lambda: NLinkPendulum(lengths=(1.0,), masses=(1.0, 2.0)), "got 2 and 1"
    ),
    BadCall("Manipulator", ValueError, lambda: Manipulator(lengths=(1.0,), masses=(1.0, 2.0)), "got 2 and 1"),
]
