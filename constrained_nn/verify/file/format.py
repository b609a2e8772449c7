"""The certificate file: strict JSON whose numbers are hexadecimal floats and whose digest covers everything."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from constrained_nn.errors import FileFormatError

SCHEMA = "constrained-nn/certificate"
VERSION = 1
MAX_BYTES = 64 * 2**20
MAX_VALUES = (
    1_000_000  # numbers stand in strings, so that a certificate has few; a list takes 30 times its text
)

_TOP = ("schema", "version", "digest", "versions", "command", "seed", "task", "controller", "claims")
_TASK = ("name", "version", "dt", "horizon", "state", "input")
# Every character that a string of a file may have. Others print as blanks, as signs of a sentence, or as one another.
ALPHABET = frozenset(map(chr, range(0x20, 0x7F))) | frozenset(
    "\N{DEGREE SIGN}\N{MICRO SIGN}\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
)
_LONGEST, _SIGNS = 60, frozenset('!"(),:;<=>?')  # of a name
_CONTROLLER = ("method", "dtype", "weights", "sha256")


def encode(values: float | Iterable[float]) -> str:
    """Numbers as hexadecimal floats separated by blanks; every double comes back as it was.

    >>> encode([0.1, -2.0, float("inf")])
    '0x1.999999999999ap-4 -0x1p+1 inf'
    """
    if isinstance(values, float | int):
        return _hex(values)
    return " ".join(map(_hex, values))


def _hex(value: float) -> str:
    mantissa, p, exponent = float(value).hex().partition("p")
    return mantissa.rstrip("0").rstrip(".") + p + exponent if p else mantissa


def decode(text: Any, where: str, count: int | None = None, *, infinite: bool = False) -> list[float]:
    """The numbers of a string that `encode` made; anything that `encode` would not write is refused."""
    if not isinstance(text, str):
        raise FileFormatError(f"{where}: expected hexadecimal floats in a string, got {_kind(text)}.")
    try:
        values = [float.fromhex(token) for token in text.split()]
    except (ValueError, OverflowError):
        token = next(token for token in text.split() if not _is_hex(token))
        raise FileFormatError(f"{where}: expected hexadecimal floats, got {token[:40]!a}.") from None
    if any(map(math.isnan, values)):
        raise FileFormatError(f"{where}: expected numbers, got NaN.")
    if encode(values) != text:
        raise FileFormatError(f"{where}: expected hexadecimal floats that round-trip exactly.")
    if count is not None and len(values) != count:
        raise FileFormatError(f"{where}: expected {count} numbers, got {len(values)}.")
    if not infinite and any(map(math.isinf, values)):
        raise FileFormatError(f"{where}: expected finite numbers, got an infinity.")
    return values


def decode_one(text: Any, where: str, *, infinite: bool = False) -> float:
    """The single number of a string."""
    return decode(text, where, 1, infinite=infinite)[0]


def _is_hex(token: str) -> bool:
    try:
        float.fromhex(token)
    except (ValueError, OverflowError):
        return False
    return True


def digest(certificate: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of everything but the digest itself."""
    body = {key: value for key, value in certificate.items() if key != "digest"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def read(path: str | Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The certificate in a file: complete, of this schema, and unchanged since it was written.

    Raises:
        FileFormatError: The file is missing, too large, truncated, foreign, edited, or holds a number in
            another form than a hexadecimal float.
    """
    certificate = _parse(_text(Path(path), max_bytes), str(path))
    if not isinstance(certificate, dict) or certificate.get("schema") != SCHEMA:
        raise FileFormatError(f"{path} is not a certificate. Write one with `constrained-nn certify RUN`.")
    if integer(certificate.get("version"), "version") != VERSION:
        raise FileFormatError(
            f"{path} has format version {_kind(certificate.get('version'))}; this checker reads version {VERSION}."
        )
    _require_keys(certificate, _TOP, "certificate")
    if certificate["digest"] != digest(certificate):
        raise FileFormatError(f"{path} was changed after it was written: its digest does not match.")
    _validate_head(certificate)
    return certificate


def _text(path: Path, max_bytes: int) -> str:
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileFormatError(f"{path} is not an ordinary file.")
            if status.st_size > max_bytes:
                raise FileFormatError(
                    f"{path} has {status.st_size / 2**20:.0f} MiB; certificates of more than "
                    f"{max_bytes / 2**20:.0f} MiB are refused. Raise --max-megabytes if it is really one."
                )
            return file.read(max_bytes + 1).decode()
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise FileFormatError(f"{path} is a folder; name the certificate in it.") from None
    except UnicodeDecodeError:
        raise FileFormatError(f"{path} is not text.") from None
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}.") from None


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a file; a pipe that nobody writes to as well, so that it can be refused."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _parse(text: str, path: str) -> Any:
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        raise FileFormatError(f"{path} is no certificate: it has more than {MAX_VALUES} values.")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise FileFormatError(f"{path} is damaged: a key occurs twice.")
        return found

    def not_a_number(token: str) -> Any:
        raise FileFormatError(
            f"{path} is no certificate, or damaged: it holds {token[:40]}, not a hexadecimal float."
        )

    try:
        return json.loads(
            text, object_pairs_hook=pairs, parse_constant=not_a_number, parse_float=not_a_number
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileFormatError):
            raise
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise FileFormatError(f"{path} is damaged: it is not valid JSON{where}.") from None


def _validate_head(certificate: dict[str, Any]) -> None:
    text(certificate["command"], "command")
    integer(certificate["seed"], "seed")
    versions = mapping(certificate["versions"], None, "versions")
    for key, value in versions.items():
        text(key, "versions")
        text(value, f"versions.{key!a}")
    task = mapping(certificate["task"], _TASK, "task")
    integer(task["version"], "task.version")
    if integer(task["horizon"], "task.horizon", least=1) and decode_one(task["dt"], "task.dt") <= 0:
        raise FileFormatError("task.dt: expected a positive time.")
    check_names(task)
    controller = mapping(certificate["controller"], _CONTROLLER, "controller")
    for key in _CONTROLLER:
        text(controller[key], f"controller.{key}")
    title(controller["method"], "controller.method", most=8)
    if not sequence(certificate["claims"], "claims"):
        raise FileFormatError("claims: expected at least one claim, got none.")


def check_names(task: Mapping[str, Any]) -> None:
    """Refuses a task whose statements could be misread: by its names, or because two of them are the same."""
    title(task["name"], "task.name")
    for key in ("state", "input"):
        items = [title(item, f"task.{key}", most=6) for item in sequence(task[key], f"task.{key}")]
        words = [item.split()[0] for item in items]  # what follows is the unit
        if len(set(words)) != len(words):
            raise FileFormatError(f"task.{key}: expected each name once.")


def title(value: Any, where: str, *, most: int = 4) -> str:
    """`value` as a name: at most `most` words without the signs of a sentence, which in a statement claim nothing."""
    words = value.split(" ") if isinstance(value, str) else []
    allowed = all(w and w[-1] != "." and set(w) <= ALPHABET - _SIGNS for w in words)
    if not words or not allowed or len(words) > most or len(value) > _LONGEST:
        raise FileFormatError(
            f"{where}: expected a name of at most {most} words and {_LONGEST} characters, of printable ASCII or Greek "
            f"letters without {' '.join(sorted(_SIGNS))}, got {_kind(value)}."
        )
    return value


def spell(value: str) -> str:
    """A string with the escapes of all characters that no file may have."""
    return "".join(c if c in ALPHABET else ascii(c)[1:-1] for c in value)


def mapping(value: Any, keys: Iterable[str] | None, where: str) -> dict[str, Any]:
    """`value` as a dict with exactly these keys (any, if None)."""
    if not isinstance(value, dict):
        raise FileFormatError(f"{where}: expected an object, got {_kind(value)}.")
    if keys is not None:
        _require_keys(value, keys, where)
    return value


def _require_keys(value: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in value:
            raise FileFormatError(f"{where}: '{key}' is missing.")
    for key in value:
        if key not in keys:
            raise FileFormatError(f"{where}: {key[:40]!a} does not belong there.")


def sequence(value: Any, where: str) -> list[Any]:
    """`value` as a list."""
    if not isinstance(value, list):
        raise FileFormatError(f"{where}: expected a list, got {_kind(value)}.")
    return value


def text(value: Any, where: str) -> str:
    """`value` as a string of `ALPHABET`, which reads as it prints."""
    if not isinstance(value, str) or not value or not ALPHABET.issuperset(value):
        raise FileFormatError(
            f"{where}: expected printable text of ASCII and Greek letters, got {_kind(value)}."
        )
    return value


def integer(value: Any, where: str, *, least: int = 0, most: int = 2**63) -> int:
    """`value` as an integer within limits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise FileFormatError(f"{where}: expected an integer, got {_kind(value)}.")
    if not least <= value <= most:
        raise FileFormatError(f"{where}: expected an integer from {least} to {most}, got {_kind(value)}.")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a huge integer"
    if isinstance(value, str):
        return ascii(value[:40])
    return "a list" if isinstance(value, list) else "an object"
