"""The run-time type checker of `pytest --typed`, which notes what it has seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from beartype import BeartypeConf, beartype

# an int where a float is asked for is fine, as it is to every static checker
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))

ANNOTATED: set[str] = set()  # functions with annotations, of the modules that were imported
CALLED: set[str] = set()  # those whose annotations were checked


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a check of its annotations."""
    checker = _check(function)
    if checker is function:  # nothing to check
        return function
    name = f"{function.__module__}.{function.__qualname__}"
    ANNOTATED.add(name)

    @wraps(checker)
    def noted(*args: Any, **kwargs: Any) -> Any:
        CALLED.add(name)
        return checker(*args, **kwargs)

    return noted
