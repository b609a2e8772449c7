"""Closed loops in a file: what `constrained-nn certify FOLDER` proves of a controller that was trained elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.errors import FileFormatError, InfeasibleError, ShapeError
from constrained_nn.evidence.claims.lyapunov import SAMPLES, ClosedLoop, claim_decrease
from constrained_nn.evidence.head import describe_task, head, read_record
from constrained_nn.evidence.search import Counterexample, Report, quiet, worst_of
from constrained_nn.evidence.tracing import trace_derivative, trace_step
from constrained_nn.files import write_values
from constrained_nn.verify import Finding, Outcome, decode, decode_one, digest, encode
from constrained_nn.verify.arithmetic import parse
from constrained_nn.verify.file import text
from control_envs.tasks import Task, make_task

LOOP = "loop.json"
_SCHEMA = "constrained-nn/loop"
_KEYS = (
    "schema",
    "task",
    "method",
    "motion",
    "level",
    "plant",
    "controller",
    "value",
    "lower",
    "upper",
    "center",
)


def save_loop(
    folder: Path,
    task: Task,
    controller: dict[str, Any],
    value: dict[str, Any],
    *,
    lower: np.ndarray,
    upper: np.ndarray,
    level: float,
    center: np.ndarray | None = None,
    motion: str = "step",
    method: str = "network",
) -> Path:
    """A controller on a task with a candidate Lyapunov function, for `constrained-nn certify FOLDER`.

    Args:
        folder: Where `loop.json` goes.
        task: Its plant, integrator and step are traced here.
        controller: Program `x -> u`, as `trace_module` makes it.
        value: Program of `V` (`trace_module` of a Lyapunov function), or `quadratic_value(P, center)`.
        lower: Lower ends of the domain `(n)`.
        upper: Upper ends.
        level: Of the sublevel set `{V <= level}` that is claimed to be in the region of attraction.
        center: Center of the inner ellipsoid, next to the equilibrium; default the middle of the domain.
        motion: `step`: the task's integrator, the input held; `held`: the exact solution, the input held; `continuous`:
            feedback at every instant, `V` quadratic.
        method: Name of the controller.
    """
    center = 0.5 * (lower + upper) if center is None else center
    return write_values(
        folder / LOOP,
        {
            "schema": _SCHEMA,
            "task": task.name,
            "method": method,
            "motion": motion,
            "level": encode(level),
            "plant": trace_plant(task, motion),
            "controller": controller,
            "value": value,
            **{
                name: encode(np.asarray(v, dtype=float).tolist())
                for name, v in (("lower", lower), ("upper", upper), ("center", center))
            },
        },
    )


def trace_plant(task: Task, motion: str) -> dict[str, Any]:
    """The plant of a task as a program: a step of its own integrator, or its derivative."""
    if motion == "step":
        return trace_step(task.plant, task.integrator, task.dt)
    return trace_derivative(task.plant)


def load_loop(path: Path) -> tuple[Task, str, ClosedLoop, float]:
    """Task, name of the method, closed loop and level of a file that `save_loop` wrote.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
    """
    saved = read_record(path, _KEYS, _SCHEMA, what="closed loop", writer="save_loop")
    task = make_task(text(saved["task"], "task"))
    n, m = task.plant.state_dim, task.plant.input_dim
    motion = text(saved["motion"], "motion")
    parse(saved["plant"], "plant", inputs=n + m, outputs=n)
    parse(saved["controller"], "controller", inputs=n, outputs=m)
    lower, upper, center = (np.array(decode(saved[k], k, n)) for k in ("lower", "upper", "center"))
    loop = ClosedLoop(
        saved["plant"], saved["controller"], saved["value"], lower, upper, center, motion, task.dt
    )
    return task, text(saved["method"], "method"), loop, decode_one(saved["level"], "level")


def certify_loop(
    path: Path, *, command: str, seconds: float = 300.0, jobs: int = 1, report: Report = quiet
) -> dict[str, Any]:
    """A certificate that the closed loop in a file is stable, as JSON values: the claim `lyapunov-decrease`.

    Args:
        path: The file that `save_loop` wrote.
        command: The command line, kept in the certificate.
        seconds, jobs, report: As for `cover`; boxes that are left open make the claim inconclusive.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
        Counterexample: The loop is not stable at its center, and `V` does not decrease elsewhere either.
        InfeasibleError: The loop is not stable at its center.
    """
    task, method, loop, level = load_loop(path)
    certificate = head(
        command=command,
        seed=0,
        task=describe_task(task),
        controller={
            "method": method,
            "dtype": "float64",
            "weights": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
    )
    try:
        claim = claim_decrease(loop, certificate, level=level, seconds=seconds, jobs=jobs, report=report)
    except InfeasibleError as error:
        _refute(loop, level)
        raise error from None
    certificate["claims"].append(claim)
    certificate["digest"] = digest(certificate)
    return certificate


def _refute(loop: ClosedLoop, level: float) -> None:
    """A state with `0.01 level <= V <= level` where `V` does not decrease, where no inner ellipsoid can be had."""

    def margin(x: np.ndarray) -> np.ndarray:
        V = loop.lyapunov(x)
        return np.where((level >= V) & (0.01 * level <= V), -loop.change(x), np.inf)

    points = loop.sample(np.random.default_rng(0), SAMPLES)
    worst = worst_of(margin, loop.lower, loop.upper, points)
    if worst.is_counterexample:
        words = f"V changes by {-worst.margin:.6g} from {worst.state.tolist()}; no neighbourhood of the center closes"
        raise Counterexample(words, worst.state.tolist())


def repeat_loop(path: Path, numbers: list[float]) -> list[str]:
    """What becomes of a state in the closed loop of a file, in lines: `V` before and after, and whether it is left.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
        ShapeError: `numbers` are no state.
    """
    task, _, loop, level = load_loop(path)
    if len(numbers) != len(loop.lower):
        names = ", ".join(q.name for q in task.plant.state)
        raise ShapeError(f"--start: expected {len(loop.lower)} numbers ({names}), got {len(numbers)}.")
    x = np.array(numbers)
    V, change, y = float(loop.lyapunov(x)), float(loop.change(x)), loop.move(x)
    lines = [f"from {numbers}: V = {V!r}, level {level!r}"]
    if loop.motion == "continuous":
        lines.append(f"dV/dt = {change!r}")
        after = x
    else:
        lines.append(f"one step to {y.tolist()}: V = {float(loop.lyapunov(y))!r}, change {change!r}")
        after = y
    known = ((x >= loop.lower) & (x <= loop.upper)).all() and level >= V
    if not known:
        return [*lines, "the state is not in the set: nothing is claimed of it"]
    if not ((after >= loop.lower) & (after <= loop.upper)).all():
        lines.append("counterexample: the step leaves the domain")
    lines.append("V decreases" if change < 0 else "counterexample: V does not decrease")
    return lines


def replay_loop(certificate: dict[str, Any], folder: Path) -> list[Finding]:
    """Trace the plant of a certificate again, and compare the controller and `V` with those in its folder.

    Raises:
        FileFormatError: There is no closed loop in the folder, or it is about another task.
    """
    task, _, loop, _ = load_loop(folder / LOOP)
    (claim,) = certificate["claims"]
    stated, here = certificate["task"], describe_task(task)
    if stated != here:
        raise FileFormatError(f"replay: the certificate is about {stated['name']}, got {here['name']}.")
    again = {"plant": trace_plant(task, claim["motion"]), "controller": loop.controller, "value": loop.value}
    for name, program in again.items():
        if claim["data"][name] != program:
            line = f"repeated with another {name} than recorded"
            return [Finding("proof", Outcome.INCONCLUSIVE, line, "")]
    return [Finding("proof", Outcome.HOLDS, "traced again: plant, controller and V are those recorded", "")]
