"""control_envs: dynamical systems written once, simulated in NumPy and torch, with constraints by name."""

__version__ = "0.1.0"
