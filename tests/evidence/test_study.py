"""Studies: paired intervals, failures in plain sight, resumption, bad input."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy.stats import beta
from typer.testing import CliRunner

from constrained_nn.cli import study as cli
from constrained_nn.cli.shell import Command
from constrained_nn.errors import FileFormatError
from constrained_nn.experiments.runner.processes import run_in_processes
from constrained_nn.experiments.study import (
    RowsSpec,
    outcomes,
    read_study,
    run_study,
    study_page,
    write_report,
)
from constrained_nn.experiments.study.report import latex
from constrained_nn.experiments.study.run import study_cells
from constrained_nn.experiments.study.statistics import interval, summarize
from constrained_nn.training import Soft
from tests.evidence import targets

STUDY = """
methods: [hardnet, soft, none, nominal]
tasks: [unicycle-obstacles]
scenarios: [{name: fresh, count: 40, seed: 5}]
seeds: [1, 2, 3]
training: {steps: 6, batch: 20, eval_every: 3, hidden: [16, 16]}
baseline: soft
metrics: [cost, collided]
"""


def quiet(_: str) -> None:
    pass


@pytest.fixture
def spec(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    return read_study(file)


def entries_by(spec, found, metric="cost"):
    return {e.method: e for e in summarize(spec, found) if e.metric == metric}


# --- statistics ---


def test_interval_covers_the_mean_as_often_as_it_says(spec):
    """Runs of a known distribution: seeds and start states both contribute, 95 % intervals of 20 seeds."""
    rng = np.random.default_rng(0)
    hits = 0
    quick = spec.model_copy(update={"resamples": 300})
    for _ in range(200):
        values = rng.normal(size=(20, 1)) + rng.normal(size=(1, 30)) + 0.1 * rng.normal(size=(20, 30))
        mean, low, high = interval(values, quick)
        assert mean == pytest.approx(values.mean())
        hits += low <= 0.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_share_without_spread_gets_the_clopper_pearson_bound(spec):
    assert interval(np.zeros((3, 40)), spec, share=True)[2] == pytest.approx(beta.ppf(0.975, 1, 40))
    assert interval(np.ones((3, 40)), spec, share=True)[1] == pytest.approx(beta.ppf(0.025, 40, 1))
    assert interval(np.zeros((3, 40)), spec) == (0.0, 0.0, 0.0)


def test_differences_are_paired(spec, tmp_path):
    found = run_study(spec, tmp_path, jobs=2, report=quiet, measure=targets.quick)
    by = entries_by(spec, found)
    hardnet = by["hardnet"]
    assert hardnet.mean is not None
    assert hardnet.high - hardnet.low > 10.0  # start states differ much
    np.testing.assert_allclose(hardnet.difference, -2.0, atol=1e-9)  # and not at all between methods
    mean, low, high = by["nominal"].difference  # one cell without seeds against three
    assert low <= mean <= high
    assert mean == pytest.approx(2.0 - 0.1, abs=0.11)


# --- what is missing ---


def test_failed_cells_are_shown_and_tried_again(spec, tmp_path):
    lines: list[str] = []
    found = run_study(spec, tmp_path, jobs=2, report=lines.append, measure=targets.soft_fails)
    assert {o.cell.title: o.error for o in found if o.status == "failed"} == {
        "unicycle-obstacles, soft, seed 2": "ArithmeticError: no way",
        "unicycle-obstacles, none, seed 1": "its process was ended by signal 9",
    }
    by = entries_by(spec, found)
    assert (by["soft"].done, by["soft"].expected) == (2, 3)
    assert not by["soft"].complete
    assert (by["hardnet"].pairs, by["hardnet"].pairs_expected) == (2, 3)  # the baseline lacks a seed
    assert "-2 [-2, -2] (2/3 seeds)" in study_page(spec, summarize(spec, found))
    write_report(spec, found, tmp_path, "constrained-nn study study.yaml")
    for text in ((tmp_path / "table.md").read_text(), (tmp_path / "table.tex").read_text()):
        assert "(2/3 seeds)" in text
        assert "seed 2 failed: ArithmeticError: no way" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert sum(row["status"] == "failed" for row in rows) == 2
    assert sum(row["status"] == "done" for row in rows) == 8 * 40
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")

    again = run_study(spec, tmp_path, jobs=2, report=quiet, measure=targets.quick)
    assert all(o.status == "done" for o in again)
    starts = [(tmp_path / p).read_text() for p in tmp_path.rglob("started")]
    assert sorted(starts) == ["x"] * 9 + [
        "xx"
    ]  # only what had failed ran again (the killed one left no mark)


@pytest.mark.once  # in other processes
def test_diverged_runs_withhold_the_mean(spec, tmp_path):
    found = run_study(spec, tmp_path, jobs=2, report=quiet, measure=targets.one_diverges)
    soft = entries_by(spec, found)["soft"]
    assert soft.mean is None
    assert (soft.diverged, soft.runs) == (3, 120)
    assert "3/120 diverged" in study_page(spec, summarize(spec, found))
    assert entries_by(spec, found)["hardnet"].difference is None


@pytest.mark.once  # in other processes
def test_interruption_keeps_what_is_finished(spec, tmp_path):
    def interrupt(line: str) -> None:
        if "hardnet" in line:
            raise KeyboardInterrupt

    slow = spec.model_copy(update={"methods": spec.methods[:3]})
    with pytest.raises(KeyboardInterrupt):
        run_study(slow, tmp_path, jobs=2, report=interrupt, measure=targets.endless)
    found = outcomes(slow, tmp_path)
    assert [o.status for o in found].count("done") == 1
    page = study_page(slow, summarize(slow, found))
    assert "unfinished" in page
    assert "(1/3 seeds)" in page
    whole = run_study(slow, tmp_path, jobs=2, report=quiet, measure=targets.quick)
    elsewhere = run_study(slow, tmp_path / "other", jobs=1, report=quiet, measure=targets.quick)
    assert latex(slow, summarize(slow, whole)) == latex(slow, summarize(slow, elsewhere))


@pytest.mark.once  # in other processes
def test_cells_of_other_settings_are_not_reused(spec, tmp_path):
    few = spec.model_copy(update={"methods": spec.methods[:1], "seeds": (1,)})
    run_study(few, tmp_path, jobs=1, report=quiet, measure=targets.quick)
    longer = few.model_copy(update={"training": few.training | {"steps": 7}})
    assert [o.status for o in outcomes(longer, tmp_path)] == ["unfinished"]
    run_study(longer, tmp_path, jobs=1, report=quiet, measure=targets.quick)
    assert [o.status for o in outcomes(few, tmp_path)] == ["done"]  # and nothing was overwritten
    (path,) = [p for p in tmp_path.rglob("cell.json") if '"done"' in p.read_text()][:1]
    path.write_text(path.read_text()[:50])
    assert sorted(o.status for s in (few, longer) for o in outcomes(s, tmp_path)) == ["done", "unfinished"]


def test_methods_that_do_not_learn_run_once(spec):
    assert [c.labels["seed"] for c in study_cells(spec, Path()) if "nominal" in c.title] == [None]
    assert len(study_cells(spec, Path())) == 10


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[hardnet, soft", "[hardnett, soft"), "unknown method 'hardnett'. Did you mean 'hardnet'"),
        (("[1, 2, 3]", "[1, 2, 2]"), "seed '2' occurs twice"),
        (("[1, 2, 3]", "[1, -2]"), "seeds.1"),
        (("[1, 2, 3]", "[one]"), "seeds.0"),
        (("[1, 2, 3]", "[]"), "seeds"),
        (("seeds:", "seed:"), "Did you mean 'seeds'"),
        (("[hardnet, soft", "[soft, soft"), "method label 'soft' occurs twice"),
        (("[unicycle-obstacles]", "[unicycle-obstacle]"), "Did you mean 'unicycle-obstacles'"),
        (("steps: 6", "step: 6"), "unknown training setting 'step'. Did you mean 'steps'"),
        (("steps: 6", "steps: many"), "steps"),
        (("steps: 6", "steps: -1"), "steps"),
        (("steps: 6", "learning_rate: .inf"), "learning_rate"),
        (("steps: 6", "max_gradient_norm: -1"), "max_gradient_norm"),
        (("steps: 6", "hidden: [-1]"), "hidden"),
        (("steps: 6", "eval_every: 0"), "eval_every"),
        (("[hardnet, soft", "[{method: soft, options: {weight: .nan}}"), "weight"),
        (("[1, 2, 3]", "[100000000000000000000]"), "seeds.0"),
        (("baseline: soft", "confidence: .nan"), "confidence"),
        (("baseline: soft", "resamples: 1.0e+15"), "resamples"),
        (("count: 40", "count: 1000000000000000"), "count"),
        ((STUDY, "experiment: pfar\nsettings: {seconds: .inf}"), "settings.seconds"),
        ((STUDY, "experiment: pfar\nseeds: [-1]"), "seeds.0"),
        (("count: 40", "number: 40"), "Did you mean"),
        (("count: 40", "count: 0"), "count"),
        (("count: 40, seed: 5", "split: tset"), "Did you mean 'test'"),
        (("count: 40, seed: 5", "seed: 5"), "either count"),
        (("count: 40, seed: 5", "split: test, seed: 5"), "a split has no seed"),
        (("nominal]", "{method: nominal, training: {steps: 2}}]"), "'nominal' learns nothing"),
        ((STUDY, "experiment: lmi-nonnormal\nseeds: [1]"), "no row depends on a seed"),
        (("baseline: soft", "baseline: sotf"), "Did you mean 'soft'"),
        (("[cost, collided]", "[costs]"), "Did you mean 'cost'"),
        (("baseline: soft", "seeds: [4]"), "'seeds' occurs twice"),
        (("methods: [", "methods: [["), "not valid YAML"),
        (("[hardnet, soft", "[{method: soft, options: {wait: 1}}"), "no option 'wait'"),
        ((STUDY, "just words"), "expected a study"),
        ((STUDY, "a: !!python/object/apply:os.getcwd []"), "not valid YAML"),
        ((STUDY, "[" * 5000), "not valid YAML"),
    ],
)
def test_bad_study_is_one_clear_line(tmp_path, change, words):
    file = tmp_path / "study.yaml"
    assert change[0] in STUDY
    file.write_text(STUDY.replace(*change))
    app = typer.Typer()
    app.command(cls=Command)(cli.command)
    result = CliRunner().invoke(app, [str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(FileFormatError, match="does not exist"):
        read_study(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(FileFormatError, match="not text"):
        read_study(tmp_path / "binary.yaml")
    with open(tmp_path / "huge.yaml", "wb") as file:
        file.truncate(500 * 2**20)
    with pytest.raises(FileFormatError, match="at most 1 MiB"):
        read_study(tmp_path / "huge.yaml")


def test_study_of_the_guide_is_one(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "study.md").read_text()
    (tmp_path / "study.yaml").write_text(guide.split("```yaml\n")[1].split("```")[0])
    spec = read_study(tmp_path / "study.yaml")
    assert len(study_cells(spec, Path())) == 3 * 5 + 1
    assert spec.config(spec.methods[2], "unicycle-obstacles", 1).method == Soft(weight=1.0)


ROWS = """
experiment: pfar
rows: [pid, ours-m2]
seeds: [0]
settings: {epochs: 1, steps: 1, tests: 4, seconds: 8.0, test_seconds: 0.5, meta_dt: 0.1}
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("pfar", "pfaar"), "Did you mean 'pfar'"),
        (("ours-m2", "ours-m3"), "pfar has no row 'ours-m3'"),
        (("epochs", "epoch"), "unknown setting 'epoch'. Known: epochs"),
        (("tests: 4", "tests: 0"), "pfar: expected tests whole and at least 1, got 0."),
        (("ours-m2", "pid"), "a row occurs twice"),
        (("settings", "setings"), "Did you mean 'settings'"),
    ],
)
def test_bad_study_of_rows_is_one_clear_line(tmp_path, change, words):
    file = tmp_path / "rows.yaml"
    file.write_text(ROWS.replace(*change))
    with pytest.raises(FileFormatError, match=re.escape(words)):
        read_study(file)


