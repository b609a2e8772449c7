"""Problems 84 to 114 of the collection of Hock and Schittkowski."""

from __future__ import annotations

import torch

from tests.cases._hock_schittkowski import INF, problem

sqrt, exp, sin, cos = torch.sqrt, torch.exp, torch.sin, torch.cos


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


_EXCHANGER = {"lower": [*[0.1] * 6, 0.01], "upper": 10.0}


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
    upper=[*[1e4] * 3, *[1e3] * 5],
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
    lower=[*[-INF] * 8, 0.0],
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
    [
        -3.201212,
        -1.912060,
        -0.2444413,
        -6.537489,
        -0.7231524,
        -7.267738,
        -3.596711,
        -4.017769,
        -3.287462,
        -2.335582,
    ],
    lower=-100.0,
    upper=100.0,
)
def _(*x):
    a, b, c, d, e, f, g, h, i, j = (exp(t) for t in x)
    one, two = a + 2 * b + 2 * c + f + j - 2, d + 2 * e + f + g - 1
    return [], [one, two, c + g + h + 2 * i + j - 1]


@problem(
    112,
    [
        0.01773548,
        0.08200180,
        0.8825646,
        0.0007233256,
        0.4907851,
        0.0004335469,
        0.01727298,
        0.007765639,
        0.01984929,
        0.05269826,
    ],
    lower=1e-6,
)
def _(a, b, c, d, e, f, g, h, i, j):
    one, two = a + 2 * b + 2 * c + f + j - 2, d + 2 * e + f + g - 1
    return [], [one, two, c + g + h + 2 * i + j - 1]


@problem(
    113,
    [2.171996, 2.363683, 8.773926, 5.095984, 0.9906548, 1.430574, 1.321644, 9.828726, 8.280092, 8.375927],
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
    lower=[*[1e-5] * 5, 85.0, 90.0, 3.0, 1.2, 145.0],
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
