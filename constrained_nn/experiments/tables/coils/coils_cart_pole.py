"""CoILS on the cart-pole with a force limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from constrained_nn.experiments.tables.coils.table import CONDITIONS, CoILSExperiment
from control_envs.dynamics import CartPole


@dataclass(frozen=True)
class CartPoleModel(CoILSExperiment):
    """A pole on a cart, from samples around its upper rest."""

    grid: int = 5
    count: int = 2000
    epochs: int = 60
    rate: ClassVar[float] = 0.8
    name: ClassVar[str] = "coils-cart-pole"
    title: ClassVar[str] = "CoILS: cart-pole with a force limit"
    notes: ClassVar = (
        *CONDITIONS,
        "Force up to 6 N; 0.5 m, 0.5 rad, 1 m/s and 1 rad/s to either side of the rest. From some corners of this box "
        "no force within the limit may bring the pole up; the row of the known plant's LQR shows what is easy.",
    )

    @property
    def plant(self) -> CartPole:
        return CartPole(friction=0.1)

    @property
    def equilibrium(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(4), np.zeros(1)

    @property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([0.5, 0.5, 1.0, 1.0]), np.full(1, 6.0)


EXPERIMENT = CartPoleModel()
