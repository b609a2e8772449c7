"""control_envs: dynamical systems written once, simulated in NumPy and torch, with constraints by name."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def make(id: str, **kwargs: Any) -> Any:
    """A registered environment by its id, such as `"Ctrl/Pendulum-v0"`; see `control_envs.envs.make`."""
    from control_envs import envs

    return envs.make(id, **kwargs)


def make_vec(id: str, num_envs: int = 1, **kwargs: Any) -> Any:
    """Many copies of a registered environment; see `control_envs.envs.make_vec`."""
    from control_envs import envs

    return envs.make_vec(id, num_envs, **kwargs)


__all__ = ["make", "make_vec"]
