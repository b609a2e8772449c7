"""The errors of the toolkit; each is also a builtin, so that ordinary handlers catch it."""

from __future__ import annotations


class ShapeError(ValueError):
    """A tensor has the wrong number of dimensions, size, dtype or device."""


class SetTypeError(TypeError):
    """A layer was given a kind of set that it cannot enforce."""


class TracingError(TypeError):
    """A graph that is being recorded would not do what the code does."""


class InfeasibleError(ArithmeticError):
    """No point satisfies the constraints of at least one batch element."""


class ConvergenceError(ArithmeticError):
    """A method stopped before it reached its tolerance."""


class FileFormatError(ValueError):
    """A file is missing, damaged, or not of the kind that was expected."""


class UnknownNameError(LookupError):
    """A task, method or experiment has no such name."""
