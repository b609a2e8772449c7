"""Means over seeds and start states with paired bootstrap intervals; nothing is left out in silence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from constrained_nn.experiments.runner import Outcome
from constrained_nn.experiments.study.spec import SHARES, StudySpec


@dataclass(frozen=True)
class Entry:
    """A mean with its interval, and how much of what it should cover is there.

    Args:
        task, scenario, method, metric: What it is of.
        mean, low, high: None where there is none.
        done, expected: Cells with a result, and cells there should be.
        diverged, runs: Runs without a finite value, and all runs of the finished cells.
        difference: Mean, low and high of the difference to the baseline over common seeds, or None.
        pairs, pairs_expected: Seeds behind the difference, and seeds there should be.
        problems: What is missing, in words.
    """

    task: str
    scenario: str
    method: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    done: int
    expected: int
    diverged: int
    runs: int
    difference: tuple[float, float, float] | None
    pairs: int
    pairs_expected: int
    problems: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return self.done == self.expected and self.diverged == 0


def summarize(spec: StudySpec, outcomes: list[Outcome]) -> list[Entry]:
    """One entry for each task, scenario, method and metric, in the order of the study."""
    return [
        _entry(spec, outcomes, task, scenario.name, method.label, metric)
        for task in spec.tasks
        for scenario in spec.scenarios
        for method in spec.methods
        for metric in spec.metrics
    ]


def _entry(
    spec: StudySpec, outcomes: list[Outcome], task: str, scenario: str, method: str, metric: str
) -> Entry:
    mine = _of(outcomes, task, method)
    done = [o for o in mine if o.status == "done"]
    problems = tuple(
        ("" if seed is None else f"seed {seed} ") + o.status + (f": {o.error}" if o.error else "")
        for seed, o in ((o.cell.labels["seed"], o) for o in mine)
        if o.status != "done"
    )
    values = _values(mine, scenario, metric)
    rows = list(values.values())
    numbers = [v for o in done for v in o.values["scenarios"][scenario][metric]]
    runs, diverged = len(numbers), numbers.count(None)
    if diverged:
        problems += (f"{diverged} of {runs} runs diverged",)
    mean = low = high = difference = None
    pairs = expected = 0
    if rows and not diverged:
        mean, low, high = interval(np.array(rows), spec, share=metric in SHARES)
    if spec.baseline is not None and spec.baseline != method:
        of_baseline = _of(outcomes, task, spec.baseline)
        difference, pairs = _difference(spec, values, _values(of_baseline, scenario, metric))
        expected = max(len(mine), len(of_baseline))
    return Entry(
        task=task,
        scenario=scenario,
        method=method,
        metric=metric,
        mean=mean,
        low=low,
        high=high,
        done=len(done),
        expected=len(mine),
        diverged=diverged,
        runs=runs,
        difference=difference,
        pairs=pairs,
        pairs_expected=expected,
        problems=problems,
    )


def _of(outcomes: list[Outcome], task: str, method: str) -> list[Outcome]:
    wanted = (task, method)
    return [o for o in outcomes if (o.cell.labels["task"], o.cell.labels["method"]) == wanted]


def _values(outcomes: list[Outcome], scenario: str, metric: str) -> dict[int | None, list[float]]:
    """Seed -> value of each run, of the finished cells; NaN where a run diverged."""
    return {
        o.cell.labels["seed"]: [np.nan if v is None else v for v in o.values["scenarios"][scenario][metric]]
        for o in outcomes
        if o.status == "done"
    }


def _difference(
    spec: StudySpec, ours: dict[int | None, list[float]], theirs: dict[int | None, list[float]]
) -> tuple[tuple[float, float, float] | None, int]:
    """Interval and number of seeds, paired by start state and seed.

    A method that runs once is compared with every seed of the other.
    """
    if None in ours or None in theirs:
        many = theirs if None in ours else ours
        pairs = [(ours.get(None, ours.get(s)), theirs.get(None, theirs.get(s))) for s in many]
    else:
        pairs = [(ours[s], theirs[s]) for s in ours if s in theirs]
    table = np.array([np.subtract(a, b) for a, b in pairs])  # pyright: ignore[reportCallIssue, reportArgumentType]
    if not len(table) or not np.isfinite(table).all():
        return None, len(table)
    return interval(table, spec), len(table)


def interval(values: np.ndarray, spec: StudySpec, *, share: bool = False) -> tuple[float, float, float]:
    """Mean of `values` `(seeds, starts)` with a percentile bootstrap interval.

    Seeds and start states are drawn with replacement, independently of each other, and with the
    same draws for every method and metric. With one seed the interval covers the choice of start
    states alone.

    A share that is 0 or 1 in all runs has no spread to resample; its other end is the
    Clopper-Pearson bound for as many trials as there are start states (more seeds of the same
    states are not counted as more trials).
    """
    chosen_seeds, chosen_starts = (_resampled(count, spec.resamples) for count in values.shape)
    means = np.einsum("rs,si,ri->r", chosen_seeds, values, chosen_starts, optimize=True)
    tail = 0.5 * (1.0 - spec.confidence)
    low, high = np.quantile(means, [tail, 1.0 - tail])
    mean = float(values.mean())
    low, high = min(float(low), mean), max(float(high), mean)
    if share and mean in (0.0, 1.0):
        reach = 1.0 - tail ** (1.0 / values.shape[1])
        low, high = (0.0, reach) if mean == 0.0 else (1.0 - reach, 1.0)
    return mean, low, high


def _resampled(count: int, resamples: int) -> np.ndarray:
    """Weights `(resamples, count)` of draws with replacement; a function of the sizes alone."""
    rng = np.random.default_rng([count, resamples])
    return rng.multinomial(count, np.full(count, 1.0 / count), size=resamples) / count
