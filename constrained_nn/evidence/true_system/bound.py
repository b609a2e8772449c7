"""What a learned Lyapunov function proves of the plant: decrease on a level set, from the residual of the model."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.evidence.tracing import trace_derivative
from constrained_nn.evidence.true_system.learned_ranges import (
    range_of_certificate,
    range_of_model,
    range_of_policy,
)
from constrained_nn.evidence.true_system.ranges import Range, range_of_program
from constrained_nn.evidence.true_system.ranges import join as join_ranges
from constrained_nn.models import CoILS
from constrained_nn.verify.arithmetic import parse

SLACK = 1e-9  # for rounding, of |∇V| (|f̂| + |e|) + rate V
_CHUNK = 4096


@dataclass(frozen=True)
class TrueSystem:
    """What is known of the plant under a learned policy.

    Args:
        grade: `"bound"`: sound in real arithmetic over every state of the level set, computed in floating point with
            the slack `SLACK`, and under the assumption that is named. `"sampled"`: at the drawn states only.
        level: Decrease is claimed on `inner < V <= level`; 0 where nothing is.
        inner: Level that the state reaches; 0: the decrease goes down to the equilibrium.
        rate: `dV/dt <= −rate V` there [1/s], on the plant.
        residual: Largest bound of the model's error `|e|` on the level set, in the units of the velocities; infinite
            where a bound was sought and nothing is shown.
        worst: State with the least rate `(n,)`, or where the check failed.
        checked: Boxes or draws.
        share: Share of the box that `V <= level` fills, from a grid.
        assumption: What the claim rests on, in words.
        failure_bound: Grade `sampled`: with confidence 0.999, at most this share of the set fails `rate`.
        constants: Case 1 near the equilibrium, where it was tried: `k` of `|e| <= k|x|`, `L` of `|∇V| <= L|x|` and `c1`
            of `V >= c1|x|²`.
    """

    grade: Literal["bound", "sampled"]
    level: float
    inner: float
    rate: float
    residual: float
    worst: tuple[float, ...]
    checked: int
    share: float
    assumption: str
    failure_bound: float | None = None
    constants: tuple[float, float, float] | None = None

    @property
    def case(self) -> Literal["nothing", "ultimate bound", "exponential"]:
        """Which statement it is."""
        if not self.level > self.inner:
            return "nothing"
        return "exponential" if self.inner == 0.0 else "ultimate bound"

    def __str__(self) -> str:
        if self.case == "nothing":
            return f"Nothing is shown of the plant (near {_write_state(self.worst)}). {self.assumption}"
        reach = "the equilibrium" if self.inner == 0.0 else f"V <= {self.inner:.3g}"
        return (
            f"Grade {self.grade}: on the plant dV/dt <= -{self.rate:.3g} V wherever {self.inner:.3g} < V <= "
            f"{self.level:.3g} ({100 * self.share:.0f} % of the box), so that starts there reach {reach}. Error of the "
            f"model at most {self.residual:.3g}. {self.assumption}"
        )


def bound_true_system(
    coils: CoILS,
    plant: Any,
    box: tuple[Float[Tensor, " n"], Float[Tensor, " n"]],
    *,
    plant_lipschitz: float | None = None,
    rate: float | None = None,
    most: int = 200_000,
) -> TrueSystem:
    """Decrease of `V` along the plant, over every state of the largest level set in a box.

    With the error `e = f_plant(x, π(x)) − f̂(x, π(x))` of the uncorrected model and `s = ∇V·f̂ + rate V`,

        dV/dt = ∇V·f_plant <= −rate V + s + ‖∇V‖ ‖e‖.

    The box is divided where that needs it. On each part `s`, `∇V` and `e` are enclosed: the networks with their
    Jacobians by interval arithmetic, and the error

    - with a plant that can be traced, likewise (case 1: near the equilibrium, where `|e| <= k|x|`, by the matrices `G`,
      `M` with `∇V = G x`, `f_plant = M x`; elsewhere part by part);
    - with `plant_lipschitz`, a Lipschitz constant `L*` of `f_plant(x, π(x))` over the box, from the plant's velocity at
      the centers alone: `|e| <= |e(center)| + (L* + L_model) δ`, `δ` half the diagonal (case 3). Parts around the
      equilibrium then stay open, and what remains is an ultimate bound (case 2).

    Guarantee: grade `bound`: sound in real arithmetic, computed in floating point with a relative slack of 1e-9. The
    input is taken as continuous feedback; holding it over an interval is not covered.

    Args:
        coils: Model, policy and certificate, float64, in eval mode.
        plant: A plant, or with `plant_lipschitz` anything with its `derivative`.
        box: Lower and upper ends of the states; the equilibrium is inside.
        plant_lipschitz: `L*`; default: the plant is traced.
        rate: Decay rate that shall be shown [1/s]; default: a fifth of the certificate's.
        most: Parts that may be examined.

    Raises:
        SetTypeError: A network, policy, certificate or plant of a kind that is not enclosed.
        TypeError: The plant cannot be traced.
    """
    low, high = box
    program = None
    if plant_lipschitz is None:
        sizes = coils.certificate.origin.shape[0], coils.policy(0.0, low).shape[-1]
        program = parse(trace_derivative(plant), "plant", inputs=sum(sizes), outputs=sizes[0])
    judge = _Enclosure(coils, plant, program, plant_lipschitz)
    origin, alpha = coils.certificate.origin, coils.certificate.rate
    target = 0.2 * alpha if rate is None else rate
    finest = (2.0**-24 if program is not None else 2.0**-9) * (high - low)
    top, share = _find_level(judge, low, high)
    core, constants, core_rate = _prove_core(judge, torch.minimum(high - origin, origin - low), target)
    x, h = _split_around(origin, core, low, high)
    parts = _Parts(judge, top, target, finest, core_rate, origin)
    if core_rate > 0.0:
        parts.residual = judge(origin.unsqueeze(0), core.unsqueeze(0)).residual.item()
    else:  # the core stays open, and is one of the parts
        x, h = torch.cat([x, origin.unsqueeze(0)]), torch.cat([h, core.unsqueeze(0)])
        parts.rate = alpha
    while len(x):
        divide = parts.checked + len(x) <= most
        chunks = [slice(first, first + _CHUNK) for first in range(0, len(x), _CHUNK)]
        rest = [parts.examine(x[chunk], h[chunk], divide=divide) for chunk in chunks]
        x, h = _bisect([a for a, _ in rest], [b for _, b in rest], high - low)
    level, inner = parts.find_levels()
    worst, shown, residual = parts.worst, parts.rate, parts.residual
    if not level > inner and parts.stuck_at is not None:
        worst, shown, residual = parts.stuck_at, 0.0, math.inf
    if level < top:
        share = _measure_share(judge, low, high, level)
    known = (
        "The plant is its equations, in exact arithmetic"
        if program is not None
        else f"The closed loop of the plant has Lipschitz constant {plant_lipschitz:g} over the box"
    )
    return TrueSystem(
        "bound",
        level,
        inner,
        shown,
        residual,
        tuple(worst.tolist()),
        parts.checked,
        share,
        f"{known}; the input is continuous feedback, not held; rounding is within a slack of {SLACK:g}.",
        constants=constants,
    )


@dataclass(frozen=True)
class _Bounds:
    rate: Tensor
    residual: Tensor
    least: Tensor
    most: Tensor


class _Enclosure:
    """Enclosures of everything that the statement needs, over boxes."""

    def __init__(self, coils: CoILS, plant: Any, program: Any, lipschitz: float | None) -> None:
        self.coils, self.plant, self.program, self.lipschitz = coils, plant, program, lipschitz

    def parts(self, x: Tensor, h: Tensor) -> tuple[Range, Range, Range, Range | None]:
        """`V`, `∇V`, `f̂(x, π(x))` and, where the plant is traced, its velocity."""
        with torch.no_grad():
            box = Range.boxes(x, h)
            value, gradient = range_of_certificate(self.coils.certificate, box)
            u = range_of_policy(self.coils.policy, box)
            model = range_of_model(self.coils.model, box, u)
            true = None if self.program is None else range_of_program(self.program, join_ranges(box, u))
        return value, gradient, model, true

    def __call__(self, x: Tensor, h: Tensor) -> _Bounds:
        value, gradient, model, true = self.parts(x, h)
        alpha = self.coils.certificate.rate
        norm = lambda a: torch.linalg.vector_norm(a, dim=-1)  # noqa: E731
        slope = norm(gradient.size())
        s = (gradient * model).sum() + value.scaled(alpha)
        if true is not None:
            error = true - model
            residual, push = norm(error.size()), (gradient * error).sum().high[:, 0]
            push = torch.minimum(push, slope * residual)
        else:
            assert self.lipschitz is not None
            with torch.no_grad():
                velocity = self.plant.derivative(0.0, x, self.coils.policy(0.0, x), xp=torch)
            steep = self.lipschitz + (model.slope.abs() + model.spread).square().sum((-1, -2)).sqrt()
            residual = norm(velocity - model.center) + steep * norm(h)
            push = slope * residual
        rounding = SLACK * (slope * (norm(model.size()) + residual) + alpha * value.high[:, 0])
        # what is not a number, as at a pole of the plant, shows nothing and excludes nothing
        least, most = value.low[:, 0].nan_to_num(nan=0.0).clamp_min(0.0), value.high[:, 0]
        excess = (s.high[:, 0] + push + rounding).clamp_min(0.0)
        rate = torch.where(excess <= 0, alpha, alpha - excess / least)
        return _Bounds(
            torch.where(rate.isnan(), -torch.inf, rate),
            torch.where(residual.isnan(), torch.inf, residual),
            least,
            torch.where(most.isnan(), torch.inf, most),
        )


class _Parts:
    """What the parts of the box have shown so far: the least rate, the largest residual, and which stay open."""

    def __init__(
        self, judge: _Enclosure, top: float, target: float, finest: Tensor, rate: float, origin: Tensor
    ) -> None:
        self.judge, self.top, self.target, self.finest = judge, top, target, finest
        self.checked, self.rate, self.residual, self.worst = 0, rate, 0.0, origin
        self.stuck_at: Tensor | None = None
        self.open: list[tuple[Tensor, Tensor]] = []

    def examine(self, x: Tensor, h: Tensor, *, divide: bool) -> tuple[Tensor, Tensor]:
        """Those of these parts that are to be divided; without `divide`, none is."""
        found = self.judge(x, h)
        self.checked += len(x)
        inside = found.least <= self.top
        good = inside & (found.rate >= self.target)
        if bool(good.any()):
            self.residual = max(self.residual, found.residual[good].max().item())
            least = found.rate[good].min().item()
            if least < self.rate:
                self.rate, self.worst = least, x[good][found.rate[good].argmin()]
        bad = inside & ~good
        stuck = bad & (h < self.finest).all(-1) if divide else bad
        if bool(stuck.any()):
            self.open.append((found.least[stuck], found.most[stuck]))
            self.stuck_at = x[stuck][found.least[stuck].argmax()]
        return x[bad & ~stuck], h[bad & ~stuck]

    def find_levels(self) -> tuple[float, float]:
        """The level and the inner level between which nothing is open."""
        if not self.open:
            return self.top, 0.0
        least, most = (torch.cat(ends) for ends in zip(*self.open, strict=True))
        return _find_gap(least, most, self.top)


def _prove_core(
    judge: _Enclosure, width: Tensor, target: float
) -> tuple[Tensor, tuple[float, float, float] | None, float]:
    """Half widths of a box around the equilibrium, the constants of case 1 in it, and the rate proved there.

    There `∇V = G x`, `V = xᵀ N x/2`, `f_plant = M x` with `G`, `N` between the entries of the Hessian's enclosure and
    `M` between those of the Jacobian's: `dV/dt + r V = xᵀ (Gᵀ M + r N/2) x <= 0` where the symmetric part is negative.
    """
    origin, alpha = judge.coils.certificate.origin.unsqueeze(0), judge.coils.certificate.rate
    if judge.program is None:
        return width * 2.0**-7, None, 0.0
    for goal, k in itertools.product((target, 0.0), range(1, 19)):
        h = (width * 2.0**-k).unsqueeze(0)
        _, G, model, true = judge.parts(origin, h)
        assert true is not None
        Gm, Gr, Mm, Mr = G.slope[0], G.spread[0], true.slope[0], true.spread[0]
        middle = Gm.mT @ Mm
        half = Gm.abs().mT @ Mr + Gr.mT @ (Mm.abs() + Mr)

        def top(
            r: float, middle: Tensor = middle, half: Tensor = half, Gm: Tensor = Gm, Gr: Tensor = Gr
        ) -> float:
            Q, R = middle + 0.5 * r * Gm, half + 0.5 * r * Gr
            scale = torch.linalg.matrix_norm(Q).item()
            radius = torch.linalg.matrix_norm(0.5 * (R + R.mT)).item()
            return torch.linalg.eigvalsh(0.5 * (Q + Q.mT))[-1].item() + radius + SLACK * scale

        if not bool(torch.isfinite(middle).all() & torch.isfinite(half).all()):  # a pole
            continue
        if not (top(goal) < 0.0 and true.center.abs().max() <= 1e-9):
            continue
        low, high = goal, alpha
        if top(alpha) <= 0.0:
            low = alpha
        while high - low > 1e-3 * alpha:
            center = 0.5 * (low + high)
            low, high = (center, high) if top(center) <= 0.0 else (low, center)
        error = true - model
        k_error = torch.linalg.matrix_norm(error.slope[0].abs() + error.spread[0]).item()
        L = torch.linalg.matrix_norm(Gm.abs() + Gr).item()
        c1 = 0.5 * (torch.linalg.eigvalsh(0.5 * (Gm + Gm.mT))[0].item() - torch.linalg.matrix_norm(Gr).item())
        return h[0], (k_error, L, c1), low
    return width * 2.0**-18, None, 0.0


def _split_around(origin: Tensor, core: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The box without the core, as parts: three ranges along every axis, without the middle of all."""
    cuts = [
        (
            (low[i], origin[i] - core[i]),
            (origin[i] - core[i], origin[i] + core[i]),
            (origin[i] + core[i], high[i]),
        )
        for i in range(len(origin))
    ]
    x, h = [], []
    for part in itertools.product(*cuts):
        ends = torch.stack([torch.stack(pair) for pair in part])
        if all(pair is cut[1] for pair, cut in zip(part, cuts, strict=True)):
            continue
        x.append(ends.mean(-1))
        h.append(0.5 * (ends[:, 1] - ends[:, 0]))
    return torch.stack(x), torch.stack(h) * (1.0 + 1e-12)