def test_studies_of_the_examples_are_some():
    for file in (Path(__file__).parents[2] / "examples").glob("*.yaml"):
        assert isinstance(read_study(file), RowsSpec)


@pytest.mark.untyped  # its processes are stand-ins
def test_those_that_share_a_training_never_run_at_once():
    """Work `(name, shared)`; the processes are plain records that end when asked."""
    log, alive = [], {}

    class Process:
        def __init__(self, work):
            self.work, (self.sentinel, self.end) = work, os.pipe()
            alive[work] = self
            os.close(self.end)  # readable at once
            self.running, self.exitcode = True, 0

        def is_alive(self):
            return self.running

        def join(self):
            os.close(self.sentinel)

    def start(function, work):
        process = Process(work)
        for other in alive.values():
            if other is not process:
                assert not (other.running and other.work[1] == work[1])
        log.append(work)
        if len([p for p in alive.values() if p.running]) == 2 or len(log) >= 3:
            for p in alive.values():
                p.running = False
        return process

    todo = [("a", 1), ("b", 1), ("c", 2), ("d", 1)]
    nothing = dict.fromkeys(("begin", "end"), lambda *_: None)
    run_in_processes(todo, print, 2, **nothing, group=lambda w: w[1], start=start)
    assert log == [("a", 1), ("c", 2), ("b", 1), ("d", 1)]


