"""What the CoILS experiments share: methods, training, and the judgment on the plant."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from constrained_nn.experiments.runner import Column, Experiment, Row

if TYPE_CHECKING:
    import torch

    from constrained_nn.control import Controller
    from constrained_nn.evidence import TrueSystem
    from constrained_nn.models import CoILS
    from constrained_nn.training import Samples
    from control_envs.dynamics import Dynamics

# A correction below this share of the velocities' scale counts as none.
IDLE = 1e-6


CONDITIONS = (
    "The plant judges: 10 s under the policy, held over 0.01 s (learned policies are steep, and a longer hold turns "
    "them into limit cycles). Shares within 2 % and 10 % of the half widths of the box, from a grid over the whole "
    "box. Errors are in units of the standard deviation of the velocities; above 1e-6 of it a correction is active.",
    "What is shown of the plant: dV/dt <= -rate V on the largest level set in the box, as continuous feedback. Grade "
    "bound (interval enclosures) in the plane, grade sampled (worst of the draws) with more states.",
)


@dataclass(frozen=True)
class CoILSExperiment(Experiment):
    """A plant learned from samples with its controller, judged by the plant itself.

    Args:
        count: Samples.
        epochs: Passes over them, in batches of `batch`.
        batch: Samples a step.
        grid: Start states along each axis.
        horizon: Control intervals of a test run.
        parts: Parts of the box that the statement on the plant may examine.
    """

    count: int = 1000
    epochs: int = 80
    batch: int = 100
    grid: int = 41
    horizon: int = 1000
    parts: int = 60_000

    source: ClassVar[str] = "Min, Richards, Azizan (arXiv 2303.03157); the paper prints no table"
    penalty: ClassVar[float] = 30.0
    soft_weight: ClassVar[float] = 30.0
    rate: ClassVar[float] = 0.3
    dt: ClassVar[float] = 0.01
    learning_rates: ClassVar[tuple[float, float]] = (1e-2, 1e-4)
    hidden: ClassVar[tuple[int, int]] = (32, 32)
    columns: ClassVar = (
        Column("reach_2", "within 2 % [%]", ".1f"),
        Column("reach_10", "within 10 % [%]", ".1f"),
        Column("decreasing", "true dV/dt < 0 [%]", ".1f"),
        Column("active", "correction active, samples [%]", ".1f"),
        Column("active_grid", "and grid [%]", ".1f"),
        Column("shown_rate", "rate shown of the plant [1/s]", ".2f"),
        Column("shown_share", "on this share of the box [%]", ".1f"),
        Column("fit", "error on held-out data", ".4f"),
        Column("slack", "worst slack of the model", ".1e"),
    )
    rows: ClassVar = (
        Row("coils", "CoILS, correction penalized"),
        Row("coils-no-penalty", "CoILS, not penalized"),
        Row("soft", "soft Lyapunov penalty"),
        Row("regression-lqr", "regression, then LQR"),
        Row("known-lqr", "LQR of the known plant", seeded=False),
        Row("idle", "input that holds the goal", seeded=False),
    )
    seeds: ClassVar = (1, 2, 3)

    @property
    @abstractmethod
    def plant(self) -> Dynamics:
        """The plant."""

    @property
    @abstractmethod
    def equilibrium(self) -> tuple[np.ndarray, np.ndarray]:
        """Goal state and the input that holds it."""

    @property
    @abstractmethod
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        """Half widths of the boxes of states and inputs, around the equilibrium."""

    def settings(self) -> Mapping[str, Any]:
        budgets = {
            name: getattr(self, name) for name in ("count", "epochs", "batch", "grid", "horizon", "parts")
        }
        names = ("penalty", "soft_weight", "rate", "dt", "learning_rates", "hidden")
        constants = {name: getattr(self, name) for name in names}
        boxes = {"equilibrium": self.equilibrium, "reach": self.reach}
        return budgets | constants | {name: [a.tolist() for a in pair] for name, pair in boxes.items()}

    def fast(self) -> Experiment:
        return replace(self, count=50, epochs=3, batch=25, grid=3, horizon=20, parts=500)

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        coils, policy = self.train(row, int(seed or 0), directory)
        reached = self._reached(policy)
        if coils is None:
            return reached
        samples = self._samples(int(seed or 0), self.count)
        judged = self._judged(coils, samples, corrected=row.startswith("coils"), own=policy is coils.policy)
        return reached | judged

    def _samples(self, seed: int, count: int) -> Samples:
        from constrained_nn.training import sample_dynamics

        (_, hold), (_, room) = self.equilibrium, self.reach
        return sample_dynamics(self.plant, self.state_box, (hold - room, hold + room), count=count, seed=seed)

    @property
    def state_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the states."""
        goal, width = self.equilibrium[0], self.reach[0]
        return goal - width, goal + width

    def train(self, row: str, seed: int, directory: Path) -> tuple[CoILS | None, Controller]:
        """Model (or None) and controller of a row; continues from a checkpoint in `directory`."""
        import torch

        from constrained_nn.control import FunctionController
        from constrained_nn.training import WorstStates, fit, fit_dynamics

        hold = torch.from_numpy(self.equilibrium[1])
        if row == "idle":
            return None, FunctionController(lambda t, x: hold.expand(*x.shape[:-1], -1))
        if row == "known-lqr":
            return None, self._regulator(self.plant)
        samples = self._samples(seed, self.count)
        coils = self._untrained(seed, samples)
        first, last = self.learning_rates
        options: dict[str, Any] = {
            "epochs": self.epochs,
            "learning_rate": first,
            "final_learning_rate": last,
            "seed": seed,
            "batch": self.batch,
            "checkpoint": directory / "fit.safetensors",
        }
        if row == "coils":
            worst = WorstStates(self.state_box)
            fit_dynamics(coils, samples, penalty=self.penalty, worst=worst, **options)
            return coils, coils.policy
        if row == "coils-no-penalty":
            fit_dynamics(coils, samples, penalty=0.0, **options)
            return coils, coils.policy
        scale = samples.velocity.std(0)

        def loss(epoch: int, x: torch.Tensor, u: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
            total = ((coils.model(x, u) - velocity) / scale).square().mean(-1)
            if row == "soft":
                value, slope = coils.certificate.value_and_gradient(x)
                along = (slope * coils.model(x, coils.policy(0.0, x))).sum(-1)
                size = torch.linalg.vector_norm(slope / scale, dim=-1).clamp_min(1e-9)
                excess = torch.relu(along + self.rate * value) / (size * scale.square().mean())
                total = total + self.soft_weight * excess.square()
            return total.sum()

        fit(coils, list(samples), loss, **options)
        if row == "soft":
            return coils, coils.policy
        return coils, self._regulator(coils.model)

    def _regulator(self, plant: Any) -> Controller:
        """LQR of a plant or a model at the equilibrium, unit weights, clipped to the input limits."""
        import torch

        from constrained_nn.control import FunctionController, Linearization, StateDependentLQR
        from constrained_nn.solvers import solve_care

        goal, hold, room = (torch.from_numpy(a) for a in (*self.equilibrium, self.reach[1]))
        Q, R = torch.eye(len(goal)).double(), torch.eye(len(hold)).double()
        if not hasattr(plant, "drift"):  # not affine in the input: the gain at the goal is all there is
            A, B = plant.linearize(goal, hold)
            gain = solve_care(A, B, Q, R).gain
            low, high = hold - room, hold + room
            return FunctionController(lambda t, x: (hold - (x - goal) @ gain.mT).clamp(low, high))
        return StateDependentLQR(Linearization(plant), Q, R, goal, hold, lower=hold - room, upper=hold + room)

    def _untrained(self, seed: int, samples: Samples) -> CoILS:
        """Networks whose inputs and outputs are of size one on the samples."""
        import torch

        from constrained_nn.certificates import NeuralLyapunov
        from constrained_nn.control import AffineModel, AnchoredController
        from constrained_nn.models import CoILS

        (goal, hold), (width, room) = (
            [torch.from_numpy(a) for a in pair] for pair in (self.equilibrium, self.reach)
        )
        n, speed = len(goal), samples.velocity.std(0).clamp_min(1e-12)
        velocities = torch.cat([speed, (speed.unsqueeze(-1) / room).flatten()])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AffineModel(_network(goal, width, velocities), goal, hold)
            policy = AnchoredController(_network(goal, width, room), goal, hold, hold - room, hold + room)
            certificate = NeuralLyapunov(n, rate=self.rate, hidden=self.hidden, origin=goal)
        return CoILS(model, policy, certificate).double()

    def starts(self) -> torch.Tensor:
        """The grid of start states."""
        import torch

        side = torch.linspace(-1.0, 1.0, self.grid, dtype=torch.float64)
        goal, width = torch.from_numpy(self.equilibrium[0]), torch.from_numpy(self.reach[0])
        return goal + width * torch.cartesian_prod(*[side] * len(goal))

    def _reached(self, policy: Controller) -> dict[str, float]:
        """Share of the grid that ends near the goal on the plant."""
        import torch

        from control_envs.simulate import rollout

        policy.eval()
        goal, width = torch.from_numpy(self.equilibrium[0]), torch.from_numpy(self.reach[0])
        with torch.no_grad():
            path = rollout(self.plant, policy, self.starts(), dt=self.dt, horizon=self.horizon)
        distance = ((path.x[:, -1] - goal).abs() / width).amax(-1)
        return {f"reach_{p}": 100.0 * (distance < p / 100).double().mean().item() for p in (2, 10)}

    def _judged(self, coils: CoILS, samples: Samples, *, corrected: bool, own: bool) -> dict[str, float]:
        """Fit on held-out data; of a corrected model how much and how well; whether V falls on the plant."""
        import torch

        coils.eval()
        test, states = self._samples(1_000_003, 1000), self.starts()
        scale = samples.velocity.std(0)
        states = states[(states - torch.from_numpy(self.equilibrium[0])).abs().amax(-1) > 0]
        metrics: dict[str, float] = {}
        with torch.no_grad():
            model = coils if corrected else coils.model
            error = (model(test.x, test.u) - test.velocity) / scale
            if corrected:
                for name, x in (("active", samples.x), ("active_grid", states)):
                    active = (coils.correction(x) / scale).abs().amax(-1) > IDLE
                    metrics[name] = 100.0 * active.double().mean().item()
                metrics["slack"] = coils.slack(states).max().item()
            if own:
                velocity = self.plant.derivative(0.0, states, coils.policy(0.0, states), xp=torch)
                falls = (coils.certificate.gradient(states) * velocity).sum(-1) < 0
                metrics["decreasing"] = 100.0 * falls.double().mean().item()
        if own:
            shown = self.shown(coils)
            share = 100.0 * shown.share if shown.case != "nothing" else 0.0
            metrics |= {
                "shown_rate": max(shown.rate, 0.0),
                "shown_share": share,
                "residual": shown.residual,
            }
        return metrics | {"fit": error.square().mean().sqrt().item()}

    def shown(self, coils: CoILS) -> TrueSystem:
        """What is shown of the plant: grade `bound` in the plane, `sampled` with more states."""
        import torch

        from constrained_nn.evidence import bound_true_system, sample_true_system

        low, high = (torch.from_numpy(end) for end in self.state_box)
        rate = 0.2 * self.rate
        if len(low) == 2:
            return bound_true_system(coils, self.plant, (low, high), rate=rate, most=self.parts)
        return sample_true_system(coils, self.plant, (low, high), rate=rate)


def _network(center: torch.Tensor, width: torch.Tensor, scale: torch.Tensor) -> torch.nn.Module:
    """`scale · net(2 (x − center)/width)`, the fixed maps as layers whose weights are not trained."""
    import torch
    from torch import nn

    inner, outer = nn.Linear(len(center), len(center)), nn.Linear(len(scale), len(scale), bias=False)
    with torch.no_grad():
        inner.weight.copy_(torch.diag(2.0 / width))
        inner.bias.copy_(-2.0 * center / width)
        outer.weight.copy_(torch.diag(scale))
    hidden = [nn.Linear(len(center), 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, len(scale))]
    return nn.Sequential(inner.requires_grad_(False), *hidden, outer.requires_grad_(False))
