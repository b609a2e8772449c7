"""Grade `proof`: the bound on the energy of the next state, rounding of the floating-point step included.

The step that is proved, for numbers `Q ≻ 0`, `w`, `c`, `α`, `σ` of a file, any state `x` and any finite proposal `y`:

    d = fl(y − w),  E = fl(V(d)),  b = fl((1 − σ) fl(α max(fl(V(x)), c))),
    x⁺ = y  if E <= b,  else  fl(w + fl(√fl(b / E) d))  (or w, where b / E is no normal number),

rounded to the dtype of the state, satisfies `V(x⁺) <= α max(V(x), c)` in exact arithmetic, if `σ` is at least what
follows from four bounds: `k`, by which a relative error of every component grows in the norm `√V`; `G`, the relative
error of `fl(V)`; `ρ = √V(w as a deviation) / √(α c)`, by which the addition of the center counts; and the units of
rounding `u` of the computation and `η` of the state, `γ_m = m u / (1 − m u)`:

    fl(V) ∈ V (1 ∓ G) (1 ∓ k u)²,
    √V(x⁺) <= (1 + k η) (1 + k u) (1 + u)² √(b / (1 − G)) + k η ρ √(α c).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from flint import arb

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.arithmetic import precision
from constrained_nn.verify.claim import COMMON
from constrained_nn.verify.claims.lmi import _exact, _smallest_pivot
from constrained_nn.verify.file import decode, decode_one, integer, mapping, sequence, text

KIND, GRADE = "energy-bound", "proof"
KEYS = (
    *COMMON, "form", "shape", "rank", "state_dtype", "alpha", "level", "safety", "needed", "fingerprint", "data",
)  # fmt: skip
DATA = ("weights", "center", "factor", "floor")
FORMS = ("diagonal", "low-rank", "fourier", "dense")
UNITS = {"float64": (-53, -1022), "float32": (-24, -126)}  # unit of rounding, smallest normal number
_MOST, _MOST_DENSE = 2**20, 128
_RANGE = 2.0**300  # numbers are within its inverse and it, so that underflow is negligible
_NEGLIGIBLE = 2.0**-300


@dataclass(frozen=True)
class EnergyAccount:
    """Account of one energy.

    Args:
        needed: Share of the bound that rounding can take, rounded to nearest.
        room: The share that the model keeps free.
        counterexample: Why the claim fails, or None.
        lacking: What is missing for a proof, or None.
    """

    needed: float
    room: float
    counterexample: str | None = None
    lacking: str | None = None

    @property
    def verdict(self) -> str:
        if self.counterexample is not None:
            return "counterexample"
        return "holds" if self.lacking is None else "inconclusive"

    @property
    def line(self) -> str:
        if self.lacking is not None:
            return self.lacking
        return (
            f"holds: rounding takes less than {self.needed:.3g} of the bound, {self.room:.3g} are kept free"
        )


@dataclass(frozen=True)
class _Energy:
    """The numbers of a claim."""

    form: str
    n: int
    columns: int
    rank: int
    weights: list[float]
    center: list[float]
    factor: list[float]
    floor: float
    alpha: float
    level: float
    safety: float
    state: str


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> EnergyAccount:
    """Definiteness of `Q` exactly, and the share of the bound that rounding needs, in ball arithmetic.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    e = _read(claim)
    if (wrong := _find_fault(e)) is not None:
        return EnergyAccount(1.0, e.safety, counterexample=wrong)
    with precision(256):
        largest = _largest_share(e)
        if largest is None:
            return EnergyAccount(
                1.0, e.safety, lacking="the energy is too badly conditioned for a bound on rounding"
            )
        needed = float((1 - largest).mid())
        # 1 − σ as the model computes it, in double precision
        if not arb(1.0 - e.safety) <= largest:
            return EnergyAccount(
                needed,
                e.safety,
                lacking=f"rounding may take {needed:.3g} of the bound, {e.safety:.3g} are kept free (build the model "
                f"with safety={2 * needed:.1g})",
            )
    return EnergyAccount(needed, e.safety)