# --- the real thing ---


@pytest.mark.untyped  # its processes are beyond the hook
def test_rows_of_an_experiment(tmp_path):
    file, out = tmp_path / "rows.yaml", tmp_path / "out"
    file.write_text(ROWS)
    app = typer.Typer()
    app.command(cls=Command)(cli.command)
    result = CliRunner().invoke(app, [str(file), "--out", str(out), "--jobs", "2"])
    assert result.exit_code == 0, result.output
    assert "[2/2] pfar: control-oriented, M = 2, seed 0: K 1, G 1 0.2" in result.output
    assert (out / "pfar.png").stat().st_size > 1000
    table = (out / "pfar.md").read_text()
    assert "| PID | 0.2" in table
    assert "M = 5" not in table
    again = CliRunner().invoke(app, [str(file), "--out", str(out), "--jobs", "2"])
    assert "2 of 2 cells are finished already" in again.output
    assert again.exit_code == 0
    file.write_text(ROWS + f"earlier: [{out / 'pfar.json'}]\n")
    kept = CliRunner().invoke(app, [str(file), "--out", str(tmp_path / "new"), "--jobs", "1"])
    assert "2 finished cells are kept from pfar.json" in kept.output
    assert (tmp_path / "new" / "pfar.md").read_text().splitlines()[:8] == table.splitlines()[:8]
    file.write_text(file.read_text().replace("tests: 4", "tests: 5"))
    refused = CliRunner().invoke(app, [str(file), "--out", str(tmp_path / "new"), "--jobs", "1"])
    assert refused.exit_code == 2
    assert "other settings (tests)" in refused.output
    unfinished = ROWS.replace("steps: 1", "steps: 2")  # other settings: other cells
    file.write_text(unfinished)
    other = CliRunner().invoke(app, [str(file), "--out", str(out), "--report-only"])
    assert other.exit_code == 2
    assert "| PID | not run |" in other.output


