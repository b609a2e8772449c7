"""State-dependent linear-quadratic regulators: a Riccati equation at every state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from constrained_nn.control.base import Controller
from constrained_nn.linalg import branchless, matvec
from constrained_nn.plain_state import PlainState
from constrained_nn.protocols import ControlAffine, Linearizable
from constrained_nn.solvers import RiccatiSolution, solve_care

Reference = Callable[[Any], tuple[Tensor, Tensor]]


class Factorization(nn.Module):
    """How the error dynamics around a reference are written as `de/dt = A e + B v`, `e = x − x̄`, `v = u − ū`."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*batch n"], x_ref: Float[Tensor, "*batch n"], u_ref: Float[Tensor, "*batch m"]
    ) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "*batch n m"]]:
        """`A` `(*batch, n, n)` and `B` `(*batch, n, m)`."""


class _OfPlant(Factorization):
    """A factorization of a known or learned control-affine model."""

    def __init__(self, plant: ControlAffine) -> None:
        super().__init__()
        self.plant = plant  # registered where it is a module

    def velocity(self, x: Tensor, u: Tensor) -> Tensor:
        """`dx/dt` at `t = 0`."""
        return self.plant.drift(0.0, x) + matvec(self.plant.actuation(0.0, x), u)

    def jacobian(
        self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*#batch m"]
    ) -> Float[Tensor, "*batch n n"]:
        """Derivative of the velocity in the state; a plant that knows its own is asked for it."""
        if isinstance(self.plant, Linearizable):
            return self.plant.jacobian(x, u)
        flat = x.reshape(-1, x.shape[-1]), u.expand(*x.shape[:-1], u.shape[-1]).reshape(-1, u.shape[-1])
        # backward: forward mode under vmap gives wrong numbers for some plants in torch 2.13
        J = torch.func.vmap(torch.func.jacrev(self.velocity))(*flat)
        return J.reshape(*x.shape, x.shape[-1])

    def actuation(self, x: Tensor) -> Tensor:
        """Input matrix `(*batch, n, m)`."""
        B = self.plant.actuation(0.0, x)
        return B.expand(*x.shape[:-1], *B.shape[-2:])


class Linearization(_OfPlant):
    """Jacobians at the reference: `A = ∂f/∂x(x̄, ū)`, `B = B(x̄)`, the factorization of plain LQR.

    Args:
        plant: A `ControlAffine` plant or model.
    """

    def forward(self, x: Tensor, x_ref: Tensor, u_ref: Tensor) -> tuple[Tensor, Tensor]:
        x_ref = x_ref.expand(x.shape)
        return self.jacobian(x_ref, u_ref), self.actuation(x_ref)


class MeanValue(_OfPlant):
    """Jacobians averaged on the way from the reference: `A = ∫₀¹ ∂f/∂x(x̄ + s e, ū) ds`, `B = B(x)`.

    Exact up to the quadrature: `A e = f(x, ū) − f(x̄, ū)`, without a second network.

    Args:
        plant: A `ControlAffine` plant or model.
        nodes: Number of Gauss-Legendre nodes; polynomials of degree `2 nodes − 1` along the way are exact.
    """

    at: Tensor
    weight: Tensor

    def __init__(self, plant: ControlAffine, nodes: int = 5) -> None:
        super().__init__(plant)
        at, weight = np.polynomial.legendre.leggauss(nodes)
        self.register_buffer("at", torch.as_tensor(0.5 * (at + 1.0)))
        self.register_buffer("weight", torch.as_tensor(0.5 * weight))

    def forward(self, x: Tensor, x_ref: Tensor, u_ref: Tensor) -> tuple[Tensor, Tensor]:
        x_ref = x_ref.expand(x.shape)
        at, weight = self.at.to(x.dtype), self.weight.to(x.dtype)
        way = x_ref.unsqueeze(-2) + at.unsqueeze(-1) * (x - x_ref).unsqueeze(-2)
        A = (weight[:, None, None] * self.jacobian(way, u_ref.unsqueeze(-2))).sum(-3)
        return A, self.actuation(x)


