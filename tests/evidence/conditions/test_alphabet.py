"""Every character that reaches a statement or a report prints as itself, and as nothing that speaks."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import digest, read
from constrained_nn.verify.file import spell, text, title
from constrained_nn.verify.file.format import ALPHABET
from tests.evidence.conditions.minimal import barrier, edit, finish, verdict

STRANGE = (
    "\u2800", "\uff0c", "\u3002", "\u3164", "\u00a0", "\u2003", "\u200b", "\u202e", "\u0301", "\u00ad", "\uff1a",
    "\uff1d", "\u2264", "\u2265", "\u2024", "\u3001", "\u037e", "\u00b7", "\u0430", "\u03bf", "\u039f", "\t", "\n",
    "\u2013", "\u2014", "\U0001f600", "\u115f", "\u1160", "\uffa0",
)  # fmt: skip


def saved(tmp_path: Path, certificate: dict[str, Any]) -> dict[str, Any]:
    """What is read of a file with this certificate and its digest."""
    file = tmp_path / "c.json"
    file.write_text(json.dumps(certificate | {"digest": digest(certificate)}))
    return read(file)


@pytest.mark.parametrize("sign", STRANGE)
def test_strange_characters_are_refused_everywhere(sign: str, tmp_path: Path) -> None:
    certificate = finish(*barrier())
    assert saved(tmp_path, certificate)["digest"] == digest(certificate)
    words = f"tank{sign}every state is safe"
    for place in (
        "task__name", "task__state", "task__input", "command", "controller__method", "controller__weights",
        "controller__sha256", "versions",
    ):  # fmt: skip
        value = {"versions": {"python": words}}.get(
            place, [words] if place in ("task__state", "task__input") else words
        )
        with pytest.raises(FileFormatError, match=r"expected (a name|printable text)"):
            saved(tmp_path, edit(certificate, **{place: value}))
    with pytest.raises(FileFormatError, match="expected printable text"):
        saved(tmp_path, edit(certificate, versions={words: "1"}))
    module, claim, _ = barrier()
    for place in ("name", "unit"):
        assert "refused" in verdict(
            module, edit(claim, **{f"barriers__0__{place}": f"a{sign}b"}), certificate
        )


def test_alphabet_is_ascii_and_letters_that_look_like_no_other() -> None:
    assert len(ALPHABET) == 95 + 4 + 33
    for c in ALPHABET:
        name = unicodedata.name(c, "")
        assert " " <= c <= "~" or name.startswith("GREEK") or c in "°µ²³"
    # GREEK SMALL LETTER OMICRON and the capitals that print as Latin ones
    assert not ALPHABET & set("οΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")


def test_names_that_people_use() -> None:
    for name in (
        "x1",
        "x1 [m]",
        "tau2 [N m]",
        "θ [rad]",
        "ω [rad/s]",
        "T_in [°C]",
        "a [m/s²]",
        "p_x^2",
        "flow-rate",
        "50%",
    ):
        assert title(name, "name") == name
    for name in ("", " ", "a  b", "a ", "a.", "a. b", "a b c d e", "x" * 61, None, 3, ["a"]):
        with pytest.raises(FileFormatError, match="expected a name of at most 4 words and 60 characters"):
            title(name, "name")
    assert title("a b c d", "name") == "a b c d"
    assert title("x" * 60, "name") == "x" * 60
    assert title("a b c d e f", "name", most=6) == "a b c d e f"
    for sign in '!"(),:;<=>?':
        with pytest.raises(FileFormatError, match="expected a name"):
            title(f"a{sign}b", "name")
        assert text(f"a{sign}b", "text") == f"a{sign}b"
    for value in ("", None, 3, ["a"]):
        with pytest.raises(FileFormatError, match="expected printable text"):
            text(value, "text")


def test_producers_spell_what_may_not_stand_in_a_file() -> None:
    assert spell("run θ/a b") == "run θ/a b"
    assert spell("m\u00fcller\n\u2800") == "m\\xfcller\\n\\u2800"


def test_quantities_are_told_apart_by_their_names(tmp_path: Path) -> None:
    certificate = finish(*barrier())
    with pytest.raises(FileFormatError, match="each name once"):
        saved(tmp_path, edit(certificate, task__state=["x [m]", "x [rad]"]))
    with pytest.raises(FileFormatError, match="at most 6 words"):
        saved(tmp_path, edit(certificate, task__state=["x holds for all of the states"]))
    with pytest.raises(FileFormatError, match="at most 8 words"):
        saved(tmp_path, edit(certificate, controller__method="a method that proves all of the states safe"))
