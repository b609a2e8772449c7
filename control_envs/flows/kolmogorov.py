"""Navier-Stokes equations in two dimensions, driven by a shear force: Kolmogorov flow."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np

from control_envs.arrays import namespace
from control_envs.flows.base import Array, Flow
from control_envs.flows.random_fields import gaussian_field


@dataclass(frozen=True)
class KolmogorovFlow(Flow):
    """Incompressible flow on the square `[0, 2π]²`, periodic, driven by the force `(F sin(n y), 0)`.

    `∂ω/∂t + u · ∇ω = (1/Re) Δω − n F cos(n y)`, `u = (∂ψ/∂y, −∂ψ/∂x)`, `Δψ = −ω`.

    The transport term costs four Fourier transforms: `u · ∇ω = (∂xx − ∂yy)(u v) + ∂x∂y (v² − u²)`.

    Guarantee: the mean of `ω` is constant; `d/dt ½ ⟨|u|²⟩ = ⟨u · f⟩ − (1/Re) ⟨ω²⟩` and
    `d/dt ½ ⟨ω²⟩ = ⟨ω curl f⟩ − (1/Re) ⟨|∇ω|²⟩` hold to rounding for the semi-discrete equation.

    Args:
        reynolds: Re, the inverse of the viscosity.
        points: Points of the grid in each direction; a state is `ω[..., i, j]` at `x = 2π i/points, y = 2π j/points`.
        forcing: `F`; zero for decaying flow.
        wavenumber: `n`.

    Raises:
        ValueError: The grid does not resolve the force.

    Example:
        >>> import numpy as np
        >>> flow = KolmogorovFlow(points=32)
        >>> start = flow.sample(np.random.default_rng(0), 2)
        >>> flow.trajectory(start, steps=20, dt=0.01, every=10).shape
        (2, 3, 32, 32)

    References:
        Chandler and Kerswell, Invariant recurrent solutions embedded in a turbulent two-dimensional Kolmogorov flow
        (2013), section 2.
        Basdevant, Technical improvements for direct numerical simulation of homogeneous three-dimensional turbulence
        (1983).
    """

    reynolds: float = 40.0
    points: int = 64
    forcing: float = 1.0
    wavenumber: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.wavenumber <= (self.points - 1) // 3:
            raise ValueError(
                f"KolmogorovFlow: expected a wavenumber from 0 to {(self.points - 1) // 3} on {self.points} points, "
                f"got {self.wavenumber}. Take more points: the 2/3 rule keeps a third of the wavenumbers."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.points, self.points)

    @property
    def wavenumbers(self) -> tuple[np.ndarray, np.ndarray]:
        """`kx` `(points, 1)` of all modes and `ky` `(1, K + 1)` of the kept ones, `K = ⌊(points − 1)/3⌋`."""
        kx = np.fft.fftfreq(self.points, 1.0 / self.points)[:, None]
        return kx, np.arange((self.points - 1) // 3 + 1.0)[None]

    def symbol(self) -> np.ndarray:
        kx, ky = self.wavenumbers
        return -(kx**2 + ky**2) / self.reynolds

    def tables(self) -> tuple[np.ndarray, ...]:
        kx, ky = self.wavenumbers
        kept = (np.abs(kx) <= (self.points - 1) // 3).astype(float)
        square = kx**2 + ky**2
        square[0, 0] = 1.0
        force = np.zeros(square.shape)
        if self.forcing:
            force[0, self.wavenumber] = -0.5 * self.wavenumber * self.forcing * self.points**2
        velocity = (1j * ky * kept / square, -1j * kx * kept / square)
        return *velocity, kept * (kx**2 - ky**2), kept * kx * ky, force.astype(complex)

    def nonlinear(self, spectrum: Array, tables: tuple[Array, ...], xp: Any) -> Array:
        of_u, of_v, normal, shear, force = tables
        u, v = self.to_grid(of_u * spectrum, xp=xp), self.to_grid(of_v * spectrum, xp=xp)
        products = normal * self._forward(u * v, xp) + shear * self._forward((v - u) * (v + u), xp)
        return products + force

    def velocity(self, w: Array) -> Array:
        """Velocity `(*batch, 2, points, points)` of a vorticity `(*batch, points, points)`."""
        xp = namespace(w)
        spectrum = self.to_spectrum(w, xp=xp)
        tables = self.tables()[:2]
        if xp is not np:
            tables = tuple(xp.as_tensor(t, dtype=spectrum.dtype, device=spectrum.device) for t in tables)
        return xp.stack([self.to_grid(t * spectrum, xp=xp) for t in tables], -3)

    def to_spectrum(self, w: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(w)
        kept = np.abs(self.wavenumbers[0]) <= (self.points - 1) // 3
        mask = kept if xp is np else xp.as_tensor(kept, device=w.device)
        return xp.where(mask, self._forward(w, xp), 0.0)

    def to_grid(self, spectrum: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(spectrum)
        return xp.fft.irfft(xp.fft.ifft(spectrum, self.points, -2), self.points, -1)

    def _forward(self, w: Array, xp: Any) -> Array:
        columns = xp.fft.rfft(w, self.points, -1)[..., : (self.points - 1) // 3 + 1]
        return xp.fft.fft(columns, self.points, -2)

    def sample(
        self, rng: np.random.Generator, count: int, *, scale: float = 3.0, correlation_length: float = 1.0
    ) -> np.ndarray:
        """Gaussian random vorticity `(count, points, points)` of mean zero and standard deviation `scale`."""
        return gaussian_field(rng, count, self.shape, (2.0 * pi, 2.0 * pi), correlation_length, scale)
