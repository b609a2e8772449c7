"""Checks of a plant of the user's own: the promises that everything else relies on."""

from __future__ import annotations

import numpy as np

from control_envs.dynamics import ControlAffine, Dynamics
from control_envs.simulate import RK4, rollout


def check_plant(plant: Dynamics, *, scale: float | np.ndarray = 1.0, seed: int = 0) -> None:
    """Shapes, batches, NumPy against torch, `drift + actuation u`, and order 4 under RK4, at random states.

    Args:
        plant: The plant.
        scale: Typical size of the states, a number or `(n,)`.
        seed: Seed of the states.

    Raises:
        AssertionError: A promise is broken; the message says which.

    Example:
        >>> from control_envs.dynamics import Pendulum
        >>> check_plant(Pendulum())
    """
    import torch

    rng = np.random.default_rng(seed)
    x = scale * rng.uniform(-1, 1, (5, plant.state_dim))
    u = rng.uniform(-1, 1, (5, plant.input_dim))
    w = rng.uniform(-1, 1, (5, len(plant.disturbance))) if plant.disturbance else None
    name = type(plant).__name__
    f = plant.derivative(0.0, x, u, w)
    assert f.shape == x.shape, f"{name}.derivative: expected shape {x.shape} like x, got {f.shape}."
    assert f.dtype == x.dtype, f"{name}.derivative: expected dtype {x.dtype} like x, got {f.dtype}."
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, u, w)]
    g = plant.derivative(0.0, *tensors)
    _close(g.numpy(), f, f"{name}.derivative: torch and NumPy disagree; is a function of one of them used?")
    for i in range(len(x)):
        one = plant.derivative(0.0, x[i], u[i], None if w is None else w[i])
        _close(
            one, f[i], f"{name}.derivative: element {i} alone and in a batch disagree; index with [..., i]."
        )
    if isinstance(plant, ControlAffine):
        affine = plant.drift(0.0, x, w) + (plant.actuation(0.0, x) @ u[..., None])[..., 0]
        _close(affine, f, f"{name}: drift + actuation u is not the derivative.")
    _check_order(plant, x, u, name)


def _check_order(plant: Dynamics, x: np.ndarray, u: np.ndarray, name: str) -> None:
    def end(steps: int) -> np.ndarray:
        return rollout(plant, lambda t, x: u, x, dt=0.1 / steps, horizon=steps, integrator=RK4()).x[:, -1]

    reference = end(256)
    coarse, fine = (np.abs(end(n) - reference).max() for n in (4, 32))
    rounding = 1e-12 * (1.0 + np.abs(reference).max())
    order = np.log2(max(coarse, rounding) / max(fine, rounding)) / 3.0
    # a kink, as in quadratic drag, costs up to two orders; a jump costs three
    assert fine < 10.0 * rounding or order > 1.7, (
        f"{name}.derivative: RK4 converges with order {order:.1f} instead of 4. Is the right-hand side "
        f"discontinuous, or much faster than 0.1 s?"
    )


def _close(a: np.ndarray, b: np.ndarray, message: str) -> None:
    assert np.allclose(a, b, rtol=1e-12, atol=1e-12), (
        f"{message} Largest difference {np.abs(a - b).max():.3g}."
    )
