"""Double integrator: a mass pushed by a force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, rectangle


@dataclass(frozen=True)
class DoubleIntegrator(ControlAffine):
    """Mass on a line.

    `p' = v, m v' = F + w`.

    Guarantee: linear; the parameters may differ between batch elements.

    Args:
        mass: Mass [kg], a float or `(*batch)`.

    Example:
        >>> import numpy as np
        >>> DoubleIntegrator(mass=2.0).derivative(0.0, np.array([1.0, 3.0]), np.array([4.0]))
        array([3., 2.])

    References:
        Åström and Murray, Feedback Systems (2008), section 2.2.
    """

    mass: Array = 1.0

    state: ClassVar = (Quantity("p", "m"), Quantity("v", "m/s"))
    input: ClassVar = (Quantity("F", "N"),)
    disturbance: ClassVar = (Quantity("w", "N"),)

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        force = u[..., 0] if w is None else u[..., 0] + w[..., 0]
        return stack([x[..., 1], force / self.mass], xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        force = xp.zeros_like(x[..., 0]) if w is None else w[..., 0]
        return stack([x[..., 1], force / self.mass], xp)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        zero = xp.zeros_like(x[..., 0])
        return stack([zero, zero + 1.0 / self.mass], xp)[..., None]

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return [rectangle((x[0], 0.0), 0.0, 0.2, 0.2)]
