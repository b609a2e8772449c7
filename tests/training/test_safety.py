"""Tasks of a stranger: found in a file, judged, described, and kept in closed loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from constrained_nn.certificates import DegreeError
from constrained_nn.cli import build
from constrained_nn.control import FunctionController, InOrder, SafetyFilter
from constrained_nn.errors import FileFormatError, UnknownNameError
from constrained_nn.layers import EuclideanProjection
from constrained_nn.training import available_tasks, describe, draw_starts, find_task, safety_of, task_spec
from control_envs.simulate import rollout
from control_envs.tasks import TASKS, make_task

CART = '''
from dataclasses import dataclass
import numpy as np
from control_envs.dynamics import ControlAffine, Quantity, constant, namespace, stack
from control_envs.tasks import RegulationTask, TaskConstraint, limit


@dataclass(frozen=True)
class TwoMassCart(ControlAffine):
    """Two carts of 1 kg on a rail with a spring between them; the force acts on the first."""

    stiffness: float = 20.0
    state = tuple(Quantity(n, u) for n, u in (("p1", "m"), ("p2", "m"), ("v1", "m/s"), ("v2", "m/s")))
    input = (Quantity("F", "N"),)

    def drift(self, t, x, w=None, *, xp=None):
        p1, p2, v1, v2 = (x[..., i] for i in range(4))
        pull = self.stiffness * (p2 - p1) + 0.3 * (v2 - v1)
        return stack([v1, v2, pull, -pull], xp or namespace(x))

    def actuation(self, t, x, *, xp=None):
        return constant([[0.0], [0.0], [1.0], [0.0]], x, xp or namespace(x))


class Cart(RegulationTask):
    name, summary = "two-mass-cart", "two carts to the origin, a wall and a speed limit"
    plant = TwoMassCart()
    dt, horizon = 0.02, 250
    input_low, input_high = np.array([-8.0]), np.array([8.0])
    state_low, state_high = np.full(4, -4.0), np.full(4, 4.0)
    start_low = np.array([-1.2, -1.2, -0.1, -0.1])
    start_high = np.array([-0.8, -0.8, 0.1, 0.1])
    goal, goal_input = np.zeros(4), np.zeros(1)
    state_weights, input_weights = np.array([5.0, 5.0, 0.1, 0.1]), np.array([0.05])
    constraints = (limit(plant, "p1", high=0.05), limit(plant, "v1", low=-1.0, high=0.8))


class Second(Cart):
    """The wall before the second cart, which the force reaches through the spring alone."""

    constraints = (limit(Cart.plant, "p2", high=0.05),)


class Walled(Cart):
    constraints = (limit(Cart.plant, "p1", high=-3.0),)


class Astray(Cart):
    start_low, start_high = np.full(4, 5.0), np.full(4, 6.0)


class Timeless(Cart):
    dt = 0.0


class Narrow(Cart):
    input_low = np.zeros(2)


class Taken(Cart):
    name = "pendulum"


class NoTask:
    pass
'''

SHIP = """
from dataclasses import dataclass
import numpy as np
from control_envs.dynamics import Dynamics, Quantity, namespace, stack
from control_envs.tasks import RegulationTask, keep_out, limit


@dataclass(frozen=True)
class Ship(Dynamics):
    state = tuple(
        Quantity(n, u) for n, u in (("x", "m"), ("y", "m"), ("psi", "rad"), ("v", "m/s"), ("r", "rad/s"))
    )
    input = (Quantity("n", "1/s"), Quantity("delta", "rad"))

    def derivative(self, t, x, u, w=None, *, xp=None):
        xp = xp or namespace(x)
        psi, v, r = x[..., 2], x[..., 3], x[..., 4]
        n, delta = u[..., 0], u[..., 1]
        thrust = 0.5 * n * abs(n)
        return stack(
            [v * xp.cos(psi), v * xp.sin(psi), r, thrust - 0.3 * v * abs(v), 0.4 * v * v * xp.sin(delta) - r], xp
        )


class ShipTask(RegulationTask):
    name, summary = "ship", "a ship to its berth, below a speed"
    plant = Ship()
    dt, horizon = 0.1, 100
    input_low, input_high = np.array([-2.0, -0.6]), np.array([2.0, 0.6])
    state_low = np.array([-30.0, -30.0, -4.0, -2.0, -1.0])
    state_high = -state_low
    start_low, start_high = np.array([-8.0, -0.5, -0.1, 0.9, 0.0]), np.array([-7.0, 0.5, 0.1, 1.1, 0.0])
    goal, goal_input = np.array([10.0, 0.0, 0.0, 1.0, 0.0]), np.array([0.7746, 0.0])
    state_weights, input_weights = np.array([0.1, 1.0, 1.0, 1.0, 0.1]), np.array([0.1, 1.0])
    constraints = (limit(plant, "v", high=1.5), limit(plant, "r", size=0.3))

    def nominal(self, t, x):
        xp = namespace(x)
        steer = -0.3 * x[..., 1] - 1.5 * x[..., 2] - 1.0 * x[..., 4]
        return stack([2.0 + 0.0 * steer, xp.clip(2.0 * steer, -0.6, 0.6)], xp)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("robots")
    (folder / "cart.py").write_text(CART)
    (folder / "ship.py").write_text(SHIP)
    return folder