class NeuralFactorization(Factorization):
    """Learned factors: `A = A₀(x̄, e) + Σ ūⱼ Aⱼ(x̄, e)`, and `B(x)` of a model.

    The factors are free, which lets training choose, among the many that fit, ones that are stabilizable; how well they
    fit is for the training to see to.

    Args:
        factors: Network of `x̄` and `e`, one after the other, `(*batch, 2 n) -> (*batch, (1 + m) n n)`.
        plant: A `ControlAffine` model, for `B`.
    """

    def __init__(self, factors: nn.Module, plant: ControlAffine) -> None:
        super().__init__()
        self.factors = factors
        self.plant = plant

    def matrices(self, x_ref: Tensor, e: Tensor) -> Float[Tensor, "*batch k n n"]:
        """`A₀ … A_m` `(*batch, 1 + m, n, n)`."""
        n = e.shape[-1]
        return self.factors(torch.cat([x_ref.expand(e.shape), e], -1)).unflatten(-1, (-1, n, n))

    def forward(self, x: Tensor, x_ref: Tensor, u_ref: Tensor) -> tuple[Tensor, Tensor]:
        first, rest = self.matrices(x_ref, x - x_ref).tensor_split([1], dim=-3)
        A = first.squeeze(-3) + (u_ref[..., None, None] * rest).sum(-3)
        B = self.plant.actuation(0.0, x)
        return A, B.expand(*x.shape[:-1], *B.shape[-2:])


@dataclass(frozen=True, eq=False)
class Feedback:
    """An input with an account of its Riccati equation.

    Args:
        value: The input `(*batch, m)`.
        riccati: Solution at each state, with status, residual and margin.
        fell_back: Elements whose gain is that of the reference instead `(*batch)`.
        gain: The gain that was used `(*batch, m, n)`.
    """

    value: Float[Tensor, "*batch m"]
    riccati: RiccatiSolution
    fell_back: Bool[Tensor, "*batch"]
    gain: Float[Tensor, "*batch m n"]