@pytest.mark.untyped  # its processes are beyond the hook
def interrupt_after_the_first_cell(command, environment) -> tuple[str, str]:
    """What a study prints that is ended by Ctrl-C as soon as its first cell is done."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a background job inherits it ignored
    )
    assert process.stdout is not None
    assert "[1/2] unicycle-obstacles, hardnet" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130, output + errors
    return output, errors


def test_interrupted_command_goes_on(tmp_path):
    """Real training in real processes, ended by Ctrl-C after the first cell."""
    file = tmp_path / "study.yaml"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
    output = errors = ""
    command = []
    for steps in (60, 240, 960):  # the second cell is to outlast the Ctrl-C, on a busy machine too
        file.write_text(
            "methods: [hardnet, soft]\ntasks: [unicycle-obstacles]\nscenarios: [{name: s, count: 4}]\n"
            f"seeds: [1]\ntraining: {{steps: {steps}, batch: 5, eval_every: 30, hidden: [8]}}\n"
        )
        out = str(tmp_path / f"out-{steps}")
        command = [sys.executable, "-m", "constrained_nn", "study", str(file), "--out", out]
        output, errors = interrupt_after_the_first_cell([*command, "--jobs", "1"], environment)
        if "interrupted: 2 of 2" not in errors:
            break
    assert "interrupted: 1 of 2 cells are finished and kept" in errors
    assert "Traceback" not in errors
    assert "| soft | unfinished |" in output
    done = subprocess.run(
        [*command, "--jobs", "1"], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 2 cells are finished already" in done.stdout
    assert "[2/2]" in done.stdout