def filtered_run(task, count: int, seed: int = 0):
    """Worst `g` of each constraint at the samples, and the filter, behind the nominal controller."""
    safety = safety_of(task)
    rule = InOrder(safety.inputs) if safety.inputs else None
    policy = SafetyFilter(
        FunctionController(task.nominal), safety.condition, EuclideanProjection(), on_conflict=rule
    ).eval()
    x0 = torch.as_tensor(draw_starts(task, "fresh", count, seed=seed))
    with torch.no_grad():
        run = rollout(task.plant, policy, x0, dt=task.dt, horizon=task.horizon, integrator=task.integrator)
    low, high = torch.tensor(task.input_low), torch.tensor(task.input_high)
    assert bool(((run.u >= low - 1e-9) & (run.u <= high + 1e-9)).all())
    worst = {
        c.name: max(float(c.g(0.0, run.x[:, k], run.u[:, 0]).max()) for k in range(task.horizon + 1))
        for c in task.constraints
    }
    return worst, rule


def unfiltered(task, count: int) -> dict[str, float]:
    run = rollout(
        task.plant, task.nominal, draw_starts(task, "fresh", count), dt=task.dt, horizon=task.horizon
    )
    return {
        c.name: max(float(c.g(0.0, run.x[:, k], run.u[:, 0]).max()) for k in range(task.horizon + 1))
        for c in task.constraints
    }


@pytest.mark.once
@pytest.mark.parametrize("spec", ["cart.py:Cart", "ship.py:ShipTask", "double-integrator", "linear"])
def test_constraints_hold_at_all_samples(folder: Path, spec: str) -> None:
    """Also where the input does not enter linearly; without the filter they are broken."""
    task = find_task(f"{folder}/{spec}" if ".py" in spec else spec)
    worst, rule = filtered_run(task, 20)
    assert max(worst.values()) <= 0.0, worst
    assert rule is None or not rule.counts
    if spec != "linear":
        assert max(unfiltered(task, 20).values()) > 0.1


def test_task_of_a_file_is_found_again(folder: Path, monkeypatch) -> None:
    task = find_task(f"{folder}/cart.py:Cart")
    assert task_spec(task) == f"{folder}/cart.py:Cart"
    monkeypatch.chdir(folder)
    assert task_spec(task) == "cart.py:Cart"
    assert type(find_task("cart.py:Cart")) is type(task)
    assert task_spec(find_task("pendulum")) == "pendulum"
    assert type(find_task("control_envs.tasks:PendulumTask")) is TASKS["pendulum"]
    assert set(TASKS) <= set(available_tasks())


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("cart.py:NoTask", FileFormatError, "expected a task (Task), got the class NoTask"),
        ("cart.py:Crat", UnknownNameError, "Did you mean 'Cart'?"),
        ("cart.py:Timeless", FileFormatError, "expected a positive number in `dt`, got 0.0"),
        ("cart.py:Narrow", FileFormatError, "expected an array of shape (1,) in `input_low`, got (2,)"),
        ("cart.py:Astray", FileFormatError, "expected start states inside of state_low and state_high"),
        ("cart.py:Taken", ValueError, "its name 'pendulum' is taken by another task"),
    ],
)
def test_task_that_is_not_whole_is_one_line(folder: Path, spec: str, error, words: str) -> None:
    with pytest.raises(error) as caught:
        find_task(f"{folder}/{spec}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Second", "'p2-high': expected a relative degree of at most 2"),
        ("Walled", "'p1-high': expected start states"),
    ],
)
def test_constraint_that_cannot_be_kept_is_named(folder: Path, name: str, words: str) -> None:
    with pytest.raises(DegreeError, match=words):
        safety_of(find_task(f"{folder}/cart.py:{name}"))
    result = CliRunner().invoke(build(), ["describe", f"{folder}/cart.py:{name}"])
    assert result.exit_code == 2
    assert "\n" not in result.output.strip()


def test_gains_can_be_given(folder: Path) -> None:
    task = find_task(f"{folder}/cart.py:Cart")
    safety = safety_of(task, {"p1-high": (3.0, 4.0), "v1-range": (2.0,)})
    assert [kept.gains for kept in safety.kept] == [(3.0, 4.0), (2.0,)]
    with pytest.raises(ValueError, match=r"expected constraints of 'two-mass-cart', got 'p3'"):
        safety_of(task, {"p3": (1.0,)})


def test_description_says_what_is_guaranteed_and_what_is_not(folder: Path) -> None:
    text = describe(find_task(f"{folder}/cart.py:Cart"))
    for words in (
        "TwoMassCart, affine in its input",
        "F            [N] -8 to 8",
        "p1-high      [m], relative degree 2, gains",
        "v1-range     [m/s], relative degree 1, gains",
        "nothing between samples",
        "input limits > p1-high > v1-range",
    ):
        assert words in text, text
    assert "not affine" in describe(find_task(f"{folder}/ship.py:ShipTask"))
    assert "between samples as well" in describe(make_task("double-integrator"))
    assert "constraints none" in describe(make_task("van-der-pol"))


@pytest.mark.once
def test_purposes_draw_apart() -> None:
    task = make_task("pendulum")
    purposes = ("train", "validation", "test", "fresh", "gains")
    drawn = [draw_starts(task, p, 50, seed=s) for p in purposes for s in (0, 1)]
    every = np.concatenate(drawn)
    assert len(np.unique(every, axis=0)) == len(every)
    assert (draw_starts(task, "test", 20) == draw_starts(task, "test", 50)[:20]).all()
    published = make_task("unicycle-obstacles")
    assert len(draw_starts(published, "test", 5)) == 84