def _read(claim: dict[str, Any]) -> _Energy:
    form, state = text(claim["form"], "form"), text(claim["state_dtype"], "state_dtype")
    if form not in FORMS or state not in UNITS:
        raise FileFormatError(
            f"form, state_dtype: expected one of {FORMS} and {tuple(UNITS)}, got {form!a}, {state!a}."
        )
    shape = [integer(v, "shape", least=1, most=_MOST) for v in sequence(claim["shape"], "shape")]
    if len(shape) != (2 if form == "fourier" else 1):
        raise FileFormatError("shape: expected the number of components, or rows and columns of a grid.")
    n, columns = math.prod(shape), shape[-1]
    if n > (_MOST_DENSE if form == "dense" else _MOST):
        raise FileFormatError(
            f"shape: expected at most {_MOST_DENSE if form == 'dense' else _MOST} components."
        )
    rank = integer(claim["rank"], "rank", most=_MOST)
    if (rank > 0) != (form == "low-rank"):
        raise FileFormatError(f"rank: expected a positive rank for a factor of low rank only, got {rank}.")
    counts = {"dense": n * n, "fourier": shape[0] * (columns // 2 + 1)}
    data = mapping(claim["data"], DATA, "data")
    alpha, level, safety = (decode_one(claim[name], name) for name in ("alpha", "level", "safety"))
    return _Energy(
        form, n, columns, rank,
        decode(data["weights"], "data.weights", counts.get(form, n)),
        decode(data["center"], "data.center", n),
        decode(data["factor"], "data.factor", n * rank),
        decode_one(data["floor"], "data.floor"),
        alpha, level, safety, state,
    )  # fmt: skip


def _find_fault(e: _Energy) -> str | None:
    """Why no rounding analysis can save the claim: `Q` not positive definite, or nothing is bounded."""
    if not 0 < e.alpha <= 1:
        return f"alpha = {e.alpha!r} is not in (0, 1], so that nothing is bounded"
    if e.level <= 0:
        return f"level = {e.level!r} is not positive"
    if not 0 <= e.safety < 1:
        return f"safety = {e.safety!r} is not in [0, 1)"
    if e.form == "dense":
        if e.floor <= 0:
            return f"floor = {e.floor!r} is not positive"
        bad, _ = _smallest_pivot(_shift_twice(e))
        if bad is not None:
            return f"Q - floor I is not positive semidefinite: see pivot {bad} of its factorization"
    elif (least := min(e.weights)) <= 0:
        return f"Q is not positive definite: weight {e.weights.index(least)} is {least!r}"
    return None


def _shift_twice(e: _Energy) -> list[list[int]]:
    """`Q + Qᵀ − 2 floor I` as integers."""
    n, numbers = e.n, _exact([*e.weights, e.floor]).entries
    floor = numbers[-1]
    return [
        [numbers[i * n + j] + numbers[j * n + i] - 2 * floor * (i == j) for j in range(n)] for i in range(n)
    ]


def _largest_share(e: _Energy) -> arb | None:
    """The largest `1 − σ` for which the step is proved; None if there is no positive one."""
    numbers = [
        e.level,
        e.alpha,
        *(w for w in e.weights if e.form != "dense"),
        *(e.floor,) * (e.form == "dense"),
    ]
    sizes = [abs(v) for v in (*numbers, *e.weights, *e.factor) if v]
    if max(sizes) > _RANGE or min(numbers) < 1 / _RANGE:
        return None
    u = arb(2) ** UNITS["float64"][0]
    unit, tiny = (arb(2) ** k for k in UNITS[e.state])
    eta = u if e.state == "float64" else (1 + u) * (1 + unit) - 1
    k, G, size = _growth(e, u)
    G = G + arb(_NEGLIGIBLE)
    if not (G < 1 and k * u < 1):
        return None
    floor = (arb(e.alpha) * arb(e.level)).sqrt()
    # what is added whatever the size of the state: the rounding of w + e, and numbers that become subnormal
    added = k * eta * _norm_of_center(e) / floor + 4 * tiny * size.sqrt() / floor + arb(_NEGLIGIBLE)
    if not added < 1:
        return None
    asked = (1 + u) ** 2 * (1 + G) * (1 + k * u) ** 2
    # a proposal in float64 is rounded to the dtype of the state even where the condition leaves it as it is
    kept = arb(1) if e.state == "float64" else (1 - added) / (1 + k * eta)
    inside = (kept * (1 - k * u)) ** 2 * (1 - G) / asked
    grown = (1 + k * eta) * (1 + k * u) * (1 + u) ** 2
    moved = ((1 - added) / grown) ** 2 * (1 - G) / asked
    return inside if inside < moved else moved


def _growth(e: _Energy, u: arb) -> tuple[arb, arb, arb]:
    """`k`, `G`, and a bound on the energy of a state whose components are all 1 at most."""
    weights = [arb(w) for w in e.weights]
    if e.form == "diagonal":
        return arb(1), _gamma(e.n + 1, u), _sum(weights)
    if e.form == "low-rank":
        # |factorᵀ d|² errs by γ_n |factor|ᵀ|d|, and |factor_j|ᵀ|d| <= a_j √V with a_j² = Σ factor_ij² / weights_i
        squares = [arb(f) ** 2 / weights[i // e.rank] for i, f in enumerate(e.factor)]
        a = _sum(squares).sqrt()
        rounding, share = _gamma(e.n + e.rank + 2, u), _gamma(e.n, u) * a
        return (1 + a * a).sqrt(), (1 + share) ** 2 * (1 + rounding) - 1, _sum(weights) * (1 + a * a)
    if e.form == "fourier":
        largest, least = max(e.weights), min(e.weights)
        condition = (arb(largest) / arb(least)).sqrt()
        transform = 16 * (e.n.bit_length() + 2) * u  # as assumed below
        rounding = _gamma(4 * e.n + 4, u)
        G = (1 + condition * transform) ** 2 * (1 + rounding) - 1
        return condition, G, arb(largest) * e.n
    norm = _sum([w * w for w in weights]).sqrt()
    condition = norm / arb(e.floor)
    return condition.sqrt(), _gamma(2 * e.n, u) * condition, norm * e.n


def _norm_of_center(e: _Energy) -> arb:
    """`√V` of the center taken as a deviation, or a bound on it."""
    center = [arb(w) for w in e.center]
    if e.form in ("diagonal", "low-rank"):
        total = _sum([arb(q) * w * w for q, w in zip(e.weights, center, strict=True)])
        for j in range(e.rank):
            total += _sum([arb(e.factor[i * e.rank + j]) * w for i, w in enumerate(center)]) ** 2
        return total.sqrt()
    norm = _sum([w * w for w in center]).sqrt()
    largest = arb(max(e.weights)) if e.form == "fourier" else _sum([arb(w) ** 2 for w in e.weights]).sqrt()
    return largest.sqrt() * norm


def _gamma(m: int, u: arb) -> arb:
    return m * u / (1 - m * u)


def _sum(terms: list[arb]) -> arb:
    total = arb(0)
    for term in terms:
        total += term
    return total


def fingerprint(claim: dict[str, Any]) -> str:
    """SHA-256 over every number that the claim is about."""
    data = claim["data"]
    parts = [*(str(claim[name]) for name in KEYS[len(COMMON) : -3]), *(str(data[name]) for name in DATA)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_stated(claim: dict[str, Any], found: EnergyAccount) -> None:
    """The stated share and fingerprint must be those of the data.

    Raises:
        FileFormatError: They differ.
    """
    if decode_one(claim["needed"], "needed") != found.needed:
        raise FileFormatError(f"needed: the claim says {claim['needed']}, the data give {found.needed!r}.")
    if text(claim["fingerprint"], "fingerprint") != fingerprint(claim):
        raise FileFormatError("fingerprint: the numbers are not those that it was made of.")


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    alpha, level, safety = (decode_one(claim[name], name) for name in ("alpha", "level", "safety"))
    shape = " x ".join(map(str, claim["shape"]))
    then = (
        "decreases to the level and stays there" if alpha < 1 else "never grows above the level or its start"
    )
    return (
        f"For {certificate['task']['name']} (states of {shape} components in {claim['state_dtype']}) and whatever "
        f"finite next state the network proposes, the state x+ after the ray projection in float64 with a share "
        f"{safety!r} of the bound kept free satisfies V(x+) <= {alpha!r} max(V(x), {level!r}) in exact arithmetic, "
        f"rounding included; V is positive definite ({claim['form']}), so that every trajectory is bounded, and V "
        f"{then}. Numbers: sha256 {claim['fingerprint']}."
    )


ASSUMPTIONS = (
    "Q, center, level, alpha and safety are the numbers that the model uses; another exponential gives another Q.",
    "The step is computed in IEEE 754 binary64, to nearest, sums in any order; then the state is rounded to its dtype.",
    "V(x) and the next state do not overflow in their dtypes, and the linear algebra of the model loses no more than "
    "products and sums in some order.",
    "Where Q is diagonal in Fourier space, transforms are accurate to 16 (log2 n + 2) 2^-53 in the 2-norm.",
    "Proposals with NaN or infinity are refused by the model, and nothing is claimed about them.",
    "The bound is on the learned evolution; nothing is claimed about the system that it was learned from.",
)
