"""What `check` says of a claim, whatever the claim says of itself, and of a whole file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.verify import Finding, Outcome, check, check_claims, conclusion, encode
from tests.evidence.conditions.minimal import KINDS, barrier, edit, finish, outputs, rows, sampled
from tests.evidence.conditions.test_reading import saved


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_a_claim_says_of_itself(kind: Callable[..., Any], tmp_path: Path) -> None:
    certificate = finish(*kind())
    (found,) = check(saved(tmp_path, certificate))
    assert found == check_claims(certificate)[0]
    claim = certificate["claims"][0]
    assert (found.outcome, found.grade, found.statement) == (
        Outcome.HOLDS,
        claim["grade"],
        claim["statement"],
    )
    for changes, words in (
        ({"statement": claim["statement"] + " "}, "the words do not say"),
        ({"assumptions": claim["assumptions"][:-1]}, "assumptions: "),
        ({"verdict": "counterexample"}, "verdict: the data give"),
    ):  # fmt: skip
        (found,) = check_claims(certificate | {"claims": [edit(claim, **changes)]})
        assert found.outcome is Outcome.INCONCLUSIVE
        assert found.text.startswith("damaged: ")
        assert words in found.text
        assert found.statement == ""
    for changes in ({"kind": "magic"}, {"grade": "magic"}, {"kind": 3}, {"more": 1}):
        changed = certificate | {"claims": [claim | changes]}
        with pytest.raises(FileFormatError, match=r"no claim of kind|does not belong"):
            check_claims(changed)
    with pytest.raises(FileFormatError, match="each kind of claim once"):
        check_claims(certificate | {"claims": [claim, claim]})


def test_a_damaged_claim_leaves_the_others() -> None:
    good, bad = finish(*outputs()), finish(*barrier())
    bad["claims"][0]["statement"] = "It is safe."
    claims = [bad["claims"][0], good["claims"][0]]
    assert [f.outcome for f in check_claims(good | {"claims": claims})] == [
        Outcome.INCONCLUSIVE,
        Outcome.HOLDS,
    ]


def test_a_counterexample_is_one_whatever_is_stated() -> None:
    module, claim, certificate = rows()
    bad = finish(module, edit(claim, data__u=encode([-1.0, 0.5, 0.75, 3.0])), certificate)
    bad["claims"][0] |= {"statement": "It is safe.", "verdict": "holds"}
    (found,) = check_claims(bad)
    assert found.outcome is Outcome.COUNTEREXAMPLE
    assert found.text.startswith("counterexample: 1 of 8")
    module, claim, certificate = sampled()
    (found,) = check_claims(finish(module, edit(claim, data__complete="110"), certificate))
    assert (found.outcome, found.text) == (Outcome.INCONCLUSIVE, "inconclusive: 1 of 3 runs did not finish")


def test_conclusions() -> None:
    proof, drawn = (Finding(grade, Outcome.HOLDS, "", "") for grade in ("proof", "sampled"))
    bad, open_ = (
        Finding("proof", outcome, "", "") for outcome in (Outcome.COUNTEREXAMPLE, Outcome.INCONCLUSIVE)
    )
    for findings, accept, wanted in (
        ([proof], (), Outcome.HOLDS), ([proof, drawn], (), Outcome.INCONCLUSIVE),
        ([proof, drawn], ("sampled",), Outcome.HOLDS),
        ([proof, open_], ("sampled",), Outcome.INCONCLUSIVE), ([open_, bad], (), Outcome.COUNTEREXAMPLE),
        ([proof, bad], (), Outcome.COUNTEREXAMPLE),
        ([], (), Outcome.INCONCLUSIVE), ([drawn], (), Outcome.INCONCLUSIVE),
        ([drawn], ("proof",), Outcome.INCONCLUSIVE),
    ):  # fmt: skip
        assert conclusion(findings, frozenset(accept)) is wanted