class StateDependentLQR(Controller, PlainState):
    """Linear-quadratic regulator whose matrices belong to the present state (SD-LQR, SDRE).

    `u = ū − K(x, x̄) e`, `K` the gain of `solve_care(A, B, Q, R)` with `A, B = factorization(x, x̄, ū)`, `e = x − x̄`.

    Guarantee: where the Riccati equation has no stabilizing solution, or its margin is below `least_margin`, the gain
    is that at the reference itself, and the element is marked in `solve(t, x).fell_back`; there `u = ū` where the
    reference is not stabilizable either. Stability holds near the reference only: a gain that stabilizes every
    frozen state does not by itself stabilize the motion. Differentiable in the state, the weights and the model.

    Args:
        factorization: `MeanValue(plant)`, `Linearization(plant)` (plain LQR), or `NeuralFactorization(...)`.
        Q: State weight `(n, n)`.
        R: Input weight `(m, m)`.
        goal: Constant reference `x̄` `(n,)`.
        hold: Its input `ū` `(m,)`.
        reference: Function `t -> (x̄, ū)` in the place of `goal` and `hold`.
        lower: Smallest input `(m,)`; default: none.
        upper: Largest input `(m,)`; default: none.
        angles: Positions of states that are angles, whose errors are taken in (−π, π].
        least_margin: Stability margin [1/s] of the frozen closed loop under which the gain is not trusted.

    Returns:
        `forward(t, x)`: the input `(*batch, m)`.

    Raises:
        ValueError: `least_margin` is negative.

    Example:
        >>> import torch
        >>> from control_envs.dynamics import VanDerPol
        >>> eye, zero = torch.eye(2).double(), torch.zeros(2).double()
        >>> policy = StateDependentLQR(MeanValue(VanDerPol()), eye, eye[:1, :1], zero, zero[:1])
        >>> policy(0.0, torch.tensor([1.0, 1.0]).double()).item() < -1
        True

    References:
        Richards et al., Learning control-oriented dynamical structure from data (arXiv 2302.02529), section 4.
    """

    Q: Tensor
    R: Tensor
    goal: Tensor
    hold: Tensor
    is_angle: Tensor
    lower: Tensor
    upper: Tensor

    def __init__(
        self,
        factorization: Factorization,
        Q: Float[Tensor, "n n"],
        R: Float[Tensor, "m m"],
        goal: Float[Tensor, " n"],
        hold: Float[Tensor, " m"],
        *,
        reference: Reference | None = None,
        lower: Float[Tensor, " m"] | None = None,
        upper: Float[Tensor, " m"] | None = None,
        angles: Sequence[int] = (),
        least_margin: float = 0.0,
    ) -> None:
        super().__init__()
        if not least_margin >= 0:
            raise ValueError(
                f"StateDependentLQR: expected least_margin >= 0 [1/s], got {least_margin}. 0 trusts every stable gain."
            )
        self.factorization = factorization
        self.reference = reference
        self.least_margin = least_margin
        is_angle = torch.zeros(len(goal), dtype=torch.bool)
        is_angle[list(angles)] = True
        fixed = {"Q": Q, "R": R, "goal": goal, "hold": hold, "is_angle": is_angle}
        fixed["lower"] = torch.full_like(hold, -torch.inf) if lower is None else lower
        fixed["upper"] = torch.full_like(hold, torch.inf) if upper is None else upper
        for name, value in fixed.items():
            self.keep(name, value.detach().clone(), saved=True)

    def error(self, x: Tensor, x_ref: Tensor) -> Tensor:
        """`x − x̄`, angles in (−π, π]."""
        e = x - x_ref
        return torch.where(self.is_angle, torch.atan2(e.sin(), e.cos()), e)

    def factorization_error(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """`|A e − (f(x, ū) − f(x̄, ū))|` of a factorization of a plant, in units of the velocity."""
        x_ref, u_ref = self._reference(t)
        e = self.error(x, x_ref)
        A, _ = self.factorization(x_ref + e, x_ref, u_ref)
        model = _OfPlant(self.factorization.plant)  # pyright: ignore[reportArgumentType]
        change = model.velocity(x_ref + e, u_ref) - model.velocity(x_ref, u_ref)
        return torch.linalg.vector_norm(matvec(A, e) - change, dim=-1)

    def solve(self, t: Any, x: Float[Tensor, "*batch n"]) -> Feedback:
        """The input and its Riccati equation; never raises for a value."""
        x_ref, u_ref = self._reference(t)
        e = self.error(x, x_ref)
        A, B = self.factorization(x_ref + e, x_ref, u_ref)
        riccati = solve_care(A, B, self.Q, self.R)
        fell_back = ~(riccati.ok & (riccati.margin >= self.least_margin))
        gain = riccati.gain
        if branchless(x) or bool(fell_back.any()):
            A, B = self.factorization(x_ref.expand(e.shape), x_ref, u_ref)
            at_reference = solve_care(A, B, self.Q, self.R)
            gain = torch.where(fell_back[..., None, None], at_reference.gain, gain)
        return Feedback(self.apply_gain(t, x, gain), riccati, fell_back, gain)

    def apply_gain(
        self, t: Any, x: Float[Tensor, "*batch n"], gain: Float[Tensor, "*batch m n"]
    ) -> Float[Tensor, "*batch m"]:
        """The input of a gain, such as that of a moment ago: the Riccati equation may be slower than the loop."""
        x_ref, u_ref = self._reference(t)
        return torch.clamp(u_ref - matvec(gain, self.error(x, x_ref)), self.lower, self.upper)

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return self.solve(t, x).value

    def _reference(self, t: Any) -> tuple[Tensor, Tensor]:
        return (self.goal, self.hold) if self.reference is None else self.reference(t)
