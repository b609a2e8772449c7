"""Problems 6 to 60 of the collection of Hock and Schittkowski."""

from __future__ import annotations

import torch

from tests.cases._hock_schittkowski import INF, problem

sqrt, exp, sin, cos = torch.sqrt, torch.exp, torch.sin, torch.cos


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


@problem(
    31, [0.5773502691896258, 1.7320508075688772, 0.0], lower=[-10.0, 1.0, -10.0], upper=[10.0, 10.0, 1.0]
)
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


@problem(55, [0.0, 4 / 3, 5 / 3, 1.0, 2 / 3, 1 / 3], lower=0.0, upper=[1.0, INF, INF, 1.0, INF, INF])
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
