"""Proofs that a Lyapunov function decreases in a closed loop: programs, the inner ellipsoid, and the cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from constrained_nn.errors import InfeasibleError
from constrained_nn.evidence.head import begin_claim
from constrained_nn.evidence.search import Examination, Examiner, Report, cover, quiet, worst_of
from constrained_nn.evidence.tracing import evaluate
from constrained_nn.verify import encode
from constrained_nn.verify.arithmetic import parse, precision
from constrained_nn.verify.claims import lyapunov as claims
from constrained_nn.verify.enclosures import Loop

SAMPLES = 200_000
PART = 0.1  # of the decrease at the worst sample, that is to be proved
SHARE = 0.999  # of what was found, that is claimed: the checker may use another version of its library
_SLACK = 2.0**-40  # relative, between the worst change that was found and the one that is stated


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """A plant under feedback with a candidate Lyapunov function, as programs.

    Args:
        plant: Program `(x, u)` of the next state for `step`, else of `dx/dt`.
        controller: Program `x -> u`.
        value: Program of `V`, or `{"P", "center"}` of a quadratic one (see `quadratic_value`).
        lower: Lower ends of the domain `(n)`.
        upper: Upper ends.
        center: Center of the inner ellipsoid `(n)`, next to the equilibrium.
        motion: `step` (the integrator's formula), `held` (the exact solution, the input held) or `continuous`.
        dt: Step [s], for `held`.
    """

    plant: dict[str, Any]
    controller: dict[str, Any]
    value: dict[str, Any]
    lower: np.ndarray
    upper: np.ndarray
    center: np.ndarray
    motion: str = "step"
    dt: float = 0.0
    _programs: dict[str, Any] = field(default_factory=dict, init=False)

    def change(self, x: np.ndarray) -> np.ndarray | np.float64:
        """`V(x⁺) − V(x)`, or `dV/dt`, in float64 at the states `(*batch, n)`."""
        y = self.move(x)
        if self.motion != "continuous":
            return self.lyapunov(y) - self.lyapunov(x)
        P, center = _quadratic(self.value)
        return 2.0 * ((x - center) @ P * y).sum(-1)

    def move(self, x: np.ndarray) -> np.ndarray:
        """The next state, or `dx/dt`, in float64."""
        u = evaluate(self._program("controller"), x)

        def plant(at: np.ndarray) -> np.ndarray:
            return evaluate(self._program("plant"), np.concatenate([at, u], -1))

        if self.motion != "held":
            return plant(x)
        k1 = plant(x)
        k2 = plant(x + 0.5 * self.dt * k1)
        k3 = plant(x + 0.5 * self.dt * k2)
        k4 = plant(x + self.dt * k3)
        return x + self.dt / 6.0 * (k1 + 2.0 * (k2 + k3) + k4)

    def lyapunov(self, x: np.ndarray) -> np.ndarray | np.float64:
        """`V` in float64."""
        if "P" in self.value:
            P, center = _quadratic(self.value)
            return ((x - center) @ P * (x - center)).sum(-1)
        return evaluate(self._program("value"), x)[..., 0]

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """States `(count, n)` of the domain."""
        return rng.uniform(self.lower, self.upper, (count, len(self.lower)))

    def _program(self, name: str) -> Any:
        if name not in self._programs:
            self._programs[name] = parse(getattr(self, name), name)
        return self._programs[name]


def quadratic_value(P: Any, center: Any) -> dict[str, str]:
    """`V(x) = (x − center)ᵀ P (x − center)` as the certificate holds it."""
    P = np.asarray(P, dtype=float)
    return {"P": encode((0.5 * (P + P.T)).ravel().tolist()), "center": encode(np.asarray(center).tolist())}


def _quadratic(value: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    P, center = (np.array([float.fromhex(t) for t in value[k].split()]) for k in ("P", "center"))
    return P.reshape(len(center), -1), center


def linearize(loop: ClosedLoop, step: float = 1e-5) -> np.ndarray:
    """Jacobian of the motion at the center `(n, n)`, by central differences."""
    shifts = step * np.eye(len(loop.center))
    return ((loop.move(loop.center + shifts) - loop.move(loop.center - shifts)) / (2.0 * step)).T


def inner_matrix(loop: ClosedLoop) -> tuple[np.ndarray, float]:
    """`P` and a factor `ρ` for which the linearization contracts with room to spare.

    In discrete time `Aᵀ P A − ρ² P = −I` with `ρ` nearer to 1 than to the spectral radius; in continuous time
    `(A + ρ I)ᵀ P + P (A + ρ I) = −I` with a quarter of the slowest decay.

    Raises:
        InfeasibleError: The linearization is not stable.
    """
    from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

    A = linearize(loop)
    eye = np.eye(len(A))
    eigenvalues = np.linalg.eigvals(A)
    if loop.motion != "continuous":
        fastest = np.abs(eigenvalues).max()
        if not fastest < 1:
            raise InfeasibleError(
                f"certify: expected a stable loop at the center, got spectral radius {fastest:.4g}. Train again."
            )
        factor = 0.75 + 0.25 * fastest
        P = solve_discrete_lyapunov((A / factor).T, eye)
    else:
        slowest = -eigenvalues.real.max()
        if not slowest > 0:
            raise InfeasibleError(
                f"certify: expected a stable loop at the center, got growth at {-slowest:.4g} 1/s. Train again."
            )
        factor = 0.25 * slowest
        P = solve_continuous_lyapunov((A + factor * eye).T, -eye)
    return 0.5 * (P + P.T) / np.trace(P), float(factor)


def suggest_level(loop: ClosedLoop, rng: np.random.Generator, margin: float = 0.0) -> float:
    """The largest level that sampling does not speak against.

    Below `V` on the boundary of the domain, and below `V` at every sampled state where `V` does not decrease by more
    than `margin`, except next to the center.
    """
    x = loop.sample(rng, SAMPLES)
    faces = loop.sample(rng, SAMPLES)
    axis, side = rng.integers(len(loop.lower), size=SAMPLES), rng.integers(2, size=SAMPLES)
    faces[np.arange(SAMPLES), axis] = np.where(side, loop.upper[axis], loop.lower[axis])
    edge = loop.lyapunov(faces).min()
    V, bad = np.asarray(loop.lyapunov(x)), ~(loop.change(x) < -margin)
    far = 1e-3 * edge < V
    return float(min(edge, V[bad & far].min(initial=np.inf)))


def claim_decrease(
    loop: ClosedLoop,
    certificate: dict[str, Any],
    *,
    level: float,
    seconds: float = 300.0,
    jobs: int = 1,
    radius: float | None = None,
    rng: np.random.Generator | None = None,
    report: Report = quiet,
) -> dict[str, Any]:
    """The claim `lyapunov-decrease`, proved if it can be: sampled first, then the inner ellipsoid, then the cover.

    Args:
        loop: The closed loop.
        certificate: Its head.
        level: Of the sublevel set.
        seconds, jobs, report: As for `cover`.
        radius: Of the inner ellipsoid; default the largest that can be closed, halved.
        rng: For the samples; default seed 0.

    Raises:
        InfeasibleError: The linearization is not stable, or no inner ellipsoid can be closed.
    """
    rng = rng or np.random.default_rng(0)
    P, factor = inner_matrix(loop)
    claim = _begin(loop, certificate, P, factor, level)
    claim["radius"] = encode(_radius(claim, certificate) if radius is None else radius)
    point, change = _worst_sample(loop, claim, P, rng)
    if change >= 0:
        claim["data"]["point"] = encode(point.tolist())
        return _state(claim, certificate)
    claim["margin"] = encode(PART * -change)
    found = cover(
        _make_examiner,
        (claim, certificate),
        loop.lower.tolist(),
        loop.upper.tolist(),
        seconds=seconds,
        jobs=jobs,
        report=report,
    )
    claim["data"]["cover"] = found.tree
    return _state(claim, certificate)


def _begin(
    loop: ClosedLoop, certificate: dict[str, Any], P: np.ndarray, factor: float, level: float
) -> dict[str, Any]:
    return {
        **begin_claim(claims),
        "motion": loop.motion,
        "hold": "" if loop.motion == "continuous" else certificate["task"]["dt"],
        "level": encode(level),
        "margin": encode(np.finfo(float).tiny),
        "radius": encode(1.0),
        "factor": encode(factor),
        "boxes": 0,
        "worst": encode(0.0),
        "data": {
            "plant": loop.plant,
            "controller": loop.controller,
            "value": loop.value,
            "lower": encode(loop.lower.tolist()),
            "upper": encode(loop.upper.tolist()),
            "center": encode(loop.center.tolist()),
            "P": encode(P.ravel().tolist()),
            "cover": "?",
            "point": "",
        },
    }


def _state(claim: dict[str, Any], certificate: dict[str, Any]) -> dict[str, Any]:
    """The claim with margin, counts and words from what the checker finds."""
    account = claims.evaluate(claim, certificate)
    if account.verdict == "holds":
        claim["margin"] = encode(SHARE * -account.change)
        claim["worst"] = encode(account.change + _SLACK * abs(account.change))
    claim["boxes"], claim["verdict"] = account.boxes, account.verdict
    claim["statement"] = claims.statement(claim, certificate)
    return claim


def _radius(claim: dict[str, Any], certificate: dict[str, Any]) -> float:
    """Half of the largest radius that closes, found by doubling and halving."""
    loop = claims.read_loop(claim, certificate)

    def closes(radius: float) -> bool:
        return replace(loop, inner=replace(loop.inner, radius=radius)).closes() is None

    with precision(claims.BITS):
        radius = 1.0  # halved at once to the size of the sublevel set
        while not closes(radius):
            radius *= 0.5
            if radius < 2.0**-60:
                why = replace(loop, inner=replace(loop.inner, radius=1e-6)).closes()
                raise InfeasibleError(
                    f"certify: expected an ellipsoid around the center that closes, got: {why}."
                )
        low, high = radius, 2.0 * radius
        for _ in range(3):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if closes(middle) else (low, middle)
        return 0.5 * low


def _worst_sample(
    loop: ClosedLoop, claim: dict[str, Any], P: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """The state of the claim's set with the largest change of `V`: of samples, and of gradient steps from the worst."""
    radius, level = 1.001 * float.fromhex(claim["radius"]), float.fromhex(claim["level"])

    def margin(x: np.ndarray) -> np.ndarray:
        e = x - loop.center
        counts = ((e @ P * e).sum(-1) > radius) & (loop.lyapunov(x) <= level)
        return np.where(counts, -loop.change(x), np.inf)

    worst = worst_of(margin, loop.lower, loop.upper, loop.sample(rng, SAMPLES))
    if worst.margin == np.inf:
        raise InfeasibleError(
            "certify: expected states with V <= level outside the inner ellipsoid, got none. Raise the level."
        )
    return worst.state, -worst.margin


def _make_examiner(claim: dict[str, Any], certificate: dict[str, Any]) -> Examiner:
    return make_examiner_of(claims.read_loop(claim, certificate))


def make_examiner_of(loop: Loop) -> Examiner:
    """What the checker will find of a box, and the axis whose width costs most."""

    def examine(lower: Sequence[float], upper: Sequence[float]) -> Examination:
        if loop.is_outside(lower, upper):
            return Examination("o")
        bound, stays, found = loop.bound_change(lower, upper)
        if stays and bound <= -loop.margin:
            return Examination("d")
        if loop.inner.contains(lower, upper):
            return Examination("i")
        widths = [b - a for a, b in zip(lower, upper, strict=True)]
        slopes = [float(abs(d).upper()) for d in (found.jacobian or [[]])[0]]
        costs = [w * s for w, s in zip(widths, slopes, strict=True)]
        if not np.isfinite(costs).all():
            costs = [w / (b - a) for w, a, b in zip(widths, loop.lower, loop.upper, strict=True)]
        return Examination(None, int(np.argmax(costs)))

    return examine
