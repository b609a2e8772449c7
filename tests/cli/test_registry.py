"""Finding objects by name, `module:OBJECT`, `file.py:OBJECT` and entry point."""

from __future__ import annotations

import pickle
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from constrained_nn import registry
from constrained_nn.errors import FileFormatError, UnknownNameError
from constrained_nn.registry import Kind, find, load_file, loaded_files, names

KIND = Kind("fraction", Fraction, "constrained_nn.fractions")
HALF = Fraction(1, 2)
KNOWN = {"half": HALF, "third": f"{__name__}:THIRD"}
THIRD = Fraction(1, 3)

FILE = """
from dataclasses import dataclass
from fractions import Fraction

class Mine(Fraction):
    pass

class Never(Fraction):
    def __new__(cls):
        raise ArithmeticError("no fraction today")

QUARTER = Mine(1, 4)
WORD = "quarter"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def offer(monkeypatch):
    """Installed packages that offer `names`."""

    def install(**offered):
        entries = EntryPoints(EntryPoint(n, v, KIND.group) for n, v in offered.items())
        monkeypatch.setattr(registry, "entry_points", lambda **wanted: entries.select(**wanted))

    return install


def test_names_modules_and_files(file):
    assert find(KIND, "half", KNOWN) is HALF
    assert find(KIND, "third", KNOWN) is THIRD
    assert find(KIND, f"{__name__}:THIRD", KNOWN) is THIRD
    quarter = find(KIND, f"{file}:QUARTER", KNOWN)
    assert quarter == Fraction(1, 4)
    assert find(KIND, f"{file}:QUARTER", KNOWN) is quarter  # imported once
    assert find(KIND, f"{file}:Mine", KNOWN) == 0  # a class is made without arguments
    assert names(KIND, KNOWN) == ["half", "third"]


def test_entry_points_of_installed_packages(offer):
    offer(mine=f"{__name__}:THIRD", broken="no.such:THING", odd=f"{__name__}:FILE")
    assert find(KIND, "mine", KNOWN) is THIRD
    assert names(KIND, KNOWN) == ["broken", "half", "mine", "odd", "third"]
    with pytest.raises(FileFormatError, match="ModuleNotFoundError: No module named"):
        find(KIND, "broken", KNOWN)
    with pytest.raises(FileFormatError, match="expected a fraction"):
        find(KIND, "odd", KNOWN)


def test_taken_name_is_an_error_that_says_so(offer):
    offer(half=f"{__name__}:THIRD", mine=f"{__name__}:THIRD")
    with pytest.raises(ValueError, match="name 'half' of a fraction is taken: constrained-nn itself"):
        find(KIND, "half", KNOWN)
    with pytest.raises(ValueError, match="is taken"):
        names(KIND, KNOWN)
    assert find(KIND, "mine", KNOWN) is THIRD  # the others are still found


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (
            "hlaf",
            UnknownNameError,
            "unknown fraction 'hlaf'. Did you mean 'half'? Fractions: half, third",
        ),
        ("FILE", UnknownNameError, "is a file. Name the fraction in it"),
        ("FILE:QUATER", UnknownNameError, "unknown object 'QUATER'. Did you mean 'QUARTER'?"),
        ("FILE:WORD", FileFormatError, "expected a fraction (Fraction), got an object of str"),
        ("FILE:Never", FileFormatError, "Never() raises ArithmeticError: no fraction today."),
        ("fractions:Decimal", FileFormatError, "expected a fraction (Fraction), got the class Decimal."),
        ("nowhere.py:X", UnknownNameError, "does not exist"),
        ("no.such.module:X", UnknownNameError, "there is no module no that Python can import"),
        ("fractions:NOTHING", UnknownNameError, "unknown object 'NOTHING'"),
        (":X", FileFormatError, "raises ValueError"),
    ],
)
def test_what_is_not_there_is_one_clear_line(file, spec, error, words):
    with pytest.raises(error) as caught:
        find(KIND, spec.replace("FILE", str(file)), KNOWN)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


BROKEN = ["1 / 0", "import sys; sys.exit(0)", "import no_such_module", "def f(:"]


@pytest.mark.parametrize("code", BROKEN)
def test_file_that_raises_on_import_is_one_line_and_tried_again(file, code):
    file.write_text(code)
    with pytest.raises(FileFormatError, match=r"importing .*mine.py raises \w+") as caught:
        find(KIND, f"{file}:QUARTER", KNOWN)
    assert "\n" not in str(caught.value)
    file.write_text(FILE)
    assert find(KIND, f"{file}:QUARTER", KNOWN) == Fraction(1, 4)


@pytest.mark.once  # in another process
def test_object_of_a_file_unpickles_where_the_file_was_loaded(file):
    quarter = find(KIND, f"{file}:QUARTER", KNOWN)
    assert str(file) in loaded_files()
    code = f"""
import pickle, sys
from constrained_nn.registry import load_file
load_file({str(file)!r})
assert type(pickle.loads({pickle.dumps(quarter)!r})).__name__ == "Mine"
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert load_file(file).QUARTER is quarter
