"""The file: its numbers, programs and covers are read exactly, or refused with the place."""

from __future__ import annotations

import json
import math
import os
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import (
    decode,
    decode_one,
    digest,
    encode,
    leaves,
    read,
)
from constrained_nn.verify.arithmetic import parse
from constrained_nn.verify.arithmetic import program as programs
from constrained_nn.verify.cover import (
    Leaf,
    check_boxes,
    check_most,
    describe_box,
    describe_point,
    describe_unproved,
    points,
)
from constrained_nn.verify.file import format as format_
from tests.evidence.conditions.minimal import edit, finish, outputs, program

ONE = encode(1.0)


# --- numbers ---


def test_numbers_come_back_bit_by_bit() -> None:
    rng = random.Random(0)
    values = [math.ldexp(rng.uniform(-1, 1), rng.randint(-1080, 1023)) for _ in range(200)]
    values += [0.0, -0.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 1.0, 4096.0]
    found = decode(encode(values), "x", infinite=True)
    assert [v.hex() for v in found] == [v.hex() for v in values]
    assert decode("", "x") == []
    assert decode_one("0x1.8p+1", "x") == 3.0
    assert encode(3) == "0x1.8p+1"
    assert encode([1.0, 1.5]) == "0x1p+0 0x1.8p+0"
    assert decode("0x1p+0 0x1p+1", "x", 2) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (1.0, "in a string, got an object"), (3, "got 3"), (None, "got null"), (True, "got true"), ([], "got a list"),
        ("one", "expected hexadecimal floats, got 'one'"), ("0x1p+0 two", "got 'two'"),
        ("0x1p+99999", "got '0x1p+99999'"),
        ("nan", "got NaN"), ("1.0", "round-trip"), ("0x1p+0  0x1p+0", "round-trip"), ("0x1.0p+0", "round-trip"),
        ("inf", "finite numbers, got an infinity"), ("-inf", "finite"),
        ("0x1p+0 0x1p+0", "expected 1 numbers, got 2"), ("", "got 0"),
    ],
)  # fmt: skip
def test_other_spellings_are_refused(text: Any, words: str) -> None:
    with pytest.raises(FileFormatError, match=r"^place: .*") as error:
        decode(text, "place", 1)
    assert words in str(error.value)
    if text == "inf":
        assert decode(text, "place", 1, infinite=True) == [math.inf]


# --- values ---


def test_values_of_json() -> None:
    assert format_.mapping({"a": 1}, None, "x") == format_.mapping({"a": 1}, ("a",), "x") == {"a": 1}
    assert format_.sequence([1], "x") == [1]
    assert format_.integer(5, "x", least=5, most=5) == 5
    for call, words in (
        (lambda: format_.mapping([], None, "x"), "x: expected an object, got a list"),
        (lambda: format_.mapping({}, ("a",), "x"), "x: 'a' is missing"),
        (lambda: format_.mapping({"a": 1, "b": 2}, ("a",), "x"), "x: 'b' does not belong there"),
        (lambda: format_.sequence({}, "x"), "x: expected a list, got an object"),
        (lambda: format_.integer(True, "x"), "expected an integer, got true"),
        (lambda: format_.integer(False, "x"), "got false"),
        (lambda: format_.integer("1", "x"), "got '1'"),
        (lambda: format_.integer(4, "x", least=5), "from 5"),
        (lambda: format_.integer(6, "x", most=5), "from 0 to 5, got 6"),
        (lambda: format_.integer(-1, "x"), "from 0"),
        (lambda: format_.integer(10**30, "x"), "a huge integer"),
        (lambda: format_.integer(-(10**30), "x"), "a huge integer"),
        (lambda: format_.integer(2**63 + 1, "x"), "got 9223372036854775809"),
    ):
        with pytest.raises(FileFormatError) as error:
            call()
        assert words in str(error.value)


# --- the file ---


def whole() -> dict[str, Any]:
    return finish(*outputs())


def saved(tmp_path: Path, certificate: Any, *, true_digest: bool = True) -> Path:
    file = tmp_path / "c.json"
    if true_digest:
        certificate = certificate | {"digest": digest(certificate)}
    file.write_text(json.dumps(certificate))
    return file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "other"}, "is not a certificate"),
        ({"version": 2}, "has format version 2; this checker reads version 1"),
        ({"version": "1"}, "expected an integer"), ({"seed": -1}, "seed: "),
        ({"seed": 1.5}, "not a hexadecimal float"),
        ({"more": 1}, "'more' does not belong"), ({"command": ""}, "command: "), ({"versions": []}, "versions: "),
        ({"versions": {"a": 3}}, "versions.'a'"), ({"task": 3}, "task: "), ({"task__version": -1}, "task.version"),
        ({"task__dt": encode(0.0)}, "task.dt: expected a positive time"),
        ({"task__dt": encode(-1.0)}, "positive time"),
        ({"task__horizon": 0}, "from 1"), ({"task__state": "x"}, "task.state: expected a list"),
        ({"controller__method": ""}, "controller.method"), ({"controller__dtype": 3}, "controller.dtype"),
        ({"claims": []}, "at least one claim"),
        ({"claims": {}}, "expected a list"),
    ],
)  # fmt: skip
def test_heads_that_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError) as error:
        read(saved(tmp_path, edit(whole(), **changes)))
    assert words in str(error.value)