def _bisect(xs: list[Tensor], hs: list[Tensor], width: Tensor) -> tuple[Tensor, Tensor]:
    """Every box in two, across its longest side in units of `width`."""
    x, h = torch.cat(xs), torch.cat(hs)
    axis = (h / width).argmax(-1, keepdim=True)
    half = h.scatter(1, axis, 0.5 * h.gather(1, axis))
    step = torch.zeros_like(h).scatter(1, axis, half.gather(1, axis))
    return torch.cat([x - step, x + step]), torch.cat([half, half]) * (1.0 + 1e-15)


def _find_level(judge: _Enclosure, low: Tensor, high: Tensor, parts: int = 4096) -> tuple[float, float]:
    """Lower bound of `V` over the faces of the box, and the share of the box below it."""
    n = len(low)
    per_axis = max(2, round(parts ** (1.0 / max(1, n - 1))))
    level = torch.inf
    for axis, end in itertools.product(range(n), (low, high)):
        others = [i for i in range(n) if i != axis]
        grids = [torch.arange(per_axis, dtype=low.dtype) for _ in others]
        places = (
            torch.cartesian_prod(*grids).reshape(-1, len(others)) if others else torch.zeros(1, 0).to(low)
        )
        x, h = end.expand(len(places), n).clone(), torch.zeros(len(places), n).to(low)
        for j, i in enumerate(others):
            step = (high[i] - low[i]) / per_axis
            x[:, i], h[:, i] = low[i] + (places[:, j] + 0.5) * step, 0.5 * step * (1.0 + 1e-12)
        for first in range(0, len(x), _CHUNK):
            with torch.no_grad():
                box = Range.boxes(x[first : first + _CHUNK], h[first : first + _CHUNK])
                value = range_of_certificate(judge.coils.certificate, box)[0]
            level = min(level, value.low.nan_to_num(nan=-torch.inf).min().item())
    level = max(level, 0.0) * (1.0 - SLACK)
    return level, _measure_share(judge, low, high, level)


def _measure_share(judge: _Enclosure, low: Tensor, high: Tensor, level: float) -> float:
    n = len(low)
    side = [torch.linspace(0.0, 1.0, round(20_000 ** (1.0 / n)), dtype=low.dtype)] * n
    grid = low + (high - low) * torch.cartesian_prod(*side).reshape(-1, n)
    with torch.no_grad():
        return (judge.coils.certificate.value(grid) <= level).double().mean().item()


def _find_gap(low: Tensor, high: Tensor, top: float) -> tuple[float, float]:
    """The largest range of levels below `top` that no open part meets: `(level, inner)`."""
    best, start = (0.0, 0.0), 0.0
    for a, b in sorted(zip(low.tolist(), high.tolist(), strict=True)):
        if min(a, top) - start > best[0] - best[1]:
            best = (min(a, top), start)
        start = max(start, b)
    return (top, start) if top - start > best[0] - best[1] else best


def _write_state(x: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in x) + ")"
