"""The reproduction driver: tables, resumption, failures, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from constrained_nn import experiments
from constrained_nn.cli import reproduce as cli
from constrained_nn.cli.shell import Command
from constrained_nn.errors import FileFormatError, UnknownNameError
from constrained_nn.experiments import Column, Comparison, Experiment, Published, Row
from constrained_nn.experiments.runner import experiment_page, reproduce


class Walk(Experiment):
    """A sum of pseudo-random numbers in steps, with a checkpoint after each, that can be made to break."""

    name = "walk"
    title = "Random walk"
    source = "Nobody (1900), Table 1"
    columns = (Column("end", "end [m]"), Column("steps", "steps", ".0f"))
    rows = (
        Row("still", "Still", {"end": Published(0.0)}, seeded=False),
        Row("walk", "Walk", {"end": Published(12.5, 0.5)}, note="published with another generator."),
    )
    seeds = (1, 2)
    notes = ("Ten steps.",)

    def __init__(self, budget: int = 10, interrupt_at: int | None = None, broken: int | None = None) -> None:
        self.budget, self.interrupt_at, self.broken = budget, interrupt_at, broken
        self.taken = 0

    def settings(self):
        return {"budget": self.budget}

    def run(self, row, seed, directory: Path):
        if row == "still":
            return {"end": 0.0, "steps": 0}
        if seed == self.broken:
            raise ArithmeticError("the ground gave way")
        saved = directory / "checkpoint.json"
        step, x = json.loads(saved.read_text()) if saved.exists() else (0, 0.1 * seed)
        while step < self.budget:
            if self.taken == self.interrupt_at:
                raise KeyboardInterrupt
            step, x = step + 1, (x * 997.0 + 0.123) % 13.0
            self.taken += 1
            saved.write_text(json.dumps((step, x)))
        return {"end": x, "steps": step}

    def compare(self, reference, progress):
        return [Comparison("the first step", 1.0, float((reference / "first.txt").read_text()), 1e-9)]


def quiet(_: str) -> None:
    pass


def test_table_holds_ours_and_published_side_by_side(tmp_path):
    result = reproduce(Walk(), runs=tmp_path, report=quiet)
    result["command"] = "constrained-nn reproduce walk"
    page = experiment_page(result)
    assert "| method | end [m] | published | steps |" in page
    assert "12.50 ± 0.50" in page
    assert result["seeds"] == [1, 2]
    assert result["machine"]["cores"] >= 1
    assert len(result["commit"]) >= 7
    mean = sum(c["metrics"]["end"] for c in result["cells"] if c["row"] == "walk") / 2
    assert result["rows"][1]["ours"]["end"]["mean"] == pytest.approx(mean)


@pytest.mark.once  # samples of the same functions
@pytest.mark.parametrize("stop", [0, 3, 10, 14, 19])
def test_resumed_run_has_the_same_numbers(tmp_path, stop):
    whole = reproduce(Walk(), runs=tmp_path / "whole", report=quiet)
    with pytest.raises(KeyboardInterrupt):
        reproduce(Walk(interrupt_at=stop), runs=tmp_path / "cut", report=quiet)
    resumed_walk = Walk()
    resumed = reproduce(resumed_walk, runs=tmp_path / "cut", resume=True, report=quiet)
    assert resumed["rows"] == whole["rows"]
    assert [c["metrics"] for c in resumed["cells"]] == [c["metrics"] for c in whole["cells"]]
    assert resumed_walk.taken == 20 - stop  # nothing was computed twice


def test_failed_cell_is_shown_and_tried_again(tmp_path):
    result = reproduce(Walk(broken=2), runs=tmp_path, report=quiet)
    result["command"] = "constrained-nn reproduce walk"
    assert result["rows"][1]["failed"] == [2]
    page = experiment_page(result)
    assert "(1 of 2 failed)" in page
    assert "walk, seed 2: ArithmeticError: the ground gave way" in page
    again = reproduce(Walk(), runs=tmp_path, resume=True, report=quiet)
    assert again["rows"][1]["failed"] == []


def test_median_and_range_of_the_seeds(tmp_path):
    class Middle(Walk):
        center = "median"
        ends = {1: 2.0, 2: float("inf"), 3: 3.0}  # noqa: RUF012

        def run(self, row, seed, directory):
            return {"end": self.ends.get(seed, 1.0), "steps": 10}

    result = reproduce(Middle(), runs=tmp_path, seeds=(1, 2, 3), report=quiet)
    entry = result["rows"][1]["ours"]["end"]
    assert (entry["low"], entry["median"], entry["high"]) == (2.0, 3.0, "inf")
    page = experiment_page(result | {"command": ""})
    assert "| 3.00 (2.00 to inf) |" in page
    assert "| 1.00 |" in page  # a row without seeds
    assert "Median (smallest to largest) over seeds 1, 2, 3." in page


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_value_that_is_not_finite_is_shown(tmp_path, value):
    class Lost(Walk):
        def run(self, row, seed, directory):
            return super().run(row, seed, directory) | ({"end": value} if seed == 2 else {})

    result = reproduce(Lost(), runs=tmp_path, report=quiet)
    assert result["rows"][1]["ours"]["end"]["mean"] == "not finite"
    assert "not finite" in experiment_page(result | {"command": ""})


def test_earlier_work_is_neither_lost_nor_mixed(tmp_path):
    reproduce(Walk(), runs=tmp_path, report=quiet)
    with pytest.raises(FileFormatError, match="--resume"):
        reproduce(Walk(), runs=tmp_path, report=quiet)
    with pytest.raises(FileFormatError, match=r"other settings \(budget\)"):
        reproduce(Walk(budget=11), runs=tmp_path, resume=True, report=quiet)
    assert reproduce(Walk(budget=11), runs=tmp_path, fresh=True, report=quiet)["settings"] == {"budget": 11}


def test_rows_that_are_not_chosen_keep_what_is_there(tmp_path):
    first = reproduce(Walk(), runs=tmp_path, rows=["still"], report=quiet)
    assert first["rows"][1]["not_run"] == [1, 2]
    assert "| Walk | not run | 12.50 ± 0.50 | not run |" in experiment_page(first | {"command": ""})
    reproduce(Walk(), runs=tmp_path, rows=["walk"], seeds=[1], resume=True, report=quiet)
    both = reproduce(Walk(), runs=tmp_path, rows=["still"], resume=True, report=quiet)
    assert both["rows"][0]["ours"]["end"]["count"] == 1
    assert both["rows"][1]["not_run"] == [2]
    assert "(1 of 2 not run)" in experiment_page(both | {"command": ""})


def test_finished_cell_without_a_number_is_not_one_that_was_not_run(tmp_path):
    class Gone(Walk):
        def run(self, row, seed, directory):
            return {"steps": super().run(row, seed, directory)["steps"]}

    reproduce(Gone(), runs=tmp_path, rows=["walk"], seeds=[1], report=quiet)
    result = reproduce(Gone(), runs=tmp_path, rows=["still"], resume=True, report=quiet)
    assert "| Walk (1 of 2 not run) | – | 12.50 ± 0.50 | 10 |" in experiment_page(result | {"command": ""})


def _file(path: Path, result: dict) -> Path:
    path.write_text(json.dumps(result))
    return path


def test_result_file_is_completed_and_not_measured_anew(tmp_path):
    whole = reproduce(Walk(), runs=tmp_path / "whole", report=quiet)
    first = reproduce(Walk(), runs=tmp_path / "first", rows=["walk"], seeds=[2], report=quiet)
    first |= {"commit": "0" * 40, "versions": {"torch": "0"}}
    for cell in first["cells"]:  # as files had it that said only once where they came from
        cell.pop("commit", None), cell.pop("versions", None)
    walk = Walk()
    both = reproduce(
        walk, runs=tmp_path / "second", seeds=[1], earlier=[_file(tmp_path / "a.json", first)], report=quiet
    )
    assert walk.taken == 10  # one seed: the other one is kept
    assert both["seeds"] == [1, 2]
    assert both["rows"] == whole["rows"]
    new, old = (next(c for c in both["cells"] if c["seed"] == s) for s in (1, 2))
    assert (new["commit"], new["versions"]) == (both["commit"], both["versions"])
    assert (old["commit"], old["versions"]) == ("0" * 40, {"torch": "0"})
    assert "same settings: `000000000000`: walk (seed 2)." in experiment_page(both | {"command": ""})
    nothing = reproduce(
        walk, runs=tmp_path / "third", rows=[], earlier=[_file(tmp_path / "b.json", both)], report=quiet
    )
    assert nothing["cells"] == both["cells"]


def test_result_file_that_does_not_fit_is_refused(tmp_path):
    result = reproduce(Walk(), runs=tmp_path / "made", report=quiet)
    other = json.loads(json.dumps(result))
    other["cells"][1]["metrics"]["end"] += 1e-9
    renamed = {**result, "cells": [{**result["cells"][0], "row": "run"}]}
    good = _file(tmp_path / "good.json", result)
    for message, files in {
        r"other settings \(budget\)": [_file(tmp_path / "a.json", result | {"settings": {"budget": 9}})],
        "expected a result of walk, got one of swim": [_file(tmp_path / "b.json", result | {"name": "swim"})],
        "other numbers for row 'walk', seed 1": [good, _file(tmp_path / "c.json", other)],
        "has a row 'run', which walk lacks": [_file(tmp_path / "d.json", renamed)],
        "expected a result as `reproduce` writes it": [_file(tmp_path / "e.json", {"cells": [3]})],
        "cannot be read": [tmp_path / "absent.json"],
    }.items():
        with pytest.raises(FileFormatError, match=message):
            reproduce(Walk(), runs=tmp_path / "new", earlier=files, report=quiet)
    assert not (tmp_path / "new").exists()


def test_damaged_cell_is_run_again(tmp_path):
    whole = reproduce(Walk(), runs=tmp_path, report=quiet)
    (tmp_path / "walk-seed1" / "cell.json").write_text('{"status": "do')
    assert reproduce(Walk(), runs=tmp_path, resume=True, report=quiet)["rows"] == whole["rows"]


def test_bad_requests(tmp_path):
    with pytest.raises(UnknownNameError, match="Rows: still, walk"):
        reproduce(Walk(), runs=tmp_path, rows=["run"], report=quiet)
    with pytest.raises(ValueError, match="expected seeds of at least 0, got -1"):
        reproduce(Walk(), runs=tmp_path, seeds=[3, -1], report=quiet)
    with pytest.raises(ValueError, match="seed 1 twice"):
        reproduce(Walk(), runs=tmp_path, seeds=[1, 2, 1], report=quiet)


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """The command with the walk as its only experiment."""
    walk = Walk()
    monkeypatch.setattr(experiments, "available", lambda: ["walk"])
    monkeypatch.setattr(experiments, "load", lambda name: walk)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command(cls=Command)(cli.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments)), walk


def test_command_writes_both_files(shell, tmp_path):
    run, _ = shell
    done = run("walk", "--seeds", "1:3")
    assert done.exit_code == 0, done.output
    saved = json.loads((tmp_path / "docs/results/walk.json").read_text())
    assert saved["command"] == "constrained-nn reproduce walk --seeds 1:3"
    assert (tmp_path / "docs/results/walk.md").read_text() == experiment_page(saved)


def test_command_compares_with_published_arrays(shell, tmp_path):
    run, _ = shell
    (tmp_path / "first.txt").write_text("1.0")
    assert run("walk", "--reference", ".").exit_code == 0
    (tmp_path / "first.txt").write_text("1.1")
    differs = run("walk", "--resume", "--reference", ".")
    assert differs.exit_code == 3
    assert "differs from the published arrays: the first step" in differs.output
    (tmp_path / "first.txt").unlink()
    impossible = run("walk", "--resume", "--reference", ".")
    assert impossible.exit_code == 2
    assert "not possible: FileNotFoundError" in impossible.output


def test_command_exit_codes(shell):
    run, walk = shell
    for arguments in [
        (),
        ("walk", "--all"),
        ("walk", "--reference", "nowhere"),
        ("walk", "--seeds", "1,x"),
        ("--all", "--earlier", "a.json"),
    ]:
        refused = run(*arguments)
        assert refused.exit_code == 2, refused.output
        assert refused.output.count("\n") == 1
    walk.interrupt_at = 12
    stopped = run("walk")
    assert stopped.exit_code == 130
    assert "--resume" in stopped.output
    walk.interrupt_at, walk.broken = None, 2
    assert run("walk", "--resume").exit_code == 2


def test_unknown_experiment_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'safe-control'"):
        experiments.load("save-control")


def test_experiment_of_a_module_and_of_a_file(tmp_path):
    pfar = experiments.load("pfar")
    assert experiments.load("constrained_nn.experiments.tables.adaptive.pfar:EXPERIMENT") is pfar
    walk = experiments.load(f"{write_walk(tmp_path, 'walk-2')}:EXPERIMENT")
    assert (walk.name, "walk-2" in experiments.available()) == ("walk-2", False)
    taken = write_walk(tmp_path, "pfar")
    with pytest.raises(ValueError, match="its name 'pfar' is taken by another experiment"):
        experiments.load(f"{taken}:EXPERIMENT")


def write_walk(folder: Path, name: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(
        "from tests.evidence.test_reproduce import Walk\n"
        f"class Mine(Walk):\n    name = '{name}'\n"
        "EXPERIMENT = Mine()\n"
    )
    return file