def test_files_that_are_refused(tmp_path: Path) -> None:
    good = saved(tmp_path, whole())
    assert read(good)["digest"] == digest(whole())
    text = good.read_text()
    assert read(good, max_bytes=len(text))
    file = tmp_path / "other.json"

    def refused(words: str, **options: Any) -> None:
        with pytest.raises(FileFormatError) as error:
            read(file, **options)
        assert words in str(error.value)

    refused("does not exist")
    for content, words in (
        (text[:-1], "not valid JSON at character"), (text.replace('"seed": 0', '"seed": 5'), "was changed after"),
        (text.replace('"seed": 0', '"seed": 0, "seed": 0'), "a key occurs twice"),
        (text.replace('"seed": 0', '"seed": NaN'), "holds NaN"),
        (text.replace('"seed": 0', '"seed": 1e5'), "holds 1e5"), ("[" * 100_000, "not valid JSON"),
        ("[]", "is not a certificate"),
        ("3", "is not a certificate"),
    ):  # fmt: skip
        file.write_text(content)
        refused(words)
    file.write_text(text)
    refused("MiB", max_bytes=len(text) - 1)
    with open(file, "wb") as large:
        large.truncate(5 * 2**20)
    refused("has 5 MiB; certificates of more than 3 MiB are refused", max_bytes=3 * 2**20)
    file.write_bytes(b"\xff\xfe")
    refused("is not text")
    file.unlink()
    file.mkdir()
    refused("is a folder")
    file.rmdir()
    os.mkfifo(file)
    refused("is not an ordinary file")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read(tmp_path / ("x" * 300))
    bare = whole()
    del bare["seed"]
    file = saved(tmp_path, bare)
    refused("'seed' is missing")


# --- programs ---


def test_sizes_of_programs() -> None:
    code = [
        ["const", encode([1.0, 2.0])], ["join", 0, 1, 0], ["take", 2, [7, 0]],
        ["affine", 3, encode([1.0] * 6), encode([0.0] * 3)],
        ["power", 4, 2], ["sum", 5], ["mul", 6, 5], ["add", 7, 6], ["sub", 8, 7], ["sin", 9],
    ]  # fmt: skip
    found = parse(program(3, *code), "f", inputs=3, outputs=3)
    assert [i.size for i in found.code] == [2, 8, 2, 3, 3, 1, 3, 3, 3, 3]
    assert found.code[3].numbers == (1.0,) * 6
    assert found.code[3].offset == (0.0,) * 3
    assert parse(program(4), "f").outputs == 4


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ([["magic", 0]], "no such instruction"), ([[]], "no such instruction"), ([[3]], "no such instruction"),
        ([["sin"]], "takes 1 arguments, got 0"),
        ([["sin", 0, 0]], "takes 1 arguments, got 2"), ([["sin", 1]], "from 0 to 0"), ([["sin", -1]], "from 0"),
        ([["add", 0]], "takes 2"),
        ([["add", 0, 1]], "from 0 to 0"), ([["const", ""]], "at least one component"),
        ([["const", "inf"]], "finite"), ([["join"]], "at least one component"),
        ([["take", 0, []]], "at least one component"), ([["take", 0, [2]]], "from 0 to 1"),
        ([["take", 0, 1]], "expected a list"),
        ([["affine", 0, encode([1.0] * 3), ONE]], "expected 2 numbers, got 3"),
        ([["affine", 0, "", ""]], "at least one component"),
        ([["power", 0, 1]], "from 2 to 64"), ([["power", 0, 65]], "from 2 to 64"), ([["sum", 0, 0]], "takes 1"),
        ([["const", encode([1.0] * 3)], ["add", 0, 1]], "'add' does not join 2 and 3"),
        ([["const", encode([1.0] * 3)], ["add", 1, 0]], "'add' does not join 3 and 2"),
        ("x", "expected a list"), ([3], "expected a list"),
    ],
)  # fmt: skip
def test_programs_that_are_refused(code: Any, words: str) -> None:
    with pytest.raises(FileFormatError, match=r"^f") as error:
        parse({"inputs": 2, "code": code}, "f")
    assert words in str(error.value)


def test_limits_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileFormatError, match="a program of 3 inputs, got 2"):
        parse(program(2), "f", inputs=3)
    with pytest.raises(FileFormatError, match="a program of 1 outputs, got 2"):
        parse(program(2), "f", outputs=1)
    with pytest.raises(FileFormatError, match="from 1"):
        parse(program(0), "f")
    monkeypatch.setattr(programs, "MOST_INSTRUCTIONS", 3)
    assert parse(program(2, *[["sin", 0]] * 3), "f")
    with pytest.raises(FileFormatError, match="at most 3 instructions"):
        parse(program(2, *[["sin", 0]] * 4), "f")
    monkeypatch.setattr(programs, "MOST_COMPONENTS", 8)
    assert parse(program(2, *[["sin", 0]] * 3), "f")
    with pytest.raises(FileFormatError, match="at most 8 components in all"):
        parse(program(3, ["sin", 0], ["sin", 0]), "f")
    assert parse(program(2, ["power", 0, 64], ["power", 0, 2]), "f").outputs == 2
    assert parse(program(3, ["const", ONE], ["add", 0, 1]), "f").outputs == 3


