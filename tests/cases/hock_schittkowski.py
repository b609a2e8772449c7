"""Constraint sets of the collection of Hock and Schittkowski, each with a point known to be feasible.

Every problem is written as there: `g(x) >= 0`, `h(x) = 0`, bounds on the variables, and the optimum of the published
objective. The optimum validates the formulas: it satisfies them to its printed digits, and rows are active there.

References:
    Hock and Schittkowski, Test Examples for Nonlinear Programming Codes (1981), problems 6 to 114.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn.sets import Box, Intersection, NonlinearSet, SmoothFunction

ROWS: list = []  # this module has no rows of the registry
INF = float("inf")
sqrt, exp, sin, cos = torch.sqrt, torch.exp, torch.sin, torch.cos


class Problem(NamedTuple):
    """One constraint set: `rows(x)` are the inequalities `>= 0`, then the equalities `= 0`."""

    rows: Callable[[Tensor], Tensor]
    equalities: int
    inequalities: int
    lower: Tensor
    upper: Tensor
    optimum: Tensor

    def set(self, unit: float = 1.0, dtype: torch.dtype = torch.float64) -> Intersection | NonlinearSet:
        """The set, with rows in another unit: `unit · g(x) >= 0`; free variables have no bounds."""
        n, free = len(self.optimum), self.inequalities
        rows = SmoothFunction(lambda y, context: unit * self.rows(y), n)
        lower = torch.zeros(free + self.equalities, dtype=dtype)
        upper = torch.cat([torch.full_like(lower[:free], INF), torch.zeros_like(lower[free:])])
        nonlinear = NonlinearSet(rows, lower, upper)
        if not (self.lower.isfinite() | self.upper.isfinite()).any():
            return nonlinear
        return Intersection(nonlinear, Box(self.lower.to(dtype), self.upper.to(dtype)))

    def starts(self, count: int, seed: int) -> Tensor:
        """Uniform in the bounds; within ±5 where there are none, and in a width of 10 where one is missing."""
        low = torch.where(self.lower.isfinite(), self.lower, self.upper - 10.0)
        low = torch.where(low.isfinite(), low, -5.0)
        up = torch.where(self.upper.isfinite(), self.upper, low + 10.0)
        generator = torch.Generator().manual_seed(seed)
        return low + (up - low) * torch.rand(count, len(low), generator=generator, dtype=torch.float64)


PROBLEMS: dict[int, Problem] = {}


def problem(number: int, optimum: list[float], lower=-INF, upper=INF):
    """Decorator: `(x₁, …, xₙ) -> (inequalities, equalities)`, with bounds for all variables or for each."""
    n = len(optimum)
    bounds = [torch.tensor(side).double().expand(n) for side in (lower, upper)]

    def register(function: Callable[..., tuple[list, list]]) -> None:
        def rows(y: Tensor) -> Tensor:
            g, h = function(*y.unbind(-1))
            return torch.stack([*g, *h], -1)

        point = torch.tensor(optimum, dtype=torch.float64)
        g, h = function(*point.unbind(-1))
        PROBLEMS[number] = Problem(rows, len(h), len(g), *bounds, point)

    return register


@problem(6, [1.0, 1.0])
def _(a, b):
    return [], [10 * (b - a**2)]


@problem(7, [0.0, 1.7320508075688772])
def _(a, b):
    return [], [(1 + a**2) ** 2 + b**2 - 4]


@problem(8, [4.6015949, 1.9558433])
def _(a, b):
    return [], [a**2 + b**2 - 25, a * b - 9]


@problem(9, [-3.0, -4.0])
def _(a, b):
    return [], [4 * a - 3 * b]


@problem(10, [0.0, 1.0])
def _(a, b):
    return [-3 * a**2 + 2 * a * b - b**2 + 1], []


@problem(11, [1.2347731, 1.5246645])
def _(a, b):
    return [b - a**2], []


@problem(12, [2.0, 3.0])
def _(a, b):
    return [25 - 4 * a**2 - b**2], []


@problem(13, [1.0, 0.0], lower=0.0)
def _(a, b):
    return [(1 - a) ** 3 - b], []


@problem(14, [0.8228756555322954, 0.9114378277661477])
def _(a, b):
    return [1 - 0.25 * a**2 - b**2], [a - 2 * b + 1]


@problem(15, [0.5, 2.0], upper=[0.5, INF])
def _(a, b):
    return [a * b - 1, a + b**2], []


@problem(16, [0.5, 0.25], lower=[-0.5, -INF], upper=[0.5, 1.0])
def _(a, b):
    return [a + b**2, a**2 + b], []


@problem(17, [0.0, 0.0], lower=[-0.5, -INF], upper=[0.5, 1.0])
def _(a, b):
    return [b**2 - a, a**2 - b], []


@problem(18, [15.811388300841896, 1.5811388300841898], lower=[2.0, 0.0], upper=50.0)
def _(a, b):
    return [a * b - 25, a**2 + b**2 - 25], []


@problem(19, [14.095, 0.84296079], lower=[13.0, 0.0], upper=100.0)
def _(a, b):
    return [(a - 5) ** 2 + (b - 5) ** 2 - 100, 82.81 - (a - 6) ** 2 - (b - 5) ** 2], []


@problem(20, [0.5, 0.8660254037844386], lower=[-0.5, -INF], upper=[0.5, INF])
def _(a, b):
    return [a + b**2, a**2 + b, a**2 + b**2 - 1], []


@problem(21, [2.0, 0.0], lower=[2.0, -50.0], upper=50.0)
def _(a, b):
    return [10 * a - b - 10], []


@problem(22, [1.0, 1.0])
def _(a, b):
    return [2 - a - b, b - a**2], []


@problem(23, [1.0, 1.0], lower=-50.0, upper=50.0)
def _(a, b):
    return [a + b - 1, a**2 + b**2 - 1, 9 * a**2 + b**2 - 9, a**2 - b, b**2 - a], []


@problem(24, [3.0, 1.7320508075688772], lower=0.0)
def _(a, b):
    return [a / 3**0.5 - b, a + 3**0.5 * b, 6 - a - 3**0.5 * b], []


@problem(26, [1.0, 1.0, 1.0])
def _(a, b, c):
    return [], [(1 + b**2) * a + c**4 - 3]


@problem(27, [-1.0, 1.0, 0.0])
def _(a, b, c):
    return [], [a + c**2 + 1]


@problem(28, [0.5, -0.5, 0.5])
def _(a, b, c):
    return [], [a + 2 * b + 3 * c - 1]


@problem(29, [4.0, 2.8284271247461903, 2.0])
def _(a, b, c):
    return [48 - a**2 - 2 * b**2 - 4 * c**2], []


@problem(30, [1.0, 0.0, 0.0], lower=[1.0, -10.0, -10.0], upper=10.0)
def _(a, b, c):
    return [a**2 + b**2 - 1], []


@problem(31, [0.5773502691896258, 1.7320508075688772, 0.0], lower=[-10.0, 1.0, -10.0], upper=[10.0, 10.0, 1.0])
def _(a, b, c):
    return [a * b - 1], []


@problem(32, [0.0, 0.0, 1.0], lower=0.0)
def _(a, b, c):
    return [6 * b + 4 * c - a**3 - 3], [1 - a - b - c]


@problem(33, [0.0, 1.4142135623730951, 1.4142135623730951], lower=0.0, upper=[INF, INF, 5.0])
def _(a, b, c):
    return [c**2 - a**2 - b**2, a**2 + b**2 + c**2 - 4], []


@problem(34, [0.8340324452, 2.302585092994046, 10.0], lower=0.0, upper=[100.0, 100.0, 10.0])
def _(a, b, c):
    return [b - exp(a), c - exp(b)], []


@problem(35, [4 / 3, 7 / 9, 4 / 9], lower=0.0)
def _(a, b, c):
    return [3 - a - b - 2 * c], []


@problem(36, [20.0, 11.0, 15.0], lower=0.0, upper=[20.0, 11.0, 42.0])
def _(a, b, c):
    return [72 - a - 2 * b - 2 * c], []


@problem(37, [24.0, 12.0, 12.0], lower=0.0, upper=42.0)
def _(a, b, c):
    return [72 - a - 2 * b - 2 * c, a + 2 * b + 2 * c], []


@problem(39, [1.0, 1.0, 0.0, 0.0])
def _(a, b, c, d):
    return [], [b - a**3 - c**2, a**2 - b - d**2]


@problem(40, [0.7937005259840998, 0.7071067811865476, 0.5297315471796477, 0.8408964152537146])
def _(a, b, c, d):
    return [], [a**3 + b**2 - 1, a**2 * d - c, d**2 - b]


@problem(41, [2 / 3, 1 / 3, 1 / 3, 2.0], lower=0.0, upper=[1.0, 1.0, 1.0, 2.0])
def _(a, b, c, d):
    return [], [a + 2 * b + 2 * c - d]


@problem(42, [2.0, 2.0, 0.8485281374238569, 1.1313708498984762])
def _(a, b, c, d):
    return [], [a - 2, c**2 + d**2 - 2]


@problem(43, [0.0, 1.0, 2.0, -1.0])
def _(a, b, c, d):
    first = 8 - a**2 - b**2 - c**2 - d**2 - a + b - c + d
    second = 10 - a**2 - 2 * b**2 - c**2 - 2 * d**2 + a + d
    return [first, second, 5 - 2 * a**2 - b**2 - c**2 - 2 * a + b + d], []


@problem(44, [0.0, 3.0, 0.0, 4.0], lower=0.0)
def _(a, b, c, d):
    first = [8 - a - 2 * b, 12 - 4 * a - b, 12 - 3 * a - 4 * b]
    return [*first, 8 - 2 * c - d, 8 - c - 2 * d, 5 - c - d], []


@problem(46, [1.0, 1.0, 1.0, 1.0, 1.0])
def _(a, b, c, d, e):
    return [], [a**2 * d + sin(d - e) - 1, b + c**4 * d**2 - 2]


@problem(47, [1.0, 1.0, 1.0, 1.0, 1.0])
def _(a, b, c, d, e):
    return [], [a + b**2 + c**3 - 3, b - c**2 + d - 1, a * e - 1]


@problem(48, [1.0, 1.0, 1.0, 1.0, 1.0])
def _(a, b, c, d, e):
    return [], [a + b + c + d + e - 5, c - 2 * (d + e) + 3]


@problem(49, [1.0, 1.0, 1.0, 1.0, 1.0])
def _(a, b, c, d, e):
    return [], [a + b + c + 4 * d - 7, c + 5 * e - 6]


@problem(50, [1.0, 1.0, 1.0, 1.0, 1.0])
def _(a, b, c, d, e):
    return [], [a + 2 * b + 3 * c - 6, b + 2 * c + 3 * d - 6, c + 2 * d + 3 * e - 6]


@problem(51, [1.0, 1.0, 1.0, 1.0, 1.0])
def _(a, b, c, d, e):
    return [], [a + 3 * b - 4, c + d - 2 * e, b - e]


@problem(52, [-33 / 349, 11 / 349, 180 / 349, -158 / 349, 11 / 349])
def _(a, b, c, d, e):
    return [], [a + 3 * b, c + d - 2 * e, b - e]


@problem(53, [-33 / 43, 11 / 43, 27 / 43, -5 / 43, 11 / 43], lower=-10.0, upper=10.0)
def _(a, b, c, d, e):
    return [], [a + 3 * b, c + d - 2 * e, b - e]


@problem(
    54,
    [91600 / 7, 79 / 70, 2e6, 10.0, 1e-3, 1e8],
    lower=[0.0, -10.0, 0.0, 0.0, -1.0, 0.0],
    upper=[2e4, 10.0, 1e7, 20.0, 1.0, 2e8],
)
def _(a, b, c, d, e, f):
    return [], [a + 4e3 * b - 1.76e4]


@problem(
    55, [0.0, 4 / 3, 5 / 3, 1.0, 2 / 3, 1 / 3], lower=0.0, upper=[1.0, INF, INF, 1.0, INF, INF]
)
def _(a, b, c, d, e, f):
    first = [a + 2 * b + 5 * e - 6, a + b + c - 3, d + e + f - 2]
    return [], [*first, a + d - 1, b + e - 2, c + f - 2]


@problem(
    56,
    [2.4, 1.2, 1.2, 0.8570719478501308, 0.5639426413606289, 0.5639426413606289, 1.5707963267948966],
)
def _(a, b, c, d, e, f, g):
    first = [x - 4.2 * sin(angle) ** 2 for x, angle in ((a, d), (b, e), (c, f))]
    return [], [*first, a + 2 * b + 2 * c - 7.2 * sin(g) ** 2]


@problem(57, [0.419952675, 1.284845629], lower=[0.4, -4.0])
def _(a, b):
    return [0.49 * b - a * b - 0.09], []


@problem(59, [13.55010424, 51.66018129], lower=0.0, upper=[75.0, 65.0])
def _(a, b):
    return [a * b - 700, b - a**2 / 125, (b - 50) ** 2 - 5 * (a - 55)], []


@problem(60, [1.104859024, 1.196674194, 1.535262257], lower=-10.0, upper=10.0)
def _(a, b, c):
    return [], [a * (1 + b**2) + c**4 - 4 - 3 * 2**0.5]


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


@problem(73, [0.6355216, -1.3e-12, 0.3127019, 0.05177655], lower=0.0)
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


@problem(
    84,
    [4.53743097, 2.4, 60.0, 9.3, 7.0],
    lower=[0.0, 1.2, 20.0, 9.0, 6.5],
    upper=[1000.0, 2.4, 60.0, 9.3, 7.0],
)
def _(a, b, c, d, e):
    one = a * (-145421.402 + 2931.1506 * b - 40.427932 * c + 5106.192 * d + 15711.36 * e)
    two = a * (-155011.1084 + 4360.53352 * b + 12.9492344 * c + 10236.884 * d + 13176.786 * e)
    three = a * (-326669.5104 + 7390.68412 * b - 27.8986976 * c + 16643.076 * d + 30988.146 * e)
    return [one, two, three, 294000 - one, 294000 - two, 277200 - three], []


@problem(86, [0.3, 0.33346761, 0.4, 0.42831010, 0.22396487], lower=0.0)
def _(a, b, c, d, e):
    first = [-16 * a + 2 * b + d + 40, -2 * b + 4 * d + 2 * e + 2, -3.5 * a + 2 * c + 0.25]
    second = [-2 * b - 4 * d - e + 4, -9 * b - 2 * c + d - 2.8 * e + 4, 2 * a - 4 * c + 1]
    total = a + b + c + d + e
    weighted = a + 2 * b + 3 * c
    third = [40 - total, 60 - weighted - 2 * d - e, weighted + 4 * d + 5 * e - 5, total - 1]
    return [*first, *second, *third], []


@problem(93, [5.332666, 4.656744, 10.43299, 12.08230, 0.7526074, 0.87865084], lower=0.0)
def _(a, b, c, d, e, f):
    loss = 0.00062 * a * d * e**2 * (a + b + c) + 0.00058 * b * c * f**2 * (a + 1.57 * b + d)
    return [0.001 * a * b * c * d * e * f - 2.07, 1 - loss], []


def _cattle_feed(a, b, c, d, e, f, bounds):
    one = 17.1 * a + 38.2 * b + 204.2 * c + 212.3 * d + 623.4 * e + 1495.5 * f - 169 * a * c
    one = one - 3580 * c * e - 3810 * d * e - 18500 * d * f - 24300 * e * f
    two = 17.9 * a + 36.8 * b + 113.9 * c + 169.7 * d + 337.8 * e + 1385.2 * f - 139 * a * c
    two = two - 2450 * d * e - 16600 * d * f - 17200 * e * f
    three = -273 * b - 70 * d - 819 * e + 26000 * d * e
    four = 159.9 * a - 311 * b + 587 * d + 391 * e + 2198 * f - 14000 * a * f
    return [g - bound for g, bound in zip((one, two, three, four), bounds, strict=True)], []


_FEED = {"lower": 0.0, "upper": [0.31, 0.046, 0.068, 0.042, 0.028, 0.0134]}


@problem(95, [0.0, 0.0, 0.0, 0.0, 0.0, 0.00332330328], **_FEED)
def _(*x):
    return _cattle_feed(*x, (4.97, -1.88, -29.08, -78.02))


@problem(96, [0.0, 0.0, 0.0, 0.0, 0.0, 0.00332330328], **_FEED)
def _(*x):
    return _cattle_feed(*x, (4.97, -1.88, -69.08, -118.02))


@problem(97, [0.2685649, 0.0, 0.0, 0.0, 0.028, 0.0134], **_FEED)
def _(*x):
    return _cattle_feed(*x, (32.97, 25.12, -29.08, -78.02))


@problem(98, [0.2685649, 0.0, 0.0, 0.0, 0.028, 0.0134], **_FEED)
def _(*x):
    return _cattle_feed(*x, (32.97, 25.12, -124.08, -173.02))


@problem(
    99,
    [0.5424603, 0.5290159, 0.5084506, 0.4802693, 0.4512352, 0.4091878, 0.3527847],
    lower=0.0,
    upper=1.58,
)
def _(*x):
    times, thrust = (0, 25, 50, 100, 150, 200, 290, 380), (50, 50, 75, 75, 75, 100, 100)
    height = speed = 0.0 * x[0]
    for k, angle in enumerate(x):
        step, rise = times[k + 1] - times[k], thrust[k] * sin(angle) - 32
        height = height + step * speed + 0.5 * step**2 * rise
        speed = speed + step * rise
    return [], [height - 1e5, speed - 1e3]


@problem(100, [2.330499, 1.951372, -0.4775414, 4.365726, -0.6244870, 1.038131, 1.594227])
def _(a, b, c, d, e, f, g):
    first = 127 - 2 * a**2 - 3 * b**4 - c - 4 * d**2 - 5 * e
    second = [282 - 7 * a - 3 * b - 10 * c**2 - d + e, 196 - 23 * a - b**2 - 6 * f**2 + 8 * g]
    return [first, *second, -4 * a**2 - b**2 + 3 * a * b - 2 * c**2 - 5 * f + 11 * g], []


def _heat_exchanger(a, b, c, d, e, f, g, power):
    """Problems 101 to 103 differ in one exponent of the objective, which is bounded too."""
    first = 1 - 0.5 * a**0.5 * g / (c * f**2) - 0.7 * a**3 * b * f * g**0.5 / c**2
    first = first - 0.2 * c * f ** (2 / 3) * g**0.25 / (b * d**0.5)
    second = 1 - 1.3 * b * f / (a**0.5 * c * e) - 0.8 * c * f**2 / (d * e)
    second = second - 3.1 * b**0.5 * f ** (1 / 3) / (a * d**2 * e)
    third = 1 - 2 * a * e * g ** (1 / 3) / (c**1.5 * f) - 0.1 * b * e / (c**0.5 * f * g**0.5)
    third = third - b * c**0.5 * e / a - 0.65 * c * e * g / (b**2 * f)
    fourth = 1 - 0.2 * b * e**0.5 * g ** (1 / 3) / (a**2 * d)
    fourth = fourth - 0.3 * a**0.5 * b**2 * c * d ** (1 / 3) * g**0.25 / e ** (2 / 3)
    fourth = fourth - 0.4 * c * e * g**0.75 / (a**3 * b**2) - 0.5 * d * g**0.5 / c**2
    cost = 10 * a * d**2 * g**power / (b * f**3) + 15 * c * d / (a * b**2 * e * g**0.5)
    cost = cost + 20 * b * f / (a**2 * d * e**2) + 25 * a**2 * b**2 * e**0.5 * g / (c * f**2)
    return [first, second, third, fourth, cost - 100, 3000 - cost], []


_EXCHANGER = {"lower": [0.1] * 6 + [0.01], "upper": 10.0}


@problem(101, [2.856159, 0.6108230, 2.150813, 4.712874, 0.9994875, 1.347508, 0.03165277], **_EXCHANGER)
def _(*x):
    return _heat_exchanger(*x, -0.25)


@problem(102, [3.896253, 0.8093588, 2.664386, 4.300913, 0.8535549, 1.095287, 0.02731046], **_EXCHANGER)
def _(*x):
    return _heat_exchanger(*x, 0.125)


@problem(103, [4.394105, 0.8544687, 2.843230, 3.399979, 0.7229261, 0.8704064, 0.02463883], **_EXCHANGER)
def _(*x):
    return _heat_exchanger(*x, 0.5)


@problem(
    104,
    [6.465114, 2.232709, 0.6673975, 0.5957564, 5.932676, 5.527235, 1.013322, 0.4006682],
    lower=0.1,
    upper=10.0,
)
def _(a, b, c, d, e, f, g, h):
    one = 1 - 0.0588 * e * g - 0.1 * a
    two = 1 - 0.0588 * f * h - 0.1 * a - 0.1 * b
    three = 1 - 4 * c / e - 2 / (c**0.71 * e) - 0.0588 * g / c**1.3
    four = 1 - 4 * d / f - 2 / (d**0.71 * f) - 0.0588 * h / d**1.3
    cost = 0.4 * (a / g) ** 0.67 + 0.4 * (b / h) ** 0.67 + 10 - a - b
    return [one, two, three, four, cost - 1, 4.2 - cost], []


@problem(
    106,
    [579.3167, 1359.943, 5110.071, 182.0174, 295.5985, 217.9799, 286.4162, 395.5979],
    lower=[100.0, 1000.0, 1000.0, 10.0, 10.0, 10.0, 10.0, 10.0],
    upper=[1e4] * 3 + [1e3] * 5,
)
def _(a, b, c, d, e, f, g, h):
    first = [1 - 0.0025 * (d + f), 1 - 0.0025 * (e + g - d), 1 - 0.01 * (h - e)]
    second = [a * f - 833.33252 * d - 100 * a + 83333.333, b * g - 1250 * e - b * d + 1250 * d]
    return [*first, *second, c * h - 1.25e6 - c * e + 2500 * e], []


@problem(
    107,
    [0.6670093, 1.022382, 0.2282877, 0.1848217, 1.0909, 1.0909, 1.069036, 0.1066125, -0.3387865],
    lower=[0.0, 0.0, -INF, -INF, 0.90909, 0.90909, 0.90909, -INF, -INF],
    upper=[INF, INF, INF, INF, 1.0909, 1.0909, 1.0909, INF, INF],
)
def _(a, b, c, d, e, f, g, h, i):
    k = 48.4 / 50.176
    C, D = k * sin(torch.tensor(0.25).double()).item(), k * cos(torch.tensor(0.25).double()).item()
    s1, c1, s2, c2, s3, c3 = sin(h), cos(h), sin(i), cos(i), sin(h - i), cos(h - i)
    one = 0.4 - a + 2 * C * e**2 - e * f * (D * s1 + C * c1) - e * g * (D * s2 + C * c2)
    two = 0.4 - b + 2 * C * f**2 + e * f * (D * s1 - C * c1) + f * g * (D * s3 - C * c3)
    three = 0.8 + 2 * C * g**2 + e * g * (D * s2 - C * c2) - f * g * (D * s3 + C * c3)
    four = 0.2 - c + 2 * D * e**2 + e * f * (C * s1 - D * c1) + e * g * (C * s2 - D * c2)
    five = 0.2 - d + 2 * D * f**2 - e * f * (C * s1 + D * c1) - f * g * (C * s3 + D * c3)
    six = -0.337 + 2 * D * g**2 - e * g * (C * s2 + D * c2) + f * g * (C * s3 - D * c3)
    return [], [one, two, three, four, five, six]


@problem(
    108,
    [0.8841292, 0.4672425, 0.03742076, 0.9992996, 0.8841292, 0.4672424, 0.03742076, 0.9992996, 0.0],
    lower=[-INF] * 8 + [0.0],
)
def _(a, b, c, d, e, f, g, h, i):
    first = [1 - c**2 - d**2, 1 - i**2, 1 - e**2 - f**2, 1 - a**2 - (b - i) ** 2]
    second = [1 - (a - e) ** 2 - (b - f) ** 2, 1 - (a - g) ** 2 - (b - h) ** 2]
    third = [1 - (c - e) ** 2 - (d - f) ** 2, 1 - (c - g) ** 2 - (d - h) ** 2]
    fourth = [1 - g**2 - (h - i) ** 2, a * d - b * c, c * i, -e * i, e * h - f * g]
    return [*first, *second, *third, *fourth], []


@problem(
    109,
    [674.8881, 1134.170, 0.1335691, -0.3711526, 252.0, 252.0, 201.4645, 426.6619, 368.4941],
    lower=[0.0, 0.0, -0.55, -0.55, 196.0, 196.0, 196.0, -400.0, -400.0],
    upper=[INF, INF, 0.55, 0.55, 252.0, 252.0, 252.0, 800.0, 800.0],
)
def _(a, b, c, d, e, f, g, h, i):
    k, s, t = 50.176, 0.24740395925452294, 0.9689124217106447  # sin and cos of 1/4
    first = [d - c + 0.55, c - d + 0.55, 2250000 - a**2 - h**2, 2250000 - b**2 - i**2]
    ef, eg, fg = e * f, e * g, f * g
    one = ef * sin(-c - 0.25) + eg * sin(-d - 0.25) + 2 * s * e**2 - k * a + 400 * k
    two = ef * sin(c - 0.25) + fg * sin(c - d - 0.25) + 2 * s * f**2 - k * b + 400 * k
    three = eg * sin(d - 0.25) + fg * sin(d - c - 0.25) + 2 * s * g**2 + 881.779 * k
    loss = 0.7533e-3 * k - 2 * t
    four = k * h + ef * cos(-c - 0.25) + eg * cos(-d - 0.25) - 200 * k + loss * e**2
    five = k * i + ef * cos(c - 0.25) + fg * cos(c - d - 0.25) - 200 * k + loss * f**2
    six = eg * cos(d - 0.25) + fg * cos(d - c - 0.25) - 22.938 * k + loss * g**2
    return first, [one, two, three, four, five, six]


@problem(
    111,
    [-3.201212, -1.912060, -0.2444413, -6.537489, -0.7231524, -7.267738, -3.596711, -4.017769]
    + [-3.287462, -2.335582],
    lower=-100.0,
    upper=100.0,
)
def _(*x):
    a, b, c, d, e, f, g, h, i, j = (exp(t) for t in x)
    one, two = a + 2 * b + 2 * c + f + j - 2, d + 2 * e + f + g - 1
    return [], [one, two, c + g + h + 2 * i + j - 1]


@problem(
    112,
    [0.01773548, 0.08200180, 0.8825646, 0.0007233256, 0.4907851, 0.0004335469, 0.01727298]
    + [0.007765639, 0.01984929, 0.05269826],
    lower=1e-6,
)
def _(a, b, c, d, e, f, g, h, i, j):
    one, two = a + 2 * b + 2 * c + f + j - 2, d + 2 * e + f + g - 1
    return [], [one, two, c + g + h + 2 * i + j - 1]


@problem(
    113,
    [2.171996, 2.363683, 8.773926, 5.095984, 0.9906548, 1.430574, 1.321644, 9.828726, 8.280092]
    + [8.375927],
)
def _(a, b, c, d, e, f, g, h, i, j):
    linear = [105 - 4 * a - 5 * b + 3 * g - 9 * h, -10 * a + 8 * b + 17 * g - 2 * h]
    linear = [*linear, 12 + 8 * a - 2 * b - 5 * i + 2 * j]
    one = -3 * (a - 2) ** 2 - 4 * (b - 3) ** 2 - 2 * c**2 + 7 * d + 120
    two = -5 * a**2 - 8 * b - (c - 6) ** 2 + 2 * d + 40
    three = -0.5 * (a - 8) ** 2 - 2 * (b - 4) ** 2 - 3 * e**2 + f + 30
    four = -(a**2) - 2 * (b - 2) ** 2 + 2 * a * b - 14 * e + 6 * f
    return [*linear, one, two, three, four, 3 * a - 6 * b - 12 * (i - 8) ** 2 + 7 * j], []


@problem(
    114,
    [1698.094, 15818.61, 54.10268, 3031.226, 2000.0, 90.11542, 95.0, 10.49324, 1.561636, 153.53535],
    lower=[1e-5] * 5 + [85.0, 90.0, 3.0, 1.2, 145.0],
    upper=[2000.0, 16000.0, 120.0, 5000.0, 2000.0, 93.0, 95.0, 12.0, 4.0, 162.0],
)
def _(a, b, c, d, e, f, g, h, i, j):
    low, high = 0.99, 0.9
    one, two = 35.82 - 0.222 * j - high * i, -133 + 3 * g - low * j
    three = 1.12 * a + 0.13167 * a * h - 0.00667 * a * h**2 - low * d
    four = 57.425 + 1.098 * h - 0.038 * h**2 + 0.325 * f - low * g
    first = [one, two, -one + i * (1 / high - high), -two + j * (1 / low - low)]
    second = [three, four, -three + d * (1 / low - low), -four + g * (1 / low - low)]
    ratio = 98000 * c / (d * i + 1000 * c) - f
    return [*first, *second], [1.22 * d - a - e, ratio, (b + e) / a - h]
