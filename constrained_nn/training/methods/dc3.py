"""Correction by gradient steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constrained_nn.control import Controller
from constrained_nn.linalg import matvec, rmatvec
from constrained_nn.sets import IntervalSet
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.methods.base import Condition, Method, Running, running_excess, squared_excess


@dataclass(frozen=True)
class DC3(Method):
    """A fixed number of gradient steps on violated linear rows, unrolled, and the penalty of `Soft` (DC3).

    `y ← y − step Δ`, `Δ ← Aᵀ (A y − clamp(A y)) + momentum Δ`. Violations shrink, they do not vanish. With the
    published `step = 1e-7` the correction does nothing; `normalized` divides the step by `|A|²` of each element, and
    then it works. The published gradient is twice `Δ`: half of this step is theirs. Equalities are for `Completed`.

    Args:
        corrections: Number of steps.
        step: Step size, in units of `1 / |A|²` where `normalized`.
        momentum: Share of the last step that is kept.
        normalized: Whether to divide the step by the squared Frobenius norm of `A`.
        weight, warmup: Weight of the penalty, and steps without it.
        wrong_lower_sign: Push *into* violated lower bounds, as the published code of the piecewise problems does.

    References:
        DC3 (ICLR 2021), section 3.3; its gradient of a lower-bound row has the right sign here.
    """

    corrections: int = 5
    step: float = 0.5
    momentum: float = 0.5
    normalized: bool = True
    weight: float = 0.01
    warmup: int = 0
    wrong_lower_sign: bool = False

    name: ClassVar[str] = "dc3"
    summary: ClassVar[str] = "DC3: gradient correction of violated rows, and a penalty"

    def __post_init__(self) -> None:
        require_integer("DC3", "corrections", self.corrections)
        require_integer("DC3", "warmup", self.warmup)
        require_real("DC3", "step", self.step, above=0.0)
        require_real("DC3", "momentum", self.momentum, least=0.0, below=1.0)
        require_real("DC3", "weight", self.weight, least=0.0)
        for name in ("normalized", "wrong_lower_sign"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"DC3: expected {name} as true or false, got {getattr(self, name)!r}.")

    def decide(self, raw: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        A = set.jacobian(raw)
        # the momentum keeps steps, or slopes where elements differ in their step
        share: float = self.step
        length: Tensor | float = 1.0
        if self.normalized:
            squared = A.square().sum((-2, -1)).unsqueeze(-1)
            share, length = 1.0, self.step / torch.where(squared > 0, squared, 1.0)
        y, change = raw, torch.zeros_like(raw)
        for _ in range(self.corrections):
            Ay = matvec(A, y)
            excess = Ay - torch.clamp(Ay, set.lower, set.upper)
            slope = rmatvec(A, excess.abs() if self.wrong_lower_sign else excess)
            change = share * slope + self.momentum * change
            y = y - length * change
        return y

    def penalty(self, raw: Tensor, y: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        on = step is None or step > self.warmup
        return squared_excess(self.weight if on else 0.0, y, set)

    def penalties(self, network: Controller, condition: Condition, step: int) -> Running:
        return running_excess(self.weight, condition) if step > self.warmup else {}
