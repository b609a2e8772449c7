"""Problems 61 to 83 of the collection of Hock and Schittkowski."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.cases._hock_schittkowski import problem

sqrt, exp, sin, cos = torch.sqrt, torch.exp, torch.sin, torch.cos


@problem(61, [5.326770157, -2.118998639, 3.210464239])
def _(a, b, c):
    return [], [3 * a - 2 * b**2 - 7, 4 * a - c**2 - 11]


@problem(62, [0.6178126908, 0.328202223, 0.05398508606], lower=0.0, upper=1.0)
def _(a, b, c):
    return [], [a + b + c - 1]


@problem(63, [3.512118414, 0.2169881741, 3.552174034], lower=0.0)
def _(a, b, c):
    return [], [8 * a + 14 * b + 7 * c - 56, a**2 + b**2 + c**2 - 25]


@problem(64, [108.7347175, 85.12613942, 204.3247078], lower=1e-5)
def _(a, b, c):
    return [1 - 4 / a - 32 / b - 120 / c], []


@problem(65, [3.650461821, 3.65046168, 4.6204170507], lower=[-4.5, -4.5, -5.0], upper=[4.5, 4.5, 5.0])
def _(a, b, c):
    return [48 - a**2 - b**2 - c**2], []


@problem(66, [0.1841264879, 1.202167873, 3.327322322], lower=0.0, upper=[100.0, 100.0, 10.0])
def _(a, b, c):
    return [b - exp(a), c - exp(b)], []


def _normal(t: Tensor) -> Tensor:
    """Distribution function of the normal distribution."""
    return 0.5 * (1.0 + torch.erf(t / 2**0.5))


@problem(
    68,
    [0.06785874, 3.6461717, 0.00026617, 0.8948622],
    lower=[1e-4, 0.0, 0.0, 0.0],
    upper=[100.0, 100.0, 2.0, 2.0],
)
def _(a, b, c, d):
    return [], [c - 2 * _normal(-b), d - _normal(-b + 24**0.5) - _normal(-b - 24**0.5)]


@problem(
    69,
    [0.02937141742, 1.19025343, 0.2339467, 0.7916678],
    lower=[1e-4, 0.0, 0.0, 0.0],
    upper=[100.0, 100.0, 2.0, 2.0],
)
def _(a, b, c, d):
    return [], [c - 2 * _normal(-b), d - _normal(-b + 2) - _normal(-b - 2)]


@problem(
    70,
    [12.27695, 4.631788, 0.3128625, 2.029290],
    lower=1e-5,
    upper=[100.0, 100.0, 1.0, 100.0],
)
def _(a, b, c, d):
    return [c + (1 - c) * d], []


@problem(71, [1.0, 4.742999643, 3.821149979, 1.379408291], lower=1.0, upper=5.0)
def _(a, b, c, d):
    return [a * b * c * d - 25], [a**2 + b**2 + c**2 + d**2 - 40]


@problem(72, [193.4071, 179.5475, 185.0186, 168.7062], lower=1e-3, upper=[4e5, 3e5, 2e5, 1e5])
def _(a, b, c, d):
    first = 0.0401 - 4 / a - 2.25 / b - 1 / c - 0.25 / d
    return [first, 0.010085 - 0.16 / a - 0.36 / b - 0.64 / c - 0.64 / d], []


@problem(73, [0.6355216, 0.0, 0.3127019, 0.05177655], lower=0.0)
def _(a, b, c, d):
    spread = sqrt(0.28 * a**2 + 0.19 * b**2 + 20.5 * c**2 + 0.62 * d**2)
    protein = 12 * a + 11.9 * b + 41.8 * c + 52.1 * d - 21 - 1.645 * spread
    return [2.3 * a + 5.6 * b + 11.1 * c + 1.3 * d - 5, protein], [a + b + c + d - 1]


def _power_flow(a, b, c, d, limit):
    first = 1000 * (sin(-c - 0.25) + sin(-d - 0.25)) + 894.8 - a
    second = 1000 * (sin(c - 0.25) + sin(c - d - 0.25)) + 894.8 - b
    third = 1000 * (sin(d - 0.25) + sin(d - c - 0.25)) + 1294.8
    return [d - c + limit, c - d + limit], [first, second, third]


@problem(
    74,
    [679.9453, 1026.067, 0.1188764, -0.3962336],
    lower=[0.0, 0.0, -0.55, -0.55],
    upper=[1200.0, 1200.0, 0.55, 0.55],
)
def _(a, b, c, d):
    return _power_flow(a, b, c, d, 0.55)


@problem(
    75,
    [776.1592, 925.1949, 0.05110879, -0.4288911],
    lower=[0.0, 0.0, -0.48, -0.48],
    upper=[1200.0, 1200.0, 0.48, 0.48],
)
def _(a, b, c, d):
    return _power_flow(a, b, c, d, 0.48)


@problem(76, [0.2727273, 2.090909, 0.0, 0.5454545], lower=0.0)
def _(a, b, c, d):
    return [5 - a - 2 * b - c - d, 4 - 3 * a - b - 2 * c + d, b + 4 * c - 1.5], []


@problem(77, [1.166172, 1.182111, 1.380257, 1.506036, 0.6109203])
def _(a, b, c, d, e):
    return [], [a**2 * d + sin(d - e) - 2 * 2**0.5, b + c**4 * d**2 - 8 - 2**0.5]


def _three_equations(a, b, c, d, e):
    return [], [a**2 + b**2 + c**2 + d**2 + e**2 - 10, b * c - 5 * d * e, a**3 + b**3 + 1]


@problem(78, [-1.717142, 1.595708, 1.827248, -0.7636429, -0.7636435])
def _(a, b, c, d, e):
    return _three_equations(a, b, c, d, e)


@problem(79, [1.191127, 1.362603, 1.472818, 1.635017, 1.679081])
def _(a, b, c, d, e):
    return [], [a + b**2 + c**3 - 2 - 3 * 2**0.5, b - c**2 + d + 2 - 2 * 2**0.5, a * e - 2]


_FIVE = {"lower": [-2.3, -2.3, -3.2, -3.2, -3.2], "upper": [2.3, 2.3, 3.2, 3.2, 3.2]}


@problem(80, [-1.717143, 1.595709, 1.827247, -0.7636413, -0.7636450], **_FIVE)
def _(a, b, c, d, e):
    return _three_equations(a, b, c, d, e)


@problem(81, [-1.717142, 1.595709, 1.827248, -0.763643, -0.763643], **_FIVE)
def _(a, b, c, d, e):
    return _three_equations(a, b, c, d, e)


@problem(
    83,
    [78.0, 33.0, 29.99526, 45.0, 36.77581],
    lower=[78.0, 33.0, 27.0, 27.0, 27.0],
    upper=[102.0, 45.0, 45.0, 45.0, 45.0],
)
def _(a, b, c, d, e):
    first = 85.334407 + 0.0056858 * b * e + 0.0006262 * a * d - 0.0022053 * c * e
    second = 80.51249 + 0.0071317 * b * e + 0.0029955 * a * b + 0.0021813 * c**2 - 90
    third = 9.300961 + 0.0047026 * c * e + 0.0012547 * a * c + 0.0019085 * c * d - 20
    return [first, second, third, 92 - first, 20 - second, 5 - third], []
