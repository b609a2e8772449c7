"""Stable-Baselines3 on the vector environment; import this package only with the extra `rl`."""

from control_envs.envs.sb3.adapters import LayerPolicy, Sb3VecEnv

__all__ = ["LayerPolicy", "Sb3VecEnv"]
