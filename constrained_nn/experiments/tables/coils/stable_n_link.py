"""Stable dynamics (Manek and Kolter), the method under CoILS without input: pendulums of one and two links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from constrained_nn.experiments.runner import Column, Experiment, Row
from constrained_nn.experiments.tables.coils.table import IDLE
from control_envs.dynamics import Dynamics, NLinkPendulum

if TYPE_CHECKING:
    import torch
    from torch import nn

LINKS = (1, 2)


@dataclass(frozen=True)
class StableNLink(Experiment):
    """Models of a damped pendulum from samples of its velocity, judged by roll-outs beside the plant.

    Args:
        count: Samples for each link.
        epochs: Passes over them.
        batch: Samples a step, for each link.
        starts: Roll-outs.
        horizon: Steps of a roll-out.
    """

    count: int = 1000
    epochs: int = 100
    batch: int = 200
    starts: int = 100
    horizon: int = 1000

    rate: ClassVar[float] = 1e-3
    dt: ClassVar[float] = 0.01
    learning_rates: ClassVar[tuple[float, float]] = (5e-3, 5e-5)
    hidden: ClassVar[tuple[int, int]] = (60, 60)
    widths: ClassVar[Mapping[str, int]] = {"stable": 100, "naive": 116}
    name: ClassVar[str] = "stable-n-link"
    title: ClassVar[str] = "Stable dynamics: pendulums of one and two links"
    source: ClassVar[str] = "Manek, Kolter (arXiv 2001.06116) draw errors over time and print no table"
    columns: ClassVar = tuple(
        Column(f"{name}_{n}", f"{label}, n = {n}", style)
        for name, label, style in (
            ("error", "cumulative error [s]", ".2f"),
            ("bounded", "bounded [%]", ".1f"),
            ("fit", "error on held-out data", ".3f"),
            ("active", "correction active, samples [%]", ".1f"),
            ("slack", "worst slack of the model", ".1e"),
        )
        for n in LINKS
    )
    rows: ClassVar = (
        Row("stable", "StableDynamics, convex V"),
        Row("stable-angles", "StableDynamics, V and network of sines and cosines"),
        Row("naive", "network alone", note="no certificate, so neither correction nor slack."),
        Row(
            "naive-angles",
            "network alone, of sines and cosines",
            note="no certificate, so neither correction nor slack.",
        ),
    )
    seeds: ClassVar = (1,)
    notes: ClassVar = (
        "Links of 1/n m, masses of 1 kg, friction 0.3 N m s/rad; 1000 n states, uniform in [−π, π]^(2n), with their "
        "velocities. Networks 2n-100-100-2n (ReLU) with `V` of two layers of 60, and 2n-116-116-2n alone, of about as "
        "many weights; `dV/dt <= −0.001 V`. The published code takes 1,000 epochs of batches of 2,000 with Adam at "
        "1e-3; here 100 epochs of 5 batches, from 5e-3 to 5e-5 along a cosine.",
        "Roll-outs: 100 fresh starts from the same box, 1,000 steps of 0.01 s (RK4), model and plant beside each "
        "other. Cumulative error: `∫ |e| dt` over the 10 s, angles wrapped, in half widths of the box (π rad, π "
        "rad/s); median over the starts. Bounded: no rate of the model is ever above twice the largest rate of the "
        "plant in any of its runs. Held-out error in units of the standard deviation of the velocities. Slack: "
        "`∇V·f + rate V` over its own size, `|∇V|(|f̂| + |f|) + rate V`, on all states that the model visits and on "
        "10,000 uniform ones.",
        "A convex `V` of the plain angles cannot fall while the pendulum turns over, which the plant does from "
        "a part of the box; nor is the energy convex in it. `V` of sines and cosines is the same after a full turn.",
        "![phase portraits](../images/stable_n_link.png)",
    )

    def settings(self) -> Mapping[str, Any]:
        names = ("count", "epochs", "batch", "starts", "horizon", "rate", "dt", "learning_rates", "hidden")
        return {name: getattr(self, name) for name in names} | {
            "widths": dict(self.widths),
            "links": list(LINKS),
        }

    def fast(self) -> Experiment:
        return replace(self, count=50, epochs=3, batch=25, starts=5, horizon=20)

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        metrics: dict[str, float] = {}
        for n in LINKS:
            model = self.train(row, n, int(seed or 0), directory)
            found = self._judged(model, n, int(seed or 0))
            metrics |= {f"{name}_{n}": value for name, value in found.items()}
        return metrics

    @staticmethod
    def plant(n: int) -> NLinkPendulum:
        """The pendulum of `n` links."""
        return NLinkPendulum(lengths=(1.0 / n,) * n, masses=(1.0,) * n)

    def states(self, n: int, count: int, seed: int) -> torch.Tensor:
        """Uniform states in the box `(count, 2n)`."""
        import torch

        return torch.from_numpy(np.random.default_rng([seed, n]).uniform(-np.pi, np.pi, (count, 2 * n)))

    def velocity(self, n: int, x: torch.Tensor) -> torch.Tensor:
        """Velocity of the plant."""
        return self.plant(n).derivative(0.0, x, x.new_zeros(*x.shape[:-1], 1))

    def train(self, row: str, n: int, seed: int, directory: Path) -> nn.Module:
        """The model of a row, `x -> dx/dt`; it continues from a checkpoint in `directory`."""
        import torch

        from constrained_nn.certificates import NeuralLyapunov
        from constrained_nn.models import StableDynamics
        from constrained_nn.training import fit

        x = self.states(n, self.count * n, seed)
        v = self.velocity(n, x)
        scale = v.std(0)
        angles = tuple(range(n)) if row.endswith("angles") else ()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network: nn.Module = _network(2 * n, angles, self.widths[row.split("-")[0]], scale)
            if row.startswith("stable"):
                V = NeuralLyapunov(2 * n, rate=self.rate, hidden=self.hidden, angles=angles)
                network = StableDynamics(network, V)
        network = network.double()

        def loss(epoch: int, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return ((network(x) - v) / scale).square().mean(-1).sum()

        first, last = self.learning_rates
        fit(
            network,
            (x, v),
            loss,
            epochs=self.epochs,
            learning_rate=first,
            final_learning_rate=last,
            seed=seed,
            batch=self.batch * n,
            checkpoint=directory / f"fit-{n}.safetensors",
        )
        return network.eval()

    def paths(self, model: nn.Module, n: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Roll-outs `(batch, horizon + 1, 2n)` of the model and of the plant."""
        import torch

        from control_envs.simulate import rollout

        plant = self.plant(n)
        found = []
        with torch.no_grad():
            for dynamics in (_Learned(model, plant), plant):
                rest = x.new_zeros(len(x), dynamics.input_dim)
                found.append(rollout(dynamics, lambda t, x, u=rest: u, x, dt=self.dt, horizon=self.horizon).x)
        return found[0], found[1]

    def _judged(self, model: nn.Module, n: int, seed: int) -> dict[str, float]:
        import torch

        from constrained_nn.models import StableDynamics

        path, true = self.paths(model, n, self.states(n, self.starts, 2_000_003 + seed))
        gap = path - true
        turned = torch.remainder(gap[..., :n] + np.pi, 2.0 * np.pi) - np.pi
        distance = torch.linalg.vector_norm(torch.cat([turned, gap[..., n:]], -1), dim=-1) / np.pi
        limit = 2.0 * true[..., n:].abs().max()
        fresh = self.states(n, 10_000, 1_000_003)
        scale = self.velocity(n, self.states(n, self.count * n, seed)).std(0)
        metrics = {
            # a run whose state is no longer finite has left for good
            "error": distance.nan_to_num(float("inf"), float("inf")).sum(-1).median().item() * self.dt,
            "bounded": 100.0 * (path[..., n:].abs().amax((-2, -1)) <= limit).double().mean().item(),
        }
        with torch.no_grad():
            metrics["fit"] = ((model(fresh) - self.velocity(n, fresh)) / scale).square().mean().sqrt().item()
            if isinstance(model, StableDynamics):
                active = corrected(model, self.states(n, self.count * n, seed), scale)
                metrics["active"] = 100.0 * active.double().mean().item()
                metrics["slack"] = max(slack(model, x).max().item() for x in (fresh, *path.split(20)))
        return metrics

    def draw_portraits(self, runs: Path, path: Path, seed: int = 1) -> Path:
        """Phase portraits of one link, of the finished cells of a seed: the plant, and every row."""
        import torch

        from constrained_nn.models import StableDynamics
        from constrained_nn.plotting import Portrait, plot_portraits

        side = torch.linspace(-np.pi, np.pi, 5, dtype=torch.float64)
        starts = torch.cartesian_prod(side, side)
        scale = self.velocity(1, self.states(1, self.count, seed)).std(0)
        panels: dict[str, Portrait] = {}

        def numpy(f: Any) -> Any:
            return lambda x: f(torch.from_numpy(x)).detach().numpy()

        for row in self.rows:
            model = self.train(row.name, 1, seed, runs / f"{row.name}-seed{seed}")
            learned, true = self.paths(model, 1, starts)
            if not panels:
                panels["plant"] = Portrait(numpy(lambda x: self.velocity(1, x)), None, true.numpy())
            value = marked = None
            if isinstance(model, StableDynamics):
                value = numpy(model.certificate.value)
                marked = numpy(lambda x, model=model: corrected(model, x, scale))
            panels[row.label.replace(", ", ",\n")] = Portrait(
                numpy(model), value, learned.numpy(), marked=marked
            )
        box = (np.array([-1.5 * np.pi, -8.0]), np.array([1.5 * np.pi, 8.0]))
        return plot_portraits(path, panels, box, labels=("theta [rad]", "rate [rad/s]"), count=80)


