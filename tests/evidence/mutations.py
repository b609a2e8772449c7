"""Alterations of claims by a careful forger: a number anywhere, a piece of a cover, two things swapped."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

from constrained_nn.verify import encode

_WORDS = ("statement", "assumptions", "kind", "grade", "verdict", "name", "unit", "worst")


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all strings of hexadecimal floats in a claim, but for what it says of itself."""
    if isinstance(value, str):
        return [path] if _numbers(value) else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in items if key not in _WORDS for p in places(item, (*path, key))]


def alter(claim: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy with one alteration."""
    claim = copy.deepcopy(claim)
    kind = rng.randrange(10)
    data = claim["data"]
    if kind < 7:
        holder, key = _find(claim, rng.choice(places(claim)))
        values = _numbers(holder[key])
        i = rng.randrange(len(values))
        values[i] = _changed(values[i], rng)
        holder[key] = encode(values)
    elif kind == 7 and "cover" in data and len(data["cover"]) > 1:
        cover = data["cover"]
        i = rng.randrange(len(cover))
        labels = sorted(set(cover))
        data["cover"] = rng.choice(
            [
                cover[:i] + rng.choice(labels) + cover[i + 1 :],
                cover[:i] + cover[i + 1 :],
                cover[:i],
                cover + cover[i],
            ]
        )
    elif kind == 8:
        first, second = rng.sample(places(claim), 2)
        (a, key), (b, other) = _find(claim, first), _find(claim, second)
        a[key], b[other] = b[other], a[key]
    else:
        lists = [p for p in _lists(claim) if len(_find(claim, p)[0][p[-1]]) > 1]
        if lists:
            holder, key = _find(claim, rng.choice(lists))
            holder[key].pop(rng.randrange(len(holder[key])))
    return claim


def _changed(value: float, rng: random.Random) -> float:
    return rng.choice(
        [
            -value,
            0.0,
            value * (1 + rng.choice([-0.5, -1e-2, -1e-6, 1e-6, 1e-2, 0.5, 10.0])),
            value + rng.choice([-1.0, -1e-3, 1e-3, 1.0]),
            math.nextafter(value, rng.choice([-math.inf, math.inf])),
        ]
    )


def _numbers(text: str) -> list[float]:
    if "0x" not in text:
        return []
    try:
        return [float.fromhex(token) for token in text.split()]
    except ValueError:
        return []


def _find(claim: Any, path: tuple) -> tuple[Any, Any]:
    for key in path[:-1]:
        claim = claim[key]
    return claim, path[-1]


def _lists(value: Any, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    here = [path] if isinstance(value, list) and path else []
    return here + [p for key, item in items if key not in _WORDS for p in _lists(item, (*path, key))]
