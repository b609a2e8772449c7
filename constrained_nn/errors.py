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


def one_line(error: BaseException) -> str:
    """What a command says of an error."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. What was finished is kept; free space or choose another folder."
    if isinstance(error, MemoryError):
        return "not enough memory. Ask for less at a time."
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split())
    expected = isinstance(error, ValueError | TypeError | LookupError | OSError | ArithmeticError)
    if not expected:  # a fault of ours, or of a library
        text = f"{type(error).__name__}: {text[:500]}"
    return text or type(error).__name__