def slack(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`∇V·f + rate V` of a `StableDynamics`, at most 0 to rounding, over `|∇V|(|f̂| + |f|) + rate V`, its own size."""
    import torch

    f = model.solve(x)
    value, gradient = model.certificate.value_and_gradient(x)
    size = torch.linalg.vector_norm(f.raw, dim=-1) + torch.linalg.vector_norm(f.value, dim=-1)
    size = torch.linalg.vector_norm(gradient, dim=-1) * size + model.certificate.rate * value
    excess = (gradient * f.value).sum(-1) + model.certificate.rate * value
    return excess / torch.where(size > 0, size, 1.0)


def corrected(model: Any, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Whether the correction acts at these states."""
    f = model.solve(x)
    return ((f.value - f.raw) / scale).abs().amax(-1) > IDLE


@dataclass(frozen=True, eq=False)
class _Learned(Dynamics):
    """A network `x -> dx/dt` in the place of a plant, without input."""

    network: Any
    like: Dynamics

    @property
    def state(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.like.state

    @property
    def input(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return ()

    def derivative(self, t: Any, x: Any, u: Any, w: Any = None, *, xp: Any = None) -> Any:
        return self.network(x)


def _network(n: int, angles: tuple[int, ...], width: int, scale: torch.Tensor) -> nn.Sequential:
    """Two hidden layers of ReLU; outputs of the size of the velocities, by a last layer that is not trained."""
    import torch
    from torch import nn

    from constrained_nn.certificates import AngleEmbedding

    first: list[nn.Module] = [AngleEmbedding(n, angles)] if angles else []
    outer = nn.Linear(n, n, bias=False)
    with torch.no_grad():
        outer.weight.copy_(torch.diag(scale))
    hidden = [
        nn.Linear(n + len(angles), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, n),
    ]
    return nn.Sequential(*first, *hidden, outer.requires_grad_(False))


EXPERIMENT = StableNLink()
