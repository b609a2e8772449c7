"""Pictures of the claims of a certificate, from its data."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from constrained_nn.plotting import draw_cover, draw_histogram, draw_paths
from constrained_nn.verify import decode, decode_one, leaves

_LABELS = {
    "barrier-invariance": {".": "outside of the safe set", "+": "rows can be met, curvature bounded"},
    "lyapunov-decrease": {
        "o": "outside of the sublevel set",
        "d": "V decreases",
        "i": "in the inner ellipsoid",
    },
}


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    png: bytes
    caption: str


def figures_of(claim: dict[str, Any], certificate: dict[str, Any]) -> list[Figure]:
    """What can be drawn of a claim that was confirmed; nothing for a kind without pictures."""
    make = _FIGURES.get(claim["kind"])
    return [] if make is None else make(claim, certificate)


def _rows(claim: dict[str, Any], certificate: dict[str, Any]) -> list[Figure]:
    task, data = certificate["task"], claim["data"]
    n, m = len(task["state"]), len(task["input"])
    x = np.array(decode(data["x"], "x")).reshape(-1, n)
    u = np.array(decode(data["u"], "u")).reshape(-1, m)
    A = np.array(decode(data["A"], "A")).reshape(len(u), -1, m)
    value = np.einsum("kij,kj->ki", A, u)
    size = np.einsum("kij,kj->ki", np.abs(A), np.abs(u))
    worst = np.full(len(u), -np.inf)
    for name, sign in (("upper", 1.0), ("lower", -1.0)):
        bound = np.array(decode(data[name], name, infinite=True)).reshape(len(u), -1)
        finite = np.isfinite(bound)
        excess = sign * (value - np.where(finite, bound, 0.0)) / np.maximum(size + np.abs(bound), 1e-300)
        worst = np.maximum(worst, np.where(finite, excess, -np.inf).max(-1))
    found = [
        Figure(
            draw_histogram(worst, "largest relative excess of an input (negative: inside)", limit=0.0),
            "How far every held input is inside of its rows; at 0 a row is met exactly. Drawn in floating point.",
        )
    ]
    if n >= 2:
        firsts = np.cumsum([0, *data["counts"]])
        runs = [x[a:b, :2] for a, b in itertools.pairwise(firsts)]
        caption = (
            f"The {len(runs)} recorded runs, from the black points, in the plane of the first two states."
        )
        found.append(Figure(draw_paths(runs, task["state"][:2]), caption))
    return found


def _closed_loop(claim: dict[str, Any], certificate: dict[str, Any]) -> list[Figure]:
    margin = decode(claim["data"]["margin"], "margin", infinite=True)
    worst = decode_one(claim["worst"]["margin"], "margin", infinite=True)
    png = draw_histogram(margin, "smallest −g of a run (negative: collision)", limit=0.0, worst=worst)
    return [Figure(png, f"Margins of the {claim['runs']} runs from fresh start states.")]


def _lmi(claim: dict[str, Any], certificate: dict[str, Any]) -> list[Figure]:
    p = claim["variables"][0]
    if not p:
        return []
    S = np.array(decode(claim["data"]["S"], "S")).reshape(-1, p, p)
    values = np.linalg.eigvalsh(S)
    png = draw_histogram(values.ravel(), "eigenvalues of S", worst=float(values.min()))
    return [Figure(png, f"Eigenvalues of S over all {len(S)} decisions, in floating point.")]


def _cover(claim: dict[str, Any], certificate: dict[str, Any]) -> list[Figure]:
    labels = _LABELS[claim["kind"]]
    names = certificate["task"]["state"]
    data = claim["data"]
    lower, upper = (decode(claim[name] if name in claim else data[name], name) for name in ("lower", "upper"))
    middle = [0.5 * (a + b) + 1e-3 * (b - a) for a, b in zip(lower, upper, strict=True)]
    groups: dict[str, list[Any]] = {label: [] for label in labels.values()}
    for leaf in leaves(data["cover"], lower, upper, "".join(labels), "cover"):
        beyond = zip(leaf.lower[2:], middle[2:], leaf.upper[2:], strict=True)
        if all(a <= c <= b for a, c, b in beyond):
            groups[labels[leaf.label]].append((leaf.lower[:2], leaf.upper[:2]))
    cut = ", ".join(f"{name.split()[0]} = {c:.3g}" for name, c in zip(names[2:], middle[2:], strict=True))
    if len(names) < 2:
        return []
    caption = "The cover of the domain: every box was checked." + (f" Section at {cut}." if cut else "")
    if claim["kind"] == "barrier-invariance":
        level = _safe_set(claim, lower, upper, middle)
        caption += " Black: the boundary of the safe set, in floating point."
        return [Figure(draw_cover(groups, names[:2], level=level), caption)]
    return [Figure(draw_cover(groups, names[:2]), caption)]


def _safe_set(claim: dict[str, Any], lower: list[float], upper: list[float], middle: list[float]) -> Any:
    """Grid of the first two states, and the smallest `e` and `h`; `e'` by a difference."""
    from constrained_nn.evidence.tracing import evaluate
    from constrained_nn.verify.arithmetic import parse

    axes = [np.linspace(a, b, 160) for a, b in zip(lower[:2], upper[:2], strict=True)]
    X, Y = np.meshgrid(*axes)
    x = np.stack([X, Y, *(np.full_like(X, c) for c in middle[2:])], -1)
    rest = np.zeros((*X.shape, len(decode(claim["low"], "low"))))
    drift = evaluate(parse(claim["plant"], "plant"), np.concatenate([x, rest], -1))
    smallest = np.full_like(X, np.inf)
    for item in claim["barriers"]:
        e = parse(item["value"], "value")
        here = evaluate(e, x)[..., 0]
        smallest = np.minimum(smallest, here)
        gains = decode(item["gains"], "gains")
        if len(gains) == 2:
            step = 1e-6
            rate = (evaluate(e, x + step * drift)[..., 0] - here) / step
            smallest = np.minimum(smallest, rate + gains[0] * here)
    return X, Y, smallest


_FIGURES: dict[str, Callable[[dict[str, Any], dict[str, Any]], list[Figure]]] = {
    "rows": _rows,
    "closed-loop": _closed_loop,
    "lmi": _lmi,
    "barrier-invariance": _cover,
    "lyapunov-decrease": _cover,
}
