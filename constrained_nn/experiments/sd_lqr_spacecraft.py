"""SD-LQR's spacecraft: how many samples a learned regulator needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from constrained_nn.experiments._protocol import Column, Experiment, Published, Row

if TYPE_CHECKING:
    import torch
    from torch import nn

    from constrained_nn.control import AffineModel, Factorization

COUNTS = (50, 200, 1000)
_REGULARIZATION = 1e-6
# Half width of the deviations on which the neural factors are made consistent.
_NEAR = 0.2


def _row(name: str, label: str, *numbers: float, seeded: bool = True) -> Row:
    published = {f"mean_{c}": Published(v) for c, v in zip(COUNTS, numbers, strict=False)}
    return Row(name, label, published, seeded=seeded)


@dataclass(frozen=True)
class SpacecraftRegulator(Experiment):
    """Regulators of a spacecraft whose model is learned from uniform samples.

    Args:
        steps: Full-batch steps of Adam.
        pairs: Random pairs of states on which the neural factors are made consistent.
        tests: Start states.
        horizon: Control intervals of 1/150 s.
    """

    steps: int = 8000
    pairs: int = 512
    tests: int = 100
    horizon: int = 750

    name: ClassVar[str] = "sd-lqr-spacecraft"
    title: ClassVar[str] = "SD-LQR: spacecraft, few samples"
    source: ClassVar[str] = "Richards et al. (arXiv 2302.02529), figure, read off to about 3 %"
    columns: ClassVar = (
        *(Column(f"mean_{c}", f"mean error, N = {c}", ".3f") for c in COUNTS),
        *(Column(f"median_{c}", f"median, N = {c}", ".3f") for c in COUNTS),
        Column("fell_back", "fallback [%]", ".2f"),
    )
    rows: ClassVar = (
        _row("sd-lqr", "SD-LQR, mean-value factors of the model", 0.483, 0.483, 0.483),
        _row("sd-lqr-neural", "SD-LQR, learned factors", 0.483, 0.483, 0.483),
        _row("lqr-learned", "LQR of the model", 22.9, 1.00, 0.48),
        _row("lqr-known", "LQR of the known plant", 0.483, 0.483, 0.483, seeded=False),
        _row("sd-lqr-known", "SD-LQR of the known plant", seeded=False),
    )
    seeds: ClassVar = (1, 2, 3)
    notes: ClassVar = (
        "Error of one run: `sqrt(1/T ∫ |e|²/|e(0)|² dt)` over 5 s at 150 Hz, as in the figures; inputs clipped. "
        "Published: tracking of optimal trajectories, mean over 100 starts, median over 5 seeds, 50,000 steps. Here: "
        "regulation to the origin from uniform starts, mean and median over the starts, mean over 3 seeds, 8,000 "
        "steps.",
        "All learned rows share the regression of drift and input matrix (6-128-128, tanh); the learned factors are "
        "a second network, fitted to be consistent with it on random pairs. The mean-value factors need none.",
    )

    def settings(self) -> Mapping[str, Any]:
        budgets = {name: getattr(self, name) for name in ("steps", "pairs", "tests", "horizon")}
        return budgets | {"counts": list(COUNTS), "learning_rate": 1e-3, "near": _NEAR, "l2": _REGULARIZATION}

    def fast(self) -> Experiment:
        return SpacecraftRegulator(steps=5, pairs=16, tests=3, horizon=5)

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        from constrained_nn.control import Linearization, MeanValue
        from control_envs.tasks import SpacecraftTask

        plant: Any = SpacecraftTask().plant
        if row in ("lqr-known", "sd-lqr-known"):
            found = self._judged(Linearization(plant) if row == "lqr-known" else MeanValue(plant, 3))
            fell_back = found.pop("fell_back")
            return {f"{name}_{c}": v for c in COUNTS for name, v in found.items()} | {"fell_back": fell_back}
        metrics: dict[str, float] = {"fell_back": 0.0}
        for count in COUNTS:
            factorization = self._learned(row, int(seed or 0), count, directory)
            found = self._judged(factorization)
            metrics["fell_back"] = max(metrics["fell_back"], found.pop("fell_back"))
            metrics |= {f"{name}_{count}": v for name, v in found.items()}
        return metrics

    def _learned(self, row: str, seed: int, count: int, directory: Path) -> Factorization:
        import torch

        from constrained_nn.control import AffineModel, Linearization, MeanValue, NeuralFactorization
        from constrained_nn.training import fit, sample_dynamics
        from control_envs.tasks import SpacecraftTask

        task = SpacecraftTask()
        boxes = (task.start_low, task.start_high), (task.input_low, task.input_high)
        samples = sample_dynamics(task.plant, *boxes, count=count, seed=seed)
        goal, hold = torch.from_numpy(task.goal), torch.from_numpy(task.goal_input)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AffineModel(_network(6, 6 + 18), goal, hold).double()
            factors = NeuralFactorization(_network(12, 4 * 36), model).double()
        scale = samples.velocity.std(0)

        def regression(epoch: int, x: torch.Tensor, u: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
            error = (model(x, u) - velocity) / scale
            return error.square().mean(-1).sum() + _penalty(model, len(x))

        options: dict[str, Any] = {"epochs": self.steps, "learning_rate": 1e-3, "seed": seed}
        fit(model, list(samples), regression, checkpoint=directory / f"model_{count}.safetensors", **options)
        if row == "lqr-learned":
            return Linearization(model)
        if row == "sd-lqr":
            return MeanValue(model)
        model.requires_grad_(False)
        low, high = (torch.from_numpy(a) for a in boxes[0])

        def consistency(epoch: int, index: torch.Tensor) -> torch.Tensor:
            draw = torch.rand(2, len(index), 6, dtype=torch.float64)
            x, e = low + (high - low) * draw[0], _NEAR * (2.0 * draw[1] - 1.0)
            return _inconsistency(factors, model, x, e, scale) + _penalty(factors.factors, len(index))

        file = directory / f"factors_{count}.safetensors"
        fit(factors, [torch.arange(self.pairs)], consistency, checkpoint=file, **options)
        return factors

    def _judged(self, factorization: Factorization) -> dict[str, float]:
        """Mean and median error over the test starts, and how often the gain of the reference stood in."""
        import torch

        from constrained_nn.control import StateDependentLQR
        from control_envs.simulate import rollout
        from control_envs.tasks import SpacecraftTask

        task = SpacecraftTask()
        low, high = torch.from_numpy(task.input_low), torch.from_numpy(task.input_high)
        goal, hold = torch.from_numpy(task.goal), torch.from_numpy(task.goal_input)
        eye, unit = torch.eye(6).double(), torch.eye(3).double()
        policy = StateDependentLQR(factorization, eye, unit, goal, hold, lower=low, upper=high).eval()
        calls: list[float] = []

        def controller(t: Any, x: torch.Tensor) -> torch.Tensor:
            feedback = policy.solve(t, x)
            calls.append(feedback.fell_back.double().mean().item())
            return feedback.value

        starts = torch.from_numpy(task.sample_starts(np.random.default_rng(42), self.tests))
        with torch.no_grad():
            x = rollout(task.plant, controller, starts, dt=task.dt, horizon=self.horizon).x
        share = (x[:, :-1].square().sum(-1) / starts.square().sum(-1, keepdim=True)).mean(-1).sqrt()
        return {
            "mean": share.mean().item(),
            "median": share.median().item(),
            "fell_back": 100.0 * float(np.mean(calls)),
        }


def _inconsistency(
    factors: Any, model: AffineModel, x: torch.Tensor, e: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """`Σ |A₀ e − (d(x) − d(x̄))|² + Σⱼ |Aⱼ e − (bⱼ(x) − bⱼ(x̄))|²`, `x̄ = x − e`, in units of the velocities."""
    import torch

    here, there = model.parts(x), model.parts(x - e)
    change = torch.cat([(here[0] - there[0]).unsqueeze(-2), (here[1] - there[1]).mT], -2)
    predicted = (factors.matrices(x - e, e) @ e[:, None, :, None]).squeeze(-1)
    return ((predicted - change) / scale).square().mean(-1).sum()


def _penalty(network: nn.Module, count: int) -> torch.Tensor:
    import torch

    return count * _REGULARIZATION * sum((p.square().sum() for p in network.parameters()), torch.zeros(()))


def _network(inputs: int, outputs: int) -> nn.Module:
    from torch import nn

    hidden = [nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(128, outputs))


EXPERIMENT = SpacecraftRegulator()
