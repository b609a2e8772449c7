"""What every traced plant promises: the program is the plant, and its enclosures contain the samples."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from constrained_nn.evidence.tracing import evaluate, program_of, trace_derivative, trace_step
from constrained_nn.verify.arithmetic import Interpreter, Program, enclose, precision
from control_envs.simulate import RK4, Euler
from tests.cases import PlantCase, every

POINTS = 10_000
MAPS = {"derivative": None, "euler": Euler(), "rk4": RK4(2)}
DT = 0.03
TYPED = ("CartPole", "PathFollowing")  # operations are checked one by one elsewhere


@cache
def traced(case: PlantCase, name: str) -> Program:
    plant, disturbed = case.make(), bool(case.make().disturbance)
    integrator = MAPS[name]
    if integrator is None:
        return program_of(trace_derivative(plant, disturbed=disturbed))
    return program_of(trace_step(plant, integrator, DT, disturbed=disturbed))


def points(case: PlantCase, rng: np.random.Generator, count: int) -> list[np.ndarray]:
    plant = case.make()
    sizes = [plant.state_dim, plant.input_dim, len(plant.disturbance)]
    x, u, w = (rng.uniform(-1, 1, (count, size)) for size in sizes)
    return [x * np.array(case.scale), u, w]


@every(PlantCase, typed=lambda row: row.name in TYPED)
@pytest.mark.parametrize("name", MAPS)
def test_program_is_the_plant(case: PlantCase, name: str, rng: np.random.Generator) -> None:
    plant, integrator = case.make(), MAPS[name]
    x, u, w = points(case, rng, POINTS)
    disturbance = w if plant.disturbance else None
    if integrator is None:
        expected = plant.derivative(0.0, x, u, disturbance)
    else:
        expected = integrator.step(plant, 0.0, x, u, disturbance, DT, np)
    found = evaluate(traced(case, name), np.concatenate([x, u, w], -1))
    scale = 1.0 + np.abs(expected).max(-1, keepdims=True)
    assert (np.abs(found - expected) <= 1e-12 * scale).all()


@every(PlantCase, typed=lambda row: row.name in TYPED)
@pytest.mark.parametrize("name", ["derivative", "rk4"])
def test_enclosure_contains_the_samples(case: PlantCase, name: str, rng: np.random.Generator) -> None:
    program = traced(case, name)
    run = Interpreter(program)
    (center,) = np.concatenate(points(case, rng, 1), -1)
    for width in (0.0, 1e-3, 0.1):
        lower, upper = center - width, center + width
        with precision(64):
            found = enclose(run, lower.tolist(), upper.tolist())
            ends = np.array([[float(v.lower()), float(v.upper())] for v in found.values])
        if width == 0.1 and not np.isfinite(ends).all():  # a pivot or a cosine may reach zero
            continue
        values = evaluate(program, lower + (upper - lower) * rng.uniform(size=(2000, len(center))))
        slack = 1e-12 * (1.0 + np.abs(values).max())
        assert (values >= ends[:, 0] - slack).all()
        assert (values <= ends[:, 1] + slack).all()
        if width == 0.0:
            assert np.ptp(ends, 1).max() < 1e-12 * (1.0 + np.abs(ends).max())
