"""Rows of the flows, each with its equation written out once more on a grid that is twice as fine."""

from __future__ import annotations

import numpy as np

from control_envs.errors import ShapeError
from control_envs.flows import Flow, KolmogorovFlow, KuramotoSivashinsky
from tests.cases._rows import BadCall, FlowCase


def _refined(spectrum: np.ndarray, axis: int) -> np.ndarray:
    """Full spectrum of the same function on a grid with twice the points along `axis`."""
    n = spectrum.shape[axis]
    shape = list(spectrum.shape)
    shape[axis] = 2 * n
    fine = np.zeros(shape, complex)
    j = np.fft.fftfreq(n, 1.0 / n).astype(int)
    place: list = [slice(None)] * spectrum.ndim
    place[axis] = j % (2 * n)
    fine[tuple(place)] = 2 * spectrum
    return fine


def _kept(w: np.ndarray, points: int) -> np.ndarray:
    """Values on the coarse grid of the part of `w` with `3 |j| < points`."""
    spectrum = np.fft.fftn(w)
    for axis, n in enumerate(w.shape):
        j = np.abs(np.fft.fftfreq(n, 1.0 / n))
        spectrum *= np.expand_dims(3 * j < points, [a for a in range(w.ndim) if a != axis])
    return np.fft.ifftn(spectrum).real[(slice(None, None, 2),) * w.ndim]


def _kuramoto_sivashinsky(flow: KuramotoSivashinsky, u: np.ndarray) -> np.ndarray:
    hat = _refined(np.fft.fft(u), 0)
    k = 2 * np.pi / flow.length * np.fft.fftfreq(len(hat), 1.0 / len(hat))
    value, first, second, fourth = (np.fft.ifft((1j * k) ** p * hat).real for p in (0, 1, 2, 4))
    return _kept(-value * first - second - fourth, flow.points)


def _kolmogorov(flow: KolmogorovFlow, vorticity: np.ndarray) -> np.ndarray:
    """In the form `−u · ∇ω`, with the velocity from the stream function."""
    hat = _refined(_refined(np.fft.fft2(vorticity), 0), 1)
    k = np.fft.fftfreq(len(hat), 1.0 / len(hat))
    kx, ky = np.meshgrid(k, k, indexing="ij")
    laplacian = -(kx**2 + ky**2)
    stream = -hat / np.where(laplacian == 0, 1.0, laplacian)
    u, minus_v, wx, wy, diffusion = (
        np.fft.ifft2(f).real
        for f in (1j * ky * stream, 1j * kx * stream, 1j * kx * hat, 1j * ky * hat, laplacian * hat)
    )
    y = 2 * np.pi / len(hat) * np.arange(len(hat))
    force = -flow.wavenumber * flow.forcing * np.cos(flow.wavenumber * y)
    return _kept(-u * wx + minus_v * wy + diffusion / flow.reynolds + force, flow.points)


ROWS = [
    FlowCase(
        "KuramotoSivashinsky",
        KuramotoSivashinsky,
        lambda: KuramotoSivashinsky(length=22.0, points=32),
        _kuramoto_sivashinsky,
        0.05,
    ),
    FlowCase(
        "KolmogorovFlow",
        KolmogorovFlow,
        lambda: KolmogorovFlow(reynolds=20.0, points=16, forcing=0.7, wavenumber=2),
        _kolmogorov,
        0.05,
    ),
    FlowCase(
        "KolmogorovFlow-decaying",
        KolmogorovFlow,
        lambda: KolmogorovFlow(reynolds=20.0, points=16, forcing=0.0),
        _kolmogorov,
        0.05,
    ),
    BadCall(
        "Flow.trajectory",
        ShapeError,
        lambda: KuramotoSivashinsky().trajectory(np.zeros((3, 64)), 1, 0.1),
        "(*batch, 512), got (3, 64)",
    ),
    BadCall(
        "Flow.trajectory",
        ValueError,
        lambda: Flow.trajectory(KuramotoSivashinsky(), np.zeros(512), 10, 0.1, every=3),
        "steps 10 and every 3",
    ),
    BadCall("KolmogorovFlow", ValueError, lambda: KolmogorovFlow(points=16, wavenumber=6), "got 6"),
]
