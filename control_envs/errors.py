"""The errors of the environments; each is also a builtin, so that ordinary handlers catch it."""

from __future__ import annotations


class ShapeError(ValueError):
    """An array has the wrong number of dimensions or size."""


class NonFiniteError(ValueError):
    """A state, action or derivative is NaN or infinite."""


class UnknownTaskError(LookupError):
    """No task or environment has this name."""


class EpisodeError(RuntimeError):
    """`step` was called before `reset`, or after the episode ended."""


class ActionError(ValueError):
    """An action has the wrong shape, is NaN, or lies outside the action box."""


class InfeasibleActionError(ArithmeticError):
    """A safety filter found no safe action, and was told to raise."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed."""


class NotStabilizableError(ArithmeticError):
    """A linearization has no feedback that stabilizes it at this cost."""
