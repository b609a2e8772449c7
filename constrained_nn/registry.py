"""Finding an object by what a user wrote: a name, `module:OBJECT` or `file.py:OBJECT`.

The library passes objects; a name on the command line or in a study is only a way to find one. It
is one of ours, one that an installed package offers as an entry point, or a place to import from.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Generic, TypeVar

from constrained_nn.errors import FileFormatError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What is looked for.

    Args:
        word: What messages call it, such as "experiment".
        base: What it is an instance of.
        group: Entry points by which installed packages offer theirs.
    """

    word: str
    base: type[T]
    group: str


def find(
    kind: Kind[T],
    spec: str,
    known: Mapping[str, T | type[T] | str],
    options: Mapping[str, Any] | None = None,
) -> T:
    """The object that `spec` means.

    Args:
        kind: What it must be.
        spec: A name in `known`, the name of an entry point, `module:OBJECT` or `file.py:OBJECT`.
        known: Our own, by name; a string is `module:OBJECT`, which is imported only when it is
            asked for.
        options: Fields to set, of a class that is a dataclass.

    Raises:
        UnknownNameError: There is no such name, module, file or attribute; the message suggests the
            nearest.
        FileFormatError: Importing raises, or what was found is of another kind.
        TypeError: It has no such option.
        ValueError: Two of `known` and the entry points have this name.
    """
    if spec in known or ":" not in spec:
        return _with_options(kind, spec, _named(kind, spec, known), options)
    place, _, attribute = spec.rpartition(":")
    found = _attribute(spec, _imported(spec, place), attribute)
    return _with_options(kind, spec, found, options)


def names(kind: Kind[Any], known: Mapping[str, Any]) -> list[str]:
    """All names, sorted: ours and those of entry points.

    Raises:
        ValueError: Two of them are the same.
    """
    offered = [entry.name for entry in entry_points(group=kind.group)]
    for name in offered:
        refuse_taken(kind, name, known)
    return sorted({*known, *offered})


def refuse_taken(kind: Kind[Any], name: str, known: Iterable[str]) -> None:
    """Refuse a name that is in `known` or that several installed packages offer.

    Raises:
        ValueError: It is taken; the message says by whom.
    """
    offers = _offers(kind, name)
    who = [f"the package {_package(entry)}" for entry in offers]
    who = ["constrained-nn itself", *who] if name in known else who
    if len(who) > 1:
        raise ValueError(
            f"the name '{name}' of {_a(kind.word)} is taken: {' and '.join(who)} have one of that name. "
            f"Rename or uninstall one of them."
        )


def describe_unknown(what: str, name: str, known: Iterable[str], heading: str = "Known") -> str:
    """One line on a name that is unknown, with the nearest one and the list of all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    suggestion = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown {what} '{name}'.{suggestion} {heading}: {', '.join(known) or 'none'}."


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


def spec_of(thing: Any, known: Mapping[str, Any]) -> str:
    """What finds an object again: its name in `known`, or where its class was defined.

    Raises:
        TypeError: Its class is not at the top of a module, where it could be found again.
    """
    kind, name = type(thing), str(getattr(thing, "name", None))
    ours = known.get(name)
    if ours is kind or type(ours) is kind:
        return name
    if "." in kind.__qualname__:
        raise TypeError(
            f"{kind.__name__}: expected a class at the top of a module, got {kind.__qualname__}. A "
            f"file could not name it; move it there."
        )
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if not kind.__module__.startswith(_PREFIX) or file is None:
        return f"{kind.__module__}:{kind.__qualname__}"
    path, here = Path(file), Path.cwd()
    # relative where it lies below the working folder, so that a run can be moved with it
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{kind.__qualname__}"


# --- files ---------------------------------------------------------------------------------------

_PREFIX = "constrained_nn_file_"


def loaded_files() -> tuple[str, ...]:
    """The files that `find` has imported in this process.

    An object that was found in a file unpickles in another process only after `load_file` has run
    there.
    """
    modules = [module for name, module in sys.modules.items() if name.startswith(_PREFIX)]
    return tuple(str(module.__file__) for module in modules)


def load_file(path: str | Path) -> Any:
    """The module of a Python file, imported once a process; its name depends on the path alone.

    Raises:
        UnknownNameError: There is no such file.
        FileFormatError: Importing it raises.
    """
    path = Path(path).resolve()
    name = _PREFIX + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise UnknownNameError(f"{path} does not exist, or is not a file.")
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileFormatError(f"{path}: expected a Python file, with a name that ends in .py.")
    module = module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise FileFormatError(f"importing {path} raises {_one_line(error)}") from error
    return module


# --- the steps of `find` -------------------------------------------------------------------------


def _named(kind: Kind[T], name: str, known: Mapping[str, T | type[T] | str]) -> Any:
    refuse_taken(kind, name, known)
    if name in known:
        entry = known[name]
        return _resolved(entry) if isinstance(entry, str) else entry
    offers = _offers(kind, name)
    if not offers:
        if name.endswith(".py"):
            raise UnknownNameError(f"'{name}' is a file. Name the {kind.word} in it, {name}:OBJECT.")
        every = sorted({*known, *entry_points(group=kind.group).names})
        heading = f"{kind.word.capitalize()}s"
        raise UnknownNameError(describe_unknown(kind.word, name, every, heading))
    what = f"'{name}' of the package {_package(offers[0])}"
    try:
        found = offers[0].load()
    except Exception as error:
        raise FileFormatError(f"importing {what} raises {_one_line(error)}") from error
    return found


def _resolved(place: str) -> Any:
    """One of our own, whose errors are ours: they are shown as they are."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def _imported(spec: str, place: str) -> Any:
    if place.endswith(".py"):
        return load_file(place)
    try:
        return import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{place}.".startswith(f"{error.name}."):
            raise UnknownNameError(
                f"'{spec}': there is no module {error.name} that Python can import. Install it, or write "
                f"file.py:OBJECT."
            ) from None
        raise FileFormatError(f"importing {place} raises {_one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise FileFormatError(f"importing {place} raises {_one_line(error)}") from error


def _attribute(spec: str, module: Any, attribute: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [name for name in vars(module) if name.isidentifier() and not name.startswith("_")]
        message = f"'{spec}': {describe_unknown('object', attribute, public)}"
        raise UnknownNameError(message) from None


def _with_options(kind: Kind[T], what: str, found: Any, options: Mapping[str, Any] | None) -> T:
    """What was found, checked, and made with the options; a class alone is made without arguments."""
    if not options:
        return _checked(kind, what, found)
    made = found if isinstance(found, type) and issubclass(found, kind.base) else None
    return make(made or type(_checked(kind, what, found)), options, f"{kind.word} '{what}'")


def _checked(kind: Kind[T], what: str, found: Any) -> T:
    if isinstance(found, type) and issubclass(found, kind.base):
        try:  # a class stands for the object that it makes without arguments
            return found()
        except Exception as error:
            raise FileFormatError(f"{what}: {found.__name__}() raises {_one_line(error)}") from error
    if isinstance(found, kind.base):
        return found
    got, remedy = f"an object of {type(found).__name__}", "Name another object."
    if isinstance(found, type):
        got = f"the class {found.__name__}"
    expected = f"{_a(kind.word)} ({kind.base.__name__})"
    raise FileFormatError(f"{what}: expected {expected}, got {got}. {remedy}")


def _offers(kind: Kind[Any], name: str) -> list[EntryPoint]:
    return list(entry_points(group=kind.group, name=name))


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value.partition(":")[0]


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ") + "."
