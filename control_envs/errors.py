"""The errors of the environments; each is also a builtin, so that ordinary handlers catch it."""

from __future__ import annotations


class ShapeError(ValueError):
    """An array has the wrong number of dimensions or size."""


class NonFiniteError(ValueError):
    """A state, action or derivative is NaN or infinite."""


class UnknownTaskError(LookupError):
    """No task has this name."""


class EpisodeError(RuntimeError):
    """`step` was called before `reset`, or after the episode ended."""
