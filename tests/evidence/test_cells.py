"""The driver of cells: what is finished, what failed, what is picked up again."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from constrained_nn.errors import FileFormatError
from constrained_nn.experiments.runner import Cell, load, perform, read_outcome, reproduce, run_cells
from constrained_nn.experiments.study import read_study
from constrained_nn.experiments.study.run import study_cells
from constrained_nn.files import write_values
from constrained_nn.registry import load_file


def work(behavior: str, folder: Path) -> dict:
    """Stands for the work of a cell."""
    (folder / "begun").write_text("")
    if behavior == "fail":
        raise ArithmeticError("the ground\ngave way")
    if behavior == "interrupt":
        raise KeyboardInterrupt
    if behavior == "end":
        os.kill(os.getpid(), signal.SIGTERM)
    return {"value": behavior}


def make(folder: Path, name: str, behavior: str = "fine", settings: object = 1) -> Cell:
    return Cell(name, {"name": name}, {"budget": settings}, folder / name, partial(work, behavior))


def quiet(_: str) -> None:
    pass


def test_failures_are_results_and_finished_cells_are_kept(tmp_path):
    lines: list[str] = []
    cells = [make(tmp_path, "a"), make(tmp_path, "b", "fail"), make(tmp_path, "c")]
    found = run_cells(cells, report=lines.append, describe=lambda o: o.values["value"])
    assert [o.status for o in found] == ["done", "failed", "done"]
    assert found[1].error == "ArithmeticError: the ground gave way"
    assert lines[1] == "[1/3] a: fine (0 s)"
    (tmp_path / "a" / "begun").unlink()
    mended = [make(tmp_path, "a"), make(tmp_path, "b"), make(tmp_path, "c")]
    assert all(o.status == "done" for o in run_cells(mended, report=lines.append))
    assert "2 of 3 cells are finished already" in lines
    assert not (tmp_path / "a" / "begun").exists()


@pytest.mark.parametrize("how", ["interrupt", "end"])
def test_interruption_keeps_what_is_finished(tmp_path, how):
    """Ctrl-C and the termination signal alike; its handler is put back."""
    before = signal.getsignal(signal.SIGTERM)
    cells = [make(tmp_path, "a"), make(tmp_path, "b", how), make(tmp_path, "c")]
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, report=quiet)
    assert [read_outcome(c).status for c in cells] == ["done", "unfinished", "unfinished"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_result_of_other_settings_or_damaged_is_none(tmp_path):
    perform(make(tmp_path, "a"))
    assert read_outcome(make(tmp_path, "a")).status == "done"
    assert read_outcome(make(tmp_path, "a", settings=2)).status == "unfinished"
    file = tmp_path / "a" / "cell.json"
    file.write_text(file.read_text().replace("fine", "good"))
    assert read_outcome(make(tmp_path, "a")).status == "unfinished"


def test_another_engine_may_run_the_cells(tmp_path):
    """An engine calls `perform` wherever it likes; a worker that dies is a failure that says how."""

    def launch(cells, begin, end):
        for cell in cells:
            begin(cell)
            if cell.title == "b":
                end(cell, "was lost with its node")
            else:
                perform(cell)
                end(cell, "")

    cells = [make(tmp_path, "a"), make(tmp_path, "b")]
    found = run_cells(cells, report=quiet, launch=launch)
    assert [(o.status, o.error) for o in found] == [
        ("done", ""),
        ("failed", "its process was lost with its node"),
    ]


STUDY = """
methods: [hardnet, {method: soft, label: 'soft, strong', options: {weight: 1.0}}, nominal]
tasks: [unicycle-obstacles]
scenarios: [{name: fresh, count: 40, seed: 5}, {name: published, split: test}]
seeds: [1, 2]
training: {steps: 6, batch: 20, eval_every: 3, hidden: [16, 16]}
"""
# as version 0.1.0 of December 2026 wrote them
FOLDERS = {
    "nominal-3e22f9e6/once": "98f23df1c49485e668460df8fab9c4c405b0e0c45aad84fe3ea3ab9d7d76a661",
    "hardnet-8658fde6/seed1": "e1c96ea4641344707e738397c66492def1355f2974d025d7fce52849439350e7",
    "soft__strong-7ba05442/seed1": "090ffe9a515d102ab096f0e541fa9de8c971c062b1db44980d28410ba9af44bf",
    "hardnet-8658fde6/seed2": "0a96119a70c44d17ea8f7de7b5408d4e60c4f1cb37edfc7994652527113cb147",
    "soft__strong-7ba05442/seed2": "ad0dcbfa28e1a98a3870eacd23ffc8936dffe527f7140c8719fbd2cf84382cfc",
}


def test_folders_of_earlier_studies_are_resumed(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    cells = study_cells(read_study(tmp_path / "study.yaml"), tmp_path)
    home = tmp_path / "cells" / "unicycle-obstacles"
    assert {str(c.folder.relative_to(home)): c.fingerprint for c in cells} == FOLDERS
    for folder, fingerprint in FOLDERS.items():
        old = {"fingerprint": fingerprint, "status": "done", "scenarios": {}}
        write_values(home / folder / "cell.json", old)
    assert all(read_outcome(cell).status == "done" for cell in cells)


def test_folders_of_earlier_tables_are_resumed(tmp_path):
    """Their cells say row and seed, and the folder says the settings."""
    experiment = load("lmi-nonnormal")
    write_values(tmp_path / "settings.json", json.loads(json.dumps(experiment.settings())))
    row = experiment.rows[0].name
    metrics = {column.name: 0.125 for column in experiment.columns}
    old = {"row": row, "seed": None, "commit": "0", "versions": {}, "status": "done"}
    write_values(tmp_path / row / "cell.json", {**old, "metrics": metrics, "seconds": 1.0})
    result = reproduce(experiment, runs=tmp_path, rows=[], resume=True, report=quiet)
    assert result["cells"][0]["metrics"] == metrics
    write_values(tmp_path / "settings.json", {"budget": 3})
    with pytest.raises(FileFormatError, match="was made with other settings"):
        reproduce(experiment, runs=tmp_path, rows=[], resume=True, report=quiet)


EXPERIMENT = """
from constrained_nn.experiments import Column, Experiment, Row

class Count(Experiment):
    name, title, source = "count", "Counting", "Nobody (1900)"
    columns = (Column("end", "end"),)
    rows = (Row("up", "Up"), Row("down", "Down", shares="up"))
    seeds = (1, 2)

    def settings(self):
        return {"to": 3}

    def run(self, row, seed, directory):
        return {"end": 3.0 * seed}

EXPERIMENT = Count()
"""


@pytest.mark.once  # in other processes
def test_experiment_of_a_file_runs_in_processes(tmp_path):
    file = tmp_path / "count.py"
    file.write_text(EXPERIMENT)
    lines: list[str] = []
    experiment = load(f"{file}:EXPERIMENT")
    assert load_file(file).EXPERIMENT is experiment
    result = reproduce(experiment, runs=tmp_path / "runs", jobs=2, report=lines.append)
    assert [c["metrics"]["end"] for c in result["cells"]] == [3.0, 6.0, 3.0, 6.0], result["cells"]
    assert [c["row"] for c in result["cells"]] == ["up", "up", "down", "down"]
    assert sorted(line[:5] for line in lines) == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    (tmp_path / "study.yaml").write_text(f"experiment: {file}:EXPERIMENT\nseeds: [4]\n")
    assert read_study(tmp_path / "study.yaml").load() is experiment
