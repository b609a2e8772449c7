"""Learned dynamics that come with a controller and a proof of stability of the model (CoILS, stable dynamics)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.certificates import EnergyFunction, LyapunovFunction
from constrained_nn.control import Controller
from constrained_nn.layers import HardNetAffine, ProjectionLayer
from constrained_nn.solvers import Solution, Status


class StableDynamics(nn.Module):
    """A learned model without input along which a learned Lyapunov function, or the energy above a level, decreases.

    `dx/dt = f̂(x) − ∇V relu(∇V·f̂ + rate (V − c)) / |∇V|²`, the nearest velocity to `f̂(x)` in `certificate.condition`;
    `c = 0` for a Lyapunov function.

    Guarantee: `∇V·f(x) <= −rate (V − c)` to rounding at every state where `∇V` is not 0, for every parameter. With an
    `EnergyFunction` all trajectories of the differential equation are bounded: `V − c` decays as `exp(−rate t)`. That
    is about the equation: a discretization with finite steps can leave the level set, and `ECO` cannot.

    Args:
        model: Network `(*batch, n) -> (*batch, n)`.
        certificate: The Lyapunov function or the energy, trained with it.
        layer: The layer that enforces the row; default `HardNetAffine()`.

    References:
        Manek, Kolter, Learning stable deep dynamics models (arXiv 2001.06116); for energies with a level, the
        predecessor of ECO (arXiv 2410.00976).
    """

    def __init__(
        self,
        model: nn.Module,
        certificate: LyapunovFunction | EnergyFunction,
        layer: ProjectionLayer | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.certificate = certificate
        self.layer = HardNetAffine() if layer is None else layer

    def solve(self, x: Float[Tensor, "*batch n"]) -> Solution:
        """Enforced velocity with its status and the raw velocity."""
        raw = self.model(x)
        solution = self.layer.solve(raw, self.certificate.condition(0.0, x))
        return replace(solution, raw=raw)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return self.layer(self.model(x), self.certificate.condition(0.0, x))


class CoILS(nn.Module):
    """A learned model of a plant that is stabilized, by construction, by the controller learned with it.

    `f(x, u) = f̂(x, u) − c(x) ∇V(x)`, `c = relu(∇V·f̂(x, π(x)) + rate V) / |∇V|²`: one row of HardNet-Aff whose normal is
    learned, evaluated at the policy `u = π(x)` and added for every input.

    Guarantee: `∇V·f(x, π(x)) <= −rate V` to rounding at every state where `∇V` is not 0, for every parameter of `f̂`,
    `π` and `V`. So with `c₁|e|² <= V <= c₂|e|²` the model's closed loop obeys `|e(t)| <= √(c₂/c₁) exp(−rate t/2)
    |e(0)|`. The effect of the input is untouched, `f(x, u) − f(x, v) = f̂(x, u) − f̂(x, v)`; a control-affine `f̂`
    stays so. The guarantee is on the model: what holds for the plant depends on how well the model fits, and a model
    that needs its correction everywhere has invented its stability (penalize `correction`).

    Args:
        model: `f̂`, a module `(x, u) -> dx/dt`, such as `AnchoredModel` or `AffineModel`.
        policy: `π`, such as `AnchoredController`.
        certificate: `V`.
        layer: The layer that enforces the row; default `HardNetAffine()`.

    References:
        Min, Richards, Azizan, Data-driven control with inherent Lyapunov stability (arXiv 2303.03157).
        Manek, Kolter, Learning stable deep dynamics models (arXiv 2001.06116), Eq. 10, the case without input.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: Controller,
        certificate: LyapunovFunction,
        layer: ProjectionLayer | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.policy = policy
        self.certificate = certificate
        self.layer = HardNetAffine() if layer is None else layer

    def closed_loop(self, x: Float[Tensor, "*batch n"]) -> Solution:
        """`f̂(x, π(x))` and what the row makes of it, with status."""
        raw = self.model(x, self.policy(0.0, x))
        solution = self.layer.solve(raw, self.certificate.condition(0.0, x))
        return replace(solution, raw=raw)

    def correction(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """`−c(x) ∇V(x)`; 0 where the model is stabilized without it."""
        raw = self.model(x, self.policy(0.0, x))
        return self.layer(raw, self.certificate.condition(0.0, x)) - raw

    def forward(
        self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch n"]:
        return self.model(x, u) + self.correction(x)

    def slack(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """`∇V·f(x, π(x)) + rate V`, at most 0 to rounding, over `|∇V| (|f̂| + |f|) + rate V`, its own size."""
        loop = self.closed_loop(x)
        assert loop.raw is not None
        value, gradient = self.certificate.value_and_gradient(x)
        f = self.model(x, self.policy(0.0, x)) + (loop.value - loop.raw)
        rate = self.certificate.rate
        size = torch.linalg.vector_norm(loop.raw, dim=-1) + torch.linalg.vector_norm(f, dim=-1)
        size = torch.linalg.vector_norm(gradient, dim=-1) * size + rate * value
        return ((gradient * f).sum(-1) + rate * value) / torch.where(size > 0, size, 1.0)


class DiscreteCoILS(nn.Module):
    """A learned sampled model that is stabilized, by construction, by the controller learned with it.

    `f(x, u) = f̂(x, u) − (1 − s(x)) (f̂(x, π(x)) − origin)`, `s = min(1, (1 − decay) V(x) / V(f̂(x, π(x))))`.

    Guarantee: `V(f(x, π(x))) <= (1 − decay) V(x)` to rounding for every parameter: `V` is convex and 0 at the origin,
    so that scaling the deviation by `s` scales `V` by at most `s`.

    Args:
        model: `f̂`, a module `(x, u) -> next state`.
        policy: `π`.
        certificate: `V`, convex: a `NeuralLyapunov` or `QuadraticLyapunov` without angles; its rate is not used.
        decay: Share of `V` that a step takes away, in [0, 1).

    Raises:
        ValueError: `decay` is not in [0, 1), or the certificate is not convex.

    References:
        Manek, Kolter, Learning stable deep dynamics models (arXiv 2001.06116), whose guarantee is in continuous time.
    """

    def __init__(
        self, model: nn.Module, policy: Controller, certificate: LyapunovFunction, *, decay: float
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(
                f"DiscreteCoILS: expected decay in [0, 1), got {decay}. V shrinks by 1 − decay a step."
            )
        if not certificate.convex:
            raise ValueError(
                f"DiscreteCoILS: expected a convex certificate, got {type(certificate).__name__}. Use NeuralLyapunov "
                f"or QuadraticLyapunov, without angles."
            )
        self.model = model
        self.policy = policy
        self.certificate = certificate
        self.decay = decay

    def closed_loop(self, x: Float[Tensor, "*batch n"]) -> Solution:
        """`f̂(x, π(x))` and what the scaling makes of it, with status."""
        raw = self.model(x, self.policy(0.0, x))
        V = self.certificate
        allowed, reached = (1.0 - self.decay) * V.value(x), V.value(raw)
        beyond = reached > allowed
        scale = torch.where(beyond, allowed / torch.where(beyond, reached, 1.0), 1.0)
        value = torch.where(beyond.unsqueeze(-1), V.origin + scale.unsqueeze(-1) * (raw - V.origin), raw)
        finite = value.isfinite().all(-1)
        status = torch.where(finite, int(Status.OK), int(Status.NONFINITE_INPUT)).to(torch.int8)
        with torch.no_grad():
            excess = (V.value(value.detach()) - allowed.detach()).clamp_min(0.0)
        steps = torch.zeros_like(status, dtype=torch.int32)
        return Solution(value, status, steps, excess, raw=raw)

    def correction(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """What is added for every input; 0 where the model is stabilized without it."""
        loop = self.closed_loop(x)
        assert loop.raw is not None
        return loop.value - loop.raw

    def forward(
        self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch n"]:
        return self.model(x, u) + self.correction(x)
