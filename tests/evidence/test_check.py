"""The checker on its own: what it accepts, what it refuses, how it ends, what it loads."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from scipy.stats import beta
from torch import nn
from typer.testing import CliRunner

from constrained_nn.cli import check as cli
from constrained_nn.cli.shell import run_limited
from constrained_nn.errors import ConvergenceError, FileFormatError, InfeasibleError
from constrained_nn.evidence import replay, write
from constrained_nn.verify import Outcome, check, check_claims, clopper_pearson, decode, digest, encode
from tests.evidence.subjects import TASK, Filtered, Nominal, make, subject


@pytest.fixture
def shell(tmp_path):
    """`constrained-nn check` on a certificate, or on text or bytes in a file."""
    app = typer.Typer()
    app.command()(cli.command)

    def run(content, *options: str):
        file = tmp_path / "certificate.json"
        if isinstance(content, dict):
            write(content | {"digest": digest(content)}, file)
        elif content is not None:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return CliRunner().invoke(app, [str(file), *options])

    return run


def refused(result, words: str) -> None:
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert result.output.count("\n") == 1
    assert "Traceback" not in result.output


# --- numbers ---


def test_hexadecimal_floats_round_trip():
    rng = random.Random(0)
    words = [rng.getrandbits(64) for _ in range(2000)]
    values = [v for v in np.array(words, np.uint64).view(np.float64).tolist() if v == v]
    values += [
        0.0,
        -0.0,
        5e-324,
        2.2250738585072014e-308,
        1.7976931348623157e308,
        float("inf"),
        float("-inf"),
    ]
    back = decode(encode(values), "numbers", infinite=True)
    assert np.array(back).tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize(
    ("events", "runs"), [(0, 1), (0, 1000), (1, 1000), (37, 1000), (999, 1000), (500, 1000), (12, 10**6)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.99, 0.999999])
def test_clopper_pearson_is_scipys_and_never_below(events, runs, confidence):
    ours = clopper_pearson(events, runs, confidence)
    assert ours == pytest.approx(beta.ppf(confidence, events + 1, runs - events), rel=1e-10)
    assert clopper_pearson(runs, runs, confidence) == 1.0


# --- outcomes ---


def test_claims_that_hold(small, shell):
    default = shell(small)
    assert default.exit_code == 2
    assert "proof: holds" in default.output
    assert "sampled: consistent, not repeated" in default.output
    assert "--accept sampled" in default.output
    assert shell(small, "--accept", "sampled").exit_code == 0
    proof_only = small | {"claims": small["claims"][:1]}
    assert shell(proof_only).exit_code == 0


def test_counterexample_is_printed(shell):
    certificate = make(subject(Nominal()))
    assert [claim["verdict"] for claim in certificate["claims"]] == ["counterexample"] * 2
    for options in ((), ("--accept", "sampled"), ("--replay",)):
        result = shell(certificate, *options)
        assert result.exit_code == 3
        assert "proof: counterexample:" in result.output
        assert "60 of 60 runs collide" in result.output
        assert "px = -" in result.output


def test_run_with_a_gap_is_inconclusive(shell):
    class Broken(nn.Module):
        """Gives up at 0.5 s in the left half of the start box."""

        def forward(self, t, x):
            u = TASK.nominal(t, x)
            lost = (torch.as_tensor(t) > 0.1) & (x[..., 0] < -3.0)
            return torch.where(lost.unsqueeze(-1), torch.nan, u)

    certificate = make(subject(Broken()))
    assert certificate["claims"][1]["incomplete"] == 60
    for claim in certificate["claims"]:
        assert claim["verdict"] != "holds"
        alone = shell(certificate | {"claims": [claim]}, "--accept", "sampled")
        assert alone.exit_code == 2, alone.output
        assert "inconclusive" in alone.output


def test_run_without_any_input_is_refused():
    class Lost(nn.Module):
        def forward(self, t, x):
            return torch.full_like(x[..., :2], torch.nan)

    with pytest.raises(ConvergenceError, match="finite inputs"):
        make(subject(Lost()), grades=("proof",))


def test_crossed_bounds_are_a_counterexample(small, shell):
    rows = copy.deepcopy(small["claims"][0])
    upper = decode(rows["data"]["upper"], "upper")
    rows["data"]["lower"] = encode([upper[0] + 1.0, *upper[1:]])
    result = shell(small | {"claims": [rows]})
    assert result.exit_code == 3
    assert "lower" in result.output


def test_float32_run_is_checked_at_its_own_precision(shell):
    certificate = make(subject(Filtered().float(), torch.float32))
    rows = certificate["claims"][0]
    assert float.fromhex(rows["rtol"]) == 1e-4
    assert shell(certificate | {"claims": [rows]}).exit_code == 0


def test_infeasible_element_stops_nobody():
    controller = Filtered()
    inner = controller.condition

    def impossible(t, x):
        set = inner(t, x)
        crossed = torch.where((x[..., :1] > -3.0) & (x[..., :1] < -2.99), set.upper + 1.0, -torch.inf)
        return type(set)(set.A, lower=crossed, upper=set.upper)

    controller.condition = impossible
    with pytest.raises(InfeasibleError):
        controller.eval()(0.0, torch.tensor([[-2.995, 0.0, 0.0, 1.0, 0.0]], dtype=torch.float64))
    certificate = make(subject(controller), starts=TASK.published_starts()["test"][:1], grades=("proof",))
    assert len(certificate["claims"][0]["data"]["counts"]) == 1
    assert controller.layer.on_failure is None


def test_replay_repeats_to_the_last_bit(small):
    for finding in replay(small, subject(Filtered())):
        assert finding.outcome is Outcome.HOLDS
        assert "to the last bit" in finding.text


def test_replay_finds_another_controller_out(small):
    with pytest.raises(ValueError, match="weights"):
        replay(small | {"controller": small["controller"] | {"sha256": "1" * 64}}, subject(Filtered()))
    outcomes = {f.grade: f.outcome for f in replay(small, subject(Nominal()))}
    assert outcomes == {"proof": Outcome.INCONCLUSIVE, "sampled": Outcome.COUNTEREXAMPLE}
    reseeded = small | {"seed": 4}
    assert "other start states" in replay(reseeded, subject(Filtered()))[1].text


# --- files ---


def test_truncated_file(small, shell):
    whole = json.dumps(small)
    for part in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        refused(shell(whole[:part]), "damaged")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"name": "somebody"}', "not a certificate"),
        ("[]", "not a certificate"),
        ("null", "not a certificate"),
        ('{"schema": "constrained-nn/certificate", "version": 2}', "version 2"),
        ('{"schema": "constrained-nn/certificate", "version": 1}', "missing"),
        ('{"schema": NaN}', "NaN"),
        ('{"schema": 1e999}', "not a hexadecimal float"),
        ('{"schema": ' + "9" * 10_000 + "}", "damaged"),
        ('{"schema": "a", "schema": "a"}', "twice"),
        ("[" * 200_000, "damaged"),
        (b"\xff\xfe\x00", "not text"),
        (b"\x00" * 1000, "damaged"),
    ],
)
def test_foreign_file(shell, content, words):
    refused(shell(content), words)


def test_missing_file_folder_and_pipe(shell, tmp_path):
    refused(shell(None), "does not exist")
    (tmp_path / "certificate.json").mkdir()
    refused(shell(None), "is a folder")
    (tmp_path / "certificate.json").rmdir()
    (tmp_path / "certificate.json").symlink_to(os.devnull)
    refused(shell(None), "not an ordinary file")
    (tmp_path / "certificate.json").unlink()
    os.mkfifo(tmp_path / "certificate.json")  # nobody writes to it
    refused(shell(None), "not an ordinary file")


def test_huge_file_is_refused_unread(shell, tmp_path):
    with open(tmp_path / "certificate.json", "wb") as file:
        file.truncate(500 * 2**20)
    start = time.process_time()
    refused(shell(None), "500 MiB")
    assert time.process_time() - start < 1.0


def edit(certificate: dict, path: str, value) -> dict:
    edited = copy.deepcopy(certificate)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    holder = edited
    for parent in parents:
        holder = holder[parent]
    holder[last] = value
    return edited


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("claims.0.rtol", "nan", "NaN"),
        ("claims.0.rtol", "0x1p-3", "not rounding"),
        ("claims.0.rtol", "0x1p+99999", "expected hexadecimal floats"),
        ("claims.0.rtol", "0.5", "round-trip"),
        ("claims.0.rtol", 0, "in a string"),
        ("claims.0.data.u", "inf", "expected"),
        ("claims.0.data.counts", [], "expected the same rows"),
        ("claims.0.data.counts", [-1, 1], "expected an integer"),
        ("claims.0.inputs", True, "got true"),
        ("claims.0.note", "trust me", "does not belong"),
        ("claims.0.kind", "magic", "no claim of kind"),
        ("claims.0.statement", "It is safe.", "do not say"),
        ("claims.0.assumptions", [], "assumptions"),
        ("claims.0.worst", "none", "expected an object"),
        ("claims.1.confidence", "0x1p-1", "confidence"),
        ("claims.1.confidence", "0x1p+0", "confidence"),
        ("claims.1.runs", 0, "from 1"),
        ("claims.1.verdict", "proof", "verdict"),
        ("claims", [], "at least one claim"),
        ("command", "\x1b[2Jholds", "printable"),
        ("task.state", [" "], "printable|blank"),
        ("task.dt", "-0x1p-6", "positive"),
        ("task.horizon", 10**30, "huge"),
        ("controller.dtype", "float16", "float64 or float32"),
    ],
)
def test_edited_file_with_its_digest_recomputed(small, shell, path, value, words):
    result = shell(edit(small, path, value), "--accept", "sampled")
    assert result.exit_code == 2, result.output
    assert any(word in result.output for word in words.split("|")), result.output
    assert "Traceback" not in result.output


NASTY = (
    None, True, -1, 0, 2, 10**30, "", " ", "x", "0x1p+1023", "-0x1p+1023", "0x0.0000000000001p-1022", "inf", "nan",
    [], {}, [0], ["x"], [[]], "float32", "0x1p+1023 " * 5 + "0x1p+1023",
)  # fmt: skip


def paths(value, here=()):
    """Every place in a JSON tree."""
    if here:
        yield here
    for key, child in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from paths(child, (*here, key))


@pytest.mark.once  # samples of the same functions
def test_nothing_in_a_file_brings_the_checker_down(small, tmp_path):
    """Any value in any place ends in a finding or in a clear error, and never in another exception."""
    rng = random.Random(1)
    places = list(paths(small))
    assert len(places) > 60
    for trial in range(400):
        certificate = copy.deepcopy(small)
        for place in rng.sample(places, 1 + trial % 2):
            with contextlib.suppress(KeyError, IndexError, TypeError):
                holder = certificate
                for key in place[:-1]:
                    holder = holder[key]
                holder[place[-1]] = rng.choice(NASTY)
        with contextlib.suppress(FileFormatError):
            for finding in check(write(certificate | {"digest": digest(certificate)}, tmp_path / "c.json")):
                assert finding.text.isprintable()


def test_edited_file(small, tmp_path):
    file = write(small, tmp_path / "certificate.json")
    text = file.read_text()
    file.write_text(text.replace('"seed": 3', '"seed": 5'))
    with pytest.raises(ValueError, match="changed after it was written"):
        check(file)


def test_same_kind_twice_is_refused(small, shell):
    refused(shell(small | {"claims": [small["claims"][0]] * 2}), "once")


# --- the process ---


@pytest.mark.once  # in another process
def test_check_loads_neither_torch_nor_scipy_and_is_quick(tmp_path):
    """On a certificate of the demo's size: 84 recorded runs and 1,000 sampled ones."""
    demo = make(subject(Filtered()), starts=TASK.published_starts()["test"], runs=1000)
    assert demo["claims"][0]["rows"] > 8400
    file = write(demo, tmp_path / "certificate.json")
    code = (
        "import sys, resource\nfrom constrained_nn.cli import main\ntry: main()\nfinally:\n"
        " bad = {'torch', 'scipy', 'control_envs', 'matplotlib', 'cvxpy'} & {m.split('.')[0] for m in sys.modules};"
        " print('loaded:', sorted(bad), 'cpu:', resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check", str(file), "--accept", "sampled"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded: []" in done.stdout
    assert float(done.stdout.rsplit("cpu:", 1)[1]) < 2.0
    # and in the process that does the checking
    arguments = {"file": str(file), "accept": "sampled"}
    lines, _ = run_limited(
        "tests.cli.targets:modules_of_check", arguments, what="modules", seconds=60.0, megabytes=2048
    )
    assert "constrained_nn.verify" in lines
    assert not {"torch", "scipy", "control_envs", "matplotlib", "cvxpy"} & {*lines}
    assert check_claims(demo)[0].outcome is Outcome.HOLDS


def test_check_ends_when_its_time_or_its_memory_is_up(small, shell):
    assert shell(small, "--accept", "sampled", "--seconds", "60").exit_code == 0
    late = shell(small, "--seconds", "1e-6")
    assert late.exit_code == 2
    assert "needs more than the 1e-06 s of --seconds" in late.output
    for seconds in ("0", "-1", "inf", "nan", "1e300"):
        assert shell(small, "--seconds", seconds).exit_code == 2
    large = shell('["' + "x" * 2**24 + '"]', "--memory", "1")
    assert large.exit_code == 2
    assert "needs more than the 1 MiB of --memory" in large.output


def test_file_of_a_great_many_values_is_refused_before_it_is_parsed(shell):
    refused(shell("[" + ",".join(["[]"] * 10**6) + "]"), "more than 1000000 values")
    refused(shell("[" * 10**5), "not valid JSON")
