"""Linear systems with disturbance, one or a family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from control_envs.arrays import constant, namespace
from control_envs.dynamics.base import Array, ControlAffine, Quantity


@dataclass(frozen=True, eq=False)
class LinearSystem(ControlAffine):
    """Linear system, or a batch of them.

    `x' = A x + B u + E w`.

    Guarantee: exact; the matrices may carry the batch shape of the states.

    Args:
        A: State matrix `(*batch, n, n)` [1/s].
        B: Input matrix `(*batch, n, m)`.
        E: Disturbance matrix `(*batch, n, k)`, or None.

    Raises:
        ValueError: The matrices do not have the same number of rows.

    Example:
        >>> import numpy as np
        >>> plant = LinearSystem(A=-np.eye(2), B=np.ones((2, 1)))
        >>> plant.derivative(0.0, np.array([1.0, 2.0]), np.array([3.0]))
        array([2., 1.])

    References:
        LMI-Net, experiments A and B, where `A` is drawn at random.
    """

    A: Array
    B: Array
    E: Array = None

    def __post_init__(self) -> None:
        for name in ("A", "B", "E"):
            if isinstance(getattr(self, name), list | tuple):  # read from JSON
                object.__setattr__(self, name, np.array(getattr(self, name), dtype=float))
        n = self.A.shape[-1]
        rows = [M.shape[-2] for M in (self.A, self.B, self.E) if M is not None]
        if rows != [n] * len(rows):
            raise ValueError(
                f"LinearSystem: expected matrices with {n} rows, got {rows}. A is (n, n), B is (n, m), E is (n, k)."
            )

    @property
    def state(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(Quantity(f"x{i}", "1") for i in range(1, self.A.shape[-1] + 1))

    @property
    def input(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(Quantity(f"u{i}", "1") for i in range(1, self.B.shape[-1] + 1))

    @property
    def disturbance(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        channels = 0 if self.E is None else self.E.shape[-1]
        return tuple(Quantity(f"w{i}", "1") for i in range(1, channels + 1))

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        return self.drift(t, x, w, xp=xp) + (constant(self.B, x, xp) @ u[..., None])[..., 0]

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        free = (constant(self.A, x, xp) @ x[..., None])[..., 0]
        if w is None or self.E is None:
            return free
        return free + (constant(self.E, x, xp) @ w[..., None])[..., 0]

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        return constant(self.B, x, xp or namespace(x))


def symmetric_family(
    rng: np.random.Generator,
    count: int,
    *,
    n: int = 2,
    eigenvalues: tuple[float, float] = (-5.0, -0.5),
    input_std: float = 1.0,
    disturbance_std: float = 1.0,
) -> LinearSystem:
    """`count` systems with symmetric `A` of uniform eigenvalues and Haar eigenvectors, normal `B` and `E` `(n, 1)`."""
    frames, triangles = np.linalg.qr(rng.standard_normal((count, n, n)))
    frames = (
        frames * np.sign(np.diagonal(triangles, axis1=-2, axis2=-1))[:, None, :]
    )  # Haar, not QR's convention
    spectrum = rng.uniform(*eigenvalues, (count, n))
    A = (frames * spectrum[:, None, :]) @ np.swapaxes(frames, -1, -2)
    B, E = rng.standard_normal((2, count, n, 1))
    return LinearSystem(0.5 * (A + np.swapaxes(A, -1, -2)), input_std * B, disturbance_std * E)