# --- covers ---


def test_leaves_fill_the_box() -> None:
    """Volumes add up, in order, and every leaf is what the bisections say."""
    rng = random.Random(1)

    def tree(depth: int) -> str:
        if depth == 0 or rng.random() < 0.2:
            return rng.choice("ab")
        return rng.choice("01") + tree(depth - 1) + tree(depth - 1)

    for _ in range(30):
        text = tree(6)
        found = list(leaves(text, [-1.0, 0.0], [1.0, 4.0], "ab", "cover"))
        volumes = [
            (Fraction(v.upper[0]) - Fraction(v.lower[0])) * (Fraction(v.upper[1]) - Fraction(v.lower[1]))
            for v in found
        ]
        assert sum(volumes) == 8
        assert "".join(leaf.label for leaf in found) == "".join(c for c in text if c in "ab")
    assert list(leaves("1a0ba", [-1.0, 0.0], [1.0, 4.0], "ab", "c")) == [
        Leaf("a", (-1.0, 0.0), (1.0, 2.0)), Leaf("b", (-1.0, 2.0), (0.0, 4.0)), Leaf("a", (0.0, 2.0), (1.0, 4.0)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ("", "ends early; 1 boxes"), ("0", "ends early; 2 boxes"), ("0a", "ends early; 1 boxes"),
        ("aa", "goes on after its end, at character 1"),
        ("0aaa", "at character 3"), ("c", "'c' at character 0 is no axis and no leaf"),
        ("2aa", "'2' at character 0"), ("/aa", "is no axis"), ("\x00", "is no axis"),
    ],
)  # fmt: skip
def test_covers_that_are_refused(tree: str, words: str) -> None:
    with pytest.raises(FileFormatError) as error:
        list(leaves(tree, [0.0, 0.0], [1.0, 1.0], "ab", "cover"))
    assert words in str(error.value)


def test_limits_of_covers() -> None:
    tiny = [0.0], [5e-324]
    for lower, upper in (tiny, ([1.0], [1.0]), ([1.0], [math.nextafter(1.0, 2.0)])):
        with pytest.raises(FileFormatError, match="no double between the ends, at character 0"):
            list(leaves("0aa", lower, upper, "a", "cover"))
    assert len(list(leaves("9aa", [0.0] * 10, [1.0] * 10, "a", "cover"))) == 2
    with pytest.raises(FileFormatError, match="at most 10 axes, got 11"):
        list(leaves("a", [0.0] * 11, [1.0] * 11, "a", "cover"))
    deep = "0" * 400 + "a" * 401
    assert len(list(leaves(deep, [0.0], [1.0], "a", "cover"))) == 401
    assert len(list(leaves("0a" * 400 + "a", [-1.0], [0.0], "a", "cover"))) == 401
    with pytest.raises(FileFormatError, match="'0' at character 800 is no axis"):
        list(leaves("0a" * 401 + "a", [-1.0], [0.0], "a", "cover"))
    with pytest.raises(FileFormatError, match="at character 400"):
        list(leaves("0" * 401 + "a" * 402, [0.0], [1.0], "a", "cover"))


def test_words_about_boxes() -> None:
    leaf = Leaf("a", (0.0, 2.0), (1.0, 4.0))
    assert list(points(leaf)) == [(0.5, 3.0), (0.0, 2.0), (0.0, 4.0), (1.0, 2.0), (1.0, 4.0)]
    assert describe_unproved(3, leaf) == "box 3, from [0.0, 2.0] to [1.0, 4.0], is not proved"
    assert describe_box(["x [m]", "y"], [0.0, 2.0], [1.0, 4.0]) == "0.0 <= x <= 1.0, 2.0 <= y <= 4.0"
    assert describe_point(["x [m]", "y"], [0.5, -1.0]) == "x = 0.5, y = -1.0"


def test_stated_numbers_of_covers() -> None:
    check_boxes({"boxes": 3}, 3)
    with pytest.raises(FileFormatError, match="the claim says 4, the cover has 3"):
        check_boxes({"boxes": 4}, 3)
    for found in (-2.0, 0.5, 2.0):
        for stated, room, fine in (
            (found, 0.0, True), (found + 0.9e-6 * abs(found), 0.0, True), (found + 1.1e-6 * abs(found), 0.0, False),
            (math.nextafter(found, -9), 0.0, False), (found + 1e-6 * (abs(found) + 0.9), 1.0, True),
            (found + 1e-6 * (abs(found) + 1.1), 1.0, False),
        ):  # fmt: skip
            if fine:
                check_most({"worst": encode(stated)}, "worst", found, room=room)
            else:
                with pytest.raises(FileFormatError, match="worst: the claim says"):
                    check_most({"worst": encode(stated)}, "worst", found, room=room)
