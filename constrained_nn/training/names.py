"""Objects with options as a name and JSON values, for files and command lines."""

from __future__ import annotations

import difflib
import json
import pickle
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from typing import Any, TypeVar

from constrained_nn.errors import UnknownNameError

T = TypeVar("T")


def name_of(thing: Any, known: Mapping[str, type]) -> str:
    """The name of an object of a known class, or `module:Name` of a foreign one.

    Raises:
        TypeError: Its class is not at the top of a module, where it could be found again.
    """
    kind = type(thing)
    name = getattr(thing, "name", None)
    if known.get(str(name)) is kind:
        return str(name)
    if "." in kind.__qualname__:
        raise TypeError(
            f"{kind.__name__}: expected a class at the top of a module, got {kind.__qualname__}. A file could not "
            f"name it; move it there."
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def options_of(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, as JSON values; nothing for other objects.

    Raises:
        TypeError: A field is no JSON value.
    """
    found = {}
    for each in fields(thing) if is_dataclass(thing) else ():
        value = getattr(thing, each.name)
        if not each.init or _is_default(each, value):
            continue
        try:
            found[each.name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            raise TypeError(
                f"{type(thing).__name__}: expected {each.name} as a number or another JSON value, got "
                f"{type(value).__name__}. Files name a class and its options: write a class of your own that makes it."
            ) from None
    return found


def _is_default(each: Field[Any], value: Any) -> bool:
    default = each.default if each.default_factory is MISSING else each.default_factory()
    if isinstance(value, int | float | str | None):
        return value is default or (type(value) is type(default) and value == default)
    if value is default:
        return True
    return type(value) is type(default) and pickle.dumps(value) == pickle.dumps(default)  # arrays have no ==


def find(name: str, known: Mapping[str, type[T]], base: type[T], what: str) -> type[T]:
    """The class of this name, or `module:Name` of a foreign one, whose module is imported.

    Raises:
        UnknownNameError: There is none; the message suggests the nearest.
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise UnknownNameError(
            f"unknown {what} '{name}'. Did you mean '{near[0]}'? {what.capitalize()}s: {', '.join(known)}."
        )
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # a module of others may raise anything
        raise UnknownNameError(f"{what} '{name}': {type(error).__name__}: {error}.") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UnknownNameError(
            f"{what} '{name}': expected a class derived from {base.__name__}, got {found!r}."
        )
    return found


def make(kind: type[T], options: Mapping[str, Any], what: str) -> T:
    """An object of a class with options.

    Raises:
        TypeError: There is no such option, or one is missing.
    """
    known = [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else []
    for option in options:
        if option not in known:
            raise TypeError(f"{what} has no option '{option}'. Its options: {', '.join(known) or 'none'}.")
    return kind(**options)
