"""The planar fully actuated rotorcraft of control-oriented meta-learning, in wind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from constrained_nn.experiments.runner import Column, Comparison, Published, Row
from constrained_nn.experiments.tables.adaptive.flight import (
    DATA_SEED,
    MODELS,
    TEST_SEED,
    TRAJECTORIES,
    Recorded,
    Tests,
    chosen,
    flights,
    table,
    winds,
)
from constrained_nn.files import ordinary

if TYPE_CHECKING:
    from torch import Tensor, nn

    from control_envs.references import ReferenceTable

GAINS = {
    "k1g1": (1.0, 1.0),
    "k1g10": (1.0, 10.0),
    "k10g1": (10.0, 1.0),
    "k10g10": (10.0, 10.0),
}  # (K, G), L = 1
_PID = (1.067, 0.489, 0.334, 0.210)
# mean, standard deviation over 10 seeds; columns as GAINS, then the learned gains
_MRR = {
    2: ((1.541, 0.301), (0.937, 0.328), (0.371, 0.020), (0.286, 0.056)),
    5: ((1.122, 0.146), (0.494, 0.165), (0.330, 0.020), (0.195, 0.037)),
    10: ((0.832, 0.080), (0.228, 0.049), (0.279, 0.016), (0.118, 0.018)),
    20: ((0.669, 0.062), (0.158, 0.027), (0.240, 0.013), (0.081, 0.011)),
    50: ((0.472, 0.018), (0.085, 0.005), (0.194, 0.004), (0.050, 0.002)),
}
_OURS = {
    2: ((0.346, 0.063), (0.075, 0.022), (0.162, 0.017), (0.036, 0.010), (0.089, 0.026)),
    5: ((0.298, 0.051), (0.065, 0.014), (0.148, 0.015), (0.030, 0.007), (0.058, 0.016)),
    10: ((0.264, 0.034), (0.058, 0.012), (0.137, 0.010), (0.025, 0.004), (0.045, 0.009)),
    20: ((0.268, 0.023), (0.060, 0.011), (0.139, 0.008), (0.026, 0.004), (0.043, 0.007)),
    50: ((0.248, 0.011), (0.053, 0.007), (0.135, 0.004), (0.024, 0.002), (0.040, 0.005)),
}


_SHIELD = (
    "inputs within 30 N of hover and a disc of radius 0.6 m in the middle of the flights, for any wind up to 9 m/s; "
    "PID under K 10, G 10, the other rows under learned gains, over the first 200 tests."
)


def _published(values: tuple) -> dict[str, Published]:
    return {
        name: Published(*v) if isinstance(v, tuple) else Published(v)
        for name, v in zip([*GAINS, "learned"], values, strict=False)
    }


@dataclass(frozen=True)
class Pfar(Recorded):
    """Tracking error on random references in stronger wind than that of the recorded flights; see `Recorded`."""

    tests: int = 2000

    derivatives: ClassVar = (4, 4, 2)
    roll: ClassVar = 0.7 * math.pi / 3
    order: ClassVar = 2
    duration: ClassVar = 5.0
    errors: ClassVar = (*GAINS, "learned")

    name: ClassVar[str] = "pfar"
    title: ClassVar[str] = "Control-oriented meta-learning: fully actuated rotorcraft in wind"
    source: ClassVar[str] = (
        "Control-oriented meta-learning (arXiv 2204.06716), the authors' result files: RMS state error over 10 s, mean "
        "over 200 tests, then mean and deviation over 10 seeds"
    )
    columns: ClassVar = (
        Column("k1g1", "K 1, G 1", ".3f"),
        Column("k1g10", "K 1, G 10", ".3f"),
        Column("k10g1", "K 10, G 1", ".3f"),
        Column("k10g10", "K 10, G 10", ".3f"),
        Column("learned", "learned gains", ".3f"),
        Column("violations", "tests with a violation", ".0f"),
        Column("clearance", "smallest clearance [m]", ".3f"),
        Column("diverged", "tests that ran away", ".0f"),
        Column("train_diverged", "training rollouts that ran away", ".0f"),
    )
    rows: ClassVar = (
        Row("pid", "PID", _published(_PID), seeded=False),
        Row("none", "no adaptation", seeded=False),
        *(Row(f"mrr-m{m}", f"ridge regression as published, M = {m}", _published(_MRR[m])) for m in MODELS),
        *(Row(f"mrr-fair-m{m}", f"ridge regression, scales put right, M = {m}") for m in MODELS),
        *(Row(f"ours-m{m}", f"control-oriented, M = {m}", _published(_OURS[m])) for m in MODELS),
        Row("shield-pid", "PID behind a box and a disc to keep out of", seeded=False, note=_SHIELD),
        *(
            Row(f"shield-ours-m{m}", f"control-oriented behind box and disc, M = {m}", shares=f"ours-m{m}")
            for m in (2, 10)
        ),
    )
    seeds: ClassVar = (0, 1, 2)
    notes: ClassVar = (
        "L = 1 in the columns with fixed gains. References and winds of the tests are drawn once for all rows, from "
        "the published laws. The error is heavy-tailed over tests: the mean over 200 of them, the published number, is "
        "uncertain by 4 %, with K 10 and G 10 by 10 %; ours is over 2,000. A test counts as run away, and is in no "
        "mean, above a state error of 100: with one such reference in 2,000 PID would read 1.144 instead of 1.060.",
        "The published regression has its loss in units of the time step, and so its weight decay shrinks the "
        "features, most of all for few flights. The rows with scales put right have it in units of acceleration, "
        "without decay. Steps: 2,000 (published 5,000) and 1,000.",
        "Training through the closed loop in steps of 0.025 s (classical Runge-Kutta; published 0.01 s), in float64.",
    )

    def fast(self) -> Pfar:
        return FastPfar(
            epochs=60,
            steps=40,
            ridge_steps=600,
            fair_steps=500,
            tests=40,
            seconds=15.0,
            test_seconds=4.0,
            meta_dt=0.0625,
        )

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        import torch

        from constrained_nn.control import ConstantFeature, NoAdaptation

        torch.manual_seed(0)
        if row in ("pid", "none"):
            return self.judge(ConstantFeature(), law=NoAdaptation() if row == "none" else None)
        if row == "shield-pid":
            return self.shielded(self.baseline(), "k10g10")
        method, count = row.rsplit("-m", 1)
        if method == "shield-ours":  # the controller of the row without the shield, trained once
            trained = directory.parent / f"ours-m{count}-seed{int(seed or 0)}"
            return self.shielded(self.meta(int(count), int(seed or 0), trained)[0], "learned")
        return self.learn(method, int(count), int(seed or 0), directory)

    # --- the task --------------------------------------------------------------------------------------------

    @cached_property
    def prior(self) -> Any:
        """What the controller knows of the plant."""
        from control_envs.dynamics import PlanarRotorcraft

        return PlanarRotorcraft(drag_x=0.0, drag_y=0.0)

    @cached_property
    def suite(self) -> Tests:
        """The test flights: 10 s, inputs held at 100 Hz, wind `9 Beta(5, 7)`."""
        from control_envs.disturbances import ScaledBeta
        from control_envs.dynamics import PlanarRotorcraft

        rows = range(self.tests)
        spline = flights(rows, TEST_SEED, 10.0, self.derivatives, roll=self.roll, order=2)
        references = table(spline, 0.01, round(100 * self.test_seconds))
        wind = winds(rows, TEST_SEED, ScaledBeta(9.0, 5.0, 7.0))
        goal = references.values[..., :2, :].flatten(-2)
        return Tests(PlanarRotorcraft(), references, goal, wind, 0.01, hold=True)

    def record(self, seed: int, count: int) -> Any:
        """Recorded flights in wind `6 Beta(5, 9)` under a badly damped controller, 30 s at 100 Hz."""
        import torch

        from constrained_nn.training import force_data
        from control_envs.disturbances import ScaledBeta
        from control_envs.dynamics import PlanarRotorcraft
        from control_envs.simulate import rollout

        rows, horizon = chosen(seed, count), round(self.seconds / 0.01)
        spline = flights(
            rows, DATA_SEED, self.seconds, (4, 4, 2), roll=math.pi / 3, order=2, total=TRAJECTORIES
        )
        references = table(spline, 0.01, horizon)
        wind = winds(rows, DATA_SEED, ScaledBeta(6.0, 5.0, 9.0))
        plant = PlanarRotorcraft()

        def policy(t: float, x: Tensor) -> Tensor:
            r, rate, acceleration = references(t)[..., :3, :].unbind(-2)
            force = acceleration - 10.0 * (x[..., :3] - r) - 0.1 * (x[..., 3:] - rate)
            return plant.allocate(x[..., :3], force + plant.g(x[..., :3]))

        with torch.no_grad():
            start = references.values[0, :, :2].flatten(-2)
            path = rollout(plant, policy, start, dt=0.01, horizon=horizon, disturbance=lambda t, x: wind)
            return force_data(self.prior, path.x, path.u, 0.01, held=True)

    # --- methods ---------------------------------------------------------------------------------------------

    def learn(self, method: str, count: int, seed: int, directory: Path) -> Mapping[str, float]:
        """Train one method on `count` recorded flights, and judge it."""
        if method != "ours":
            return self.judge(self.ridge(method, count, seed, directory))
        controller, history = self.meta(count, seed, directory)
        found = self.judge(controller.features, learned=controller)
        return found | {"train_diverged": float(sum(history.diverged)), "score": min(history.score)}

    def untrained(self, generator: Any) -> Any:
        from constrained_nn.control import AdaptiveController, PositiveDefinite, TanhFeatures

        features = TanhFeatures(6, generator=generator)
        L, K, G = (PositiveDefinite.random(3, generator=generator) for _ in range(3))
        return AdaptiveController(self.prior, features, L=L, K=K, G=G)

    def target(self, values: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        goal = values[..., :2, :].flatten(-2)
        return goal, torch.zeros_like(goal[..., :3])

    def judge(self, features: nn.Module, *, law: Any = None, learned: Any = None) -> dict[str, float]:
        """Errors with each of the fixed gains, and with the learned ones."""
        from constrained_nn.control import AdaptiveController

        found, diverged = {}, 0
        for name, (K, G) in GAINS.items():
            controller = AdaptiveController(self.prior, features, L=1.0, K=K, G=G, law=law)
            found[name], gone = self.suite.measure(controller)
            diverged += gone
        if learned is not None:
            gains = {"L": learned.L, "K": learned.K, "G": learned.G}
            controller = AdaptiveController(self.prior, features, **gains, law=law)
            found["learned"], gone = self.suite.measure(controller)
            diverged += gone
        return found | {"diverged": float(diverged)}

    def shielded(self, controller: Any, column: str) -> dict[str, float]:
        """Error and violations behind an exact projection onto the input box and the row of the disc."""
        import torch

        from constrained_nn.control import SafetyFilter
        from constrained_nn.experiments.tables.adaptive.shield import Shield
        from constrained_nn.layers import EuclideanProjection, LeastViolation
        from control_envs.dynamics import PlanarRotorcraft

        suite, shield = self.suite.part(0, 200), Shield(PlanarRotorcraft())
        safe = SafetyFilter(controller, shield.condition, EuclideanProjection(on_failure=LeastViolation()))
        path = suite.fly(safe.eval())
        rms, gone = suite.errors(path)
        low, high = shield.box(path.x)
        clearance = shield.clearance(path.x).amin(-1)
        excess = torch.maximum(path.u - high, low - path.u).amax((-2, -1))
        violated = ~((clearance >= 0.0) & (excess <= 1e-9 * high.abs().max()))
        return {
            column: rms[~gone].mean().item() if not gone.all() else math.nan,
            "diverged": float(gone.sum()),
            "violations": float(violated.sum()),
            "clearance": clearance.min().item(),
        }

    # --- the loop --------------------------------------------------------------------------------------------

    def loop_reference(self) -> ReferenceTable:
        """Two loops with a roll, 10 s at 100 Hz."""
        import torch

        from control_envs.references import Loops

        return Loops(roll=math.pi / 3).table(0.01, 1000).to(torch.zeros(1, dtype=torch.float64))

    def loop_goal(self) -> Tensor:
        return self.target(self.loop_reference().values)[0]

    def baseline(self) -> Any:
        """PID control with the gains of the loop."""
        from constrained_nn.control import AdaptiveController, ConstantFeature

        return AdaptiveController(self.prior, ConstantFeature(), L=1.0, K=10.0, G=10.0)

    def loop(self, controller: Any, wind: float = 6.5) -> Any:
        """Two loops in a constant wind, 10 s, inputs held at 100 Hz."""
        import torch

        from control_envs.dynamics import PlanarRotorcraft
        from control_envs.simulate import RK4, rollout

        references = self.loop_reference()
        blow = torch.tensor([wind], dtype=torch.float64)
        with torch.no_grad():
            return rollout(
                PlanarRotorcraft(),
                controller,
                references.values[0, :2].flatten(),
                dt=0.01,
                horizon=1000,
                integrator=RK4(2),
                reference=references,
                disturbance=lambda t, x: blow,
            )

    def compare(self, reference: Path, progress: Callable[[str], None]) -> list[Comparison]:
        """The loop with the published weights, against the published run, at every time."""
        from constrained_nn.control import AdaptiveController, PositiveDefinite

        arrays = np.load(ordinary(reference / "pfar_loop.npz"))
        found = []
        for name, label in (("meta", "learned controller"), ("pid", "PID")):
            L, K, G = (PositiveDefinite(_tensor(arrays[f"{name}_{g}"])) for g in "LKG")
            controller = AdaptiveController(self.prior, _features(arrays, name), L=L, K=K, G=G)
            x = self.loop(controller, float(arrays["wind"])).x.numpy()
            for part, unit, key in ((x[:, :3], "position [m, rad]", "q"), (x[:, 3:], "velocity", "dq")):
                worst = float(np.abs(part - arrays[f"{name}_{key}"]).max())
                found.append(Comparison(f"loop, {label}: largest deviation of {unit}", worst, 0.0, 1e-3))
        return found


@dataclass(frozen=True)
class FastPfar(Pfar):
    """One row of every method, with budgets of minutes that keep their order."""

    rows: ClassVar = tuple(
        row for row in Pfar.rows if row.name in ("pid", "none", "shield-pid") or row.name.endswith("-m10")
    )
    seeds: ClassVar = (0,)


def _tensor(array: np.ndarray) -> Tensor:
    import torch

    return torch.as_tensor(array, dtype=torch.float64)


def _features(arrays: Mapping[str, np.ndarray], name: str) -> nn.Module:
    from constrained_nn.control import ConstantFeature, TanhFeatures

    if not np.isfinite(arrays[f"{name}_b0"]).all():  # an infinite bias: tanh is 1
        return ConstantFeature()
    features = TanhFeatures(6)
    features.load_state_dict(
        {
            f"layers.{i}.{kind}": _tensor(arrays[f"{name}_{letter}{i}"])
            for i in (0, 1)
            for kind, letter in (("weight", "W"), ("bias", "b"))
        }
    )
    return features


EXPERIMENT = Pfar()
