"""The page about a certificate: what was confirmed, and never more."""

from __future__ import annotations

import copy
import re

import pytest
import typer
from typer.testing import CliRunner

from constrained_nn.cli import report as cli
from constrained_nn.cli.shell import Command
from constrained_nn.evidence import write
from constrained_nn.evidence.claims import certify_barrier
from constrained_nn.verify import decode, digest, encode
from control_envs.tasks import DoubleIntegratorTask


@pytest.fixture
def shell(tmp_path):
    app = typer.Typer()
    app.command(cls=Command)(cli.command)

    def run(certificate: dict, *options: str) -> tuple[int, str]:
        file = tmp_path / "c.json"
        write(certificate | {"digest": digest(certificate)}, file)
        result = CliRunner().invoke(app, [str(file), *options])
        page = tmp_path / "c.html"
        return result.exit_code, page.read_text() if page.exists() else result.output

    return run


def test_page_shows_what_was_confirmed(small, shell) -> None:
    code, page = shell(small)
    assert code == 0
    assert page.count("<img") == 3
    assert "4 recorded runs" in page
    assert "are not proofs" in page
    assert "Every claim of this file is proved" not in page
    for words in (
        small["digest"],
        small["claims"][0]["assumptions"][0].split("'")[0],
        "constrained-nn check c.json",
        "python constrained-nn-check.pyz c.json",
    ):
        assert words in page
    # self-contained: nothing is fetched, nothing runs
    assert not re.search(r"<script|<link|https?://", page)


def test_proofs_alone_are_called_proved(shell) -> None:
    proof = certify_barrier(DoubleIntegratorTask(), command="test")
    code, page = shell(proof)
    assert code == 0
    assert "Every claim of this file is proved" in page
    assert "So S is never left" in page
    assert page.count("<img") == 1


def test_a_refuted_claim_is_not_shown_as_holding(small, shell) -> None:
    rows = small["claims"][0]
    upper = decode(rows["data"]["upper"], "upper")
    rows["data"]["lower"] = encode([upper[0] + 1.0, *upper[1:]])
    code, page = shell(small | {"claims": [rows]})
    assert code == 3
    assert "refuted: a counterexample" in page
    assert "confirmed by the checker" not in page
    assert rows["statement"] not in page
    assert "<img" not in page


def test_a_claim_that_says_too_much_is_not_shown(small, shell) -> None:
    small["claims"][1]["statement"] = "All is <b>well</b>."
    code, page = shell(small)
    assert code == 2
    assert "well" not in page
    assert "Not every claim" in page


def test_text_from_the_file_is_escaped(small, shell) -> None:
    other = copy.deepcopy(small)
    other["command"] = "<script>alert(1)</script>"
    code, page = shell(other)
    assert code == 0
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_damaged_files_and_bad_targets(small, shell, tmp_path) -> None:
    assert shell(small, "--out", str(tmp_path / "c.json"))[0] == 2
    small.pop("claims")
    code, words = shell(small)
    assert code == 2
    assert "claims" in words
