"""The options of an object as JSON values, for files."""

from __future__ import annotations

import json
import pickle
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T")


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
