"""Learning to optimize: a non-convex program of 100 variables, solved by one pass of a network."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Column, Experiment, Published, Row
from constrained_nn.experiments.tables.hardnet.targets import VIOLATED

if TYPE_CHECKING:
    import numpy as np
    import torch

    from constrained_nn.sets import Polyhedron

N, ROWS = 100, 50


def _row(name: str, label: str, objective: tuple[float, ...], *violations: float, **more: Any) -> Row:
    names = ("max_inequality", "mean_inequality", "max_equality", "mean_equality")
    published = {"objective": Published(*objective)}
    published |= {key: Published(value) for key, value in zip(names, violations, strict=True)}
    return Row(name, label, published, **more)


@dataclass(frozen=True, eq=False)
class Program:
    """`min ½ yᵀ Q y + pᵀ sin(y)` subject to `A y <= b`, `C y = x`, with the published draws.

    Args:
        Q: Diagonal `(100,)`.
        p: Weights of the sines `(100,)`.
        A, b: Inequalities `(50, 100)`, `(50,)`.
        C: Equalities `(50, 100)`.
        X: Right-hand sides `(10000, 50)`: 8334 to learn from, 833 for validation, 833 to test.
        free: Variables that the network of DC3 outputs `(50,)`.
    """

    Q: np.ndarray
    p: np.ndarray
    A: np.ndarray
    b: np.ndarray
    C: np.ndarray
    X: np.ndarray
    free: np.ndarray

    @property
    def train(self) -> np.ndarray:
        return self.X[:8334]

    @property
    def test(self) -> np.ndarray:
        return self.X[-833:]

    def objective(self, y: torch.Tensor) -> torch.Tensor:
        """Objective of each element."""
        import torch

        Q, p = torch.from_numpy(self.Q).to(y.dtype), torch.from_numpy(self.p).to(y.dtype)
        return (0.5 * Q * y.square() + p * torch.sin(y)).sum(-1)

    def set(self, x: torch.Tensor) -> Polyhedron:
        """The feasible set of each element: 50 inequalities, then 50 equalities, one constant matrix."""
        import torch

        from constrained_nn.sets import Polyhedron

        rows, b = (torch.from_numpy(t).to(x.dtype) for t in (np_stack(self.A, self.C), self.b))
        b = b.expand(*x.shape[:-1], ROWS)
        return Polyhedron(rows, torch.cat([torch.full_like(b, -torch.inf), x], -1), torch.cat([b, x], -1))

    def solve(self, x: np.ndarray) -> np.ndarray:
        """A local optimum from `C⁺ x`, by SLSQP on the equality manifold."""
        import numpy as np
        from scipy.optimize import minimize

        start = np.linalg.pinv(self.C) @ x
        null = np.linalg.svd(self.C)[2][ROWS:].T
        A = self.A @ null
        room = self.b - self.A @ start

        def value(z: np.ndarray) -> tuple[float, np.ndarray]:
            y = start + null @ z
            slope = self.Q * y + self.p * np.cos(y)
            return float(0.5 * self.Q @ y**2 + self.p @ np.sin(y)), null.T @ slope

        rows = {"type": "ineq", "fun": lambda z: room - A @ z, "jac": lambda z: -A}
        found = minimize(
            value,
            np.zeros(N - ROWS),
            jac=True,
            method="SLSQP",
            constraints=rows,
            options={"maxiter": 300, "ftol": 1e-9},
        )
        return start + null @ found.x


def np_stack(*rows: np.ndarray) -> np.ndarray:
    """Rows below each other."""
    import numpy as np

    return np.concatenate(rows)


@functools.cache
def published_program() -> Program:
    """The instance of the paper: NumPy seed 17, in the published order of draws."""
    import numpy as np

    state = np.random.RandomState(17)
    Q, p = state.random_sample(N), state.random_sample(N)
    A, C = state.normal(size=(ROWS, N)), state.normal(size=(ROWS, N))
    b = np.abs(A @ np.linalg.pinv(C)).sum(1)
    X = state.uniform(-1.0, 1.0, (10000, ROWS))
    return Program(Q, p, A, b, C, X, state.choice(N, N - ROWS, replace=False))


@dataclass(frozen=True)
class LearningToOptimize(Experiment):
    """Objective and violations on the 833 test instances.

    Args:
        epochs: Passes over the training instances.
        samples: Training instances.
        instances: Test instances that the solver gets.
    """

    epochs: int = 1000
    samples: int = 8334
    instances: int = 833

    name: ClassVar[str] = "learning-to-optimize"
    title: ClassVar[str] = "Learning to optimize: a non-convex program"
    source: ClassVar[str] = "HardNet (arXiv 2410.10807 v4), the table of its learning-to-optimize task"
    columns: ClassVar = (
        Column("objective", "objective"),
        Column("max_inequality", "max inequality"),
        Column("mean_inequality", "mean inequality"),
        Column("max_equality", "max equality"),
        Column("mean_equality", "mean equality"),
        Column("worst_row", "worst row anywhere", ".1e"),
        Column("test_ms", "all instances [ms]", ".1f"),
        Column("train_seconds", "training [s of one core]", ".0f"),
    )
    rows: ClassVar = (
        _row("optimum", "SLSQP, one instance after another", (-14.28,), 0.0, 0.0, 0.0, 0.0, seeded=False),
        _row("none", "NN", (-27.43,), 12.05, 1.11, 15.11, 6.39),
        _row("soft", "Soft", (-13.13, 0.01), 0.0, 0.0, 0.35, 0.13),
        _row("dc3", "DC3", (-12.57, 0.04), 0.0, 0.0, 0.0, 0.0),
        _row("hardnet", "HardNet-Aff", (-14.10, 0.01), 0.0, 0.0, 0.0, 0.0),
    )
    seeds: ClassVar = (1,)
    notes: ClassVar = (
        "Published setting: two hidden layers of 200 with batch normalization, ReLU and dropout 0.2, Adam at 1e-4, "
        "batch 200, 1,000 epochs, penalty weight 10, the layer comes on after 100 epochs, float64. No labels: the "
        "loss is the objective. Violations are means over instances of the largest and of the mean row. The "
        "published optimum is of IPOPT, ours of SLSQP on the manifold of the equalities. DC3: completion from the "
        "published choice of free variables, 10 corrections of step 1e-7 and momentum 0.5.",
    )

    def settings(self) -> Mapping[str, Any]:
        return {"epochs": self.epochs, "samples": self.samples, "instances": self.instances, "warmup": 100}

    def fast(self) -> LearningToOptimize:
        return LearningToOptimize(epochs=2, samples=400, instances=2)

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        import numpy as np
        import torch

        program = published_program()
        start = time.process_time()
        if row == "optimum":
            x = torch.from_numpy(program.test[: self.instances])
            y = torch.from_numpy(np.stack([program.solve(one) for one in x.numpy()]))
            return self._measure(program, x, y) | {"test_ms": 1e3 * (time.process_time() - start)}
        resumed = (directory / "checkpoint.safetensors").exists()
        network, method = self.train(row, int(seed or 0), directory)
        took = {} if resumed else {"train_seconds": time.process_time() - start}
        x = torch.from_numpy(program.test)
        times = []
        with torch.no_grad():
            for _ in range(10):
                start = time.process_time()
                y = method.decide(network(x), program.set(x))
                times.append(1e3 * (time.process_time() - start))
        metrics = self._measure(program, x, y)  # pyright: ignore[reportPossiblyUnboundVariable]
        return metrics | {"test_ms": sorted(times)[5]} | took

    def train(self, row: str, seed: int, directory: Path) -> tuple[Any, Any]:
        """Trained network and its method."""
        import torch

        from constrained_nn.layers import Completion, HardNetAffine
        from constrained_nn.training import DC3, Completed, HardNet, Soft, Unconstrained, fit

        program = published_program()
        layer = HardNetAffine()
        x = torch.from_numpy(program.train[: self.samples])
        method = {
            "none": lambda: Unconstrained(),
            "soft": lambda: Soft(weight=10.0),
            "dc3": lambda: Completed(
                weight=10.0,
                complete=Completion(torch.from_numpy(program.C), program.free.tolist()),
                free=DC3(corrections=10, step=2e-7, normalized=False),
            ),
            "hardnet": lambda: HardNet(
                layer, weight=10.0, warmup=min(100, self.epochs // 2), factor=layer.factor(program.set(x[:1]))
            ),
        }[row]()
        network = make_network(seed, N - ROWS if row == "dc3" else N)

        def loss(epoch: int, x: torch.Tensor) -> torch.Tensor:
            raw = network(x)
            set = program.set(x)
            y = method.decide(raw, set, epoch)
            on = isinstance(method, HardNet) and method.share(epoch) == 1.0
            penalty = 0.0 if on else method.penalty(raw, y, set, epoch)  # zero where the layer is on
            return (program.objective(y) + penalty).sum()

        saved = directory / "checkpoint.safetensors"
        fit(
            network,
            [x],
            loss,
            epochs=self.epochs,
            learning_rate=1e-4,
            seed=seed,
            batch=200,
            checkpoint=saved,
            every=20,
        )
        return network, method

    def _measure(self, program: Program, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        residual = program.set(x).residual(y).abs()
        metrics = {"objective": program.objective(y).mean().item(), "worst_row": residual.max().item()}
        for name, part in (("inequality", residual[:, :ROWS]), ("equality", residual[:, ROWS:])):
            metrics[f"max_{name}"] = part.amax(-1).mean().item()
            metrics[f"mean_{name}"] = part.mean().item()
            metrics[f"violated_{name}"] = (part > VIOLATED).sum(-1).double().mean().item()
        return metrics


def make_network(seed: int, outputs: int = N) -> torch.nn.Sequential:
    """50 → 200 → 200 → `outputs` with batch normalization, ReLU and dropout; Kaiming-normal weights."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[torch.nn.Module] = []
        for width in (ROWS, 200):
            layers += [torch.nn.Linear(width, 200), torch.nn.BatchNorm1d(200)]
            layers += [torch.nn.ReLU(), torch.nn.Dropout(0.2)]
        network = torch.nn.Sequential(*layers, torch.nn.Linear(200, outputs)).double()
        for layer in network:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.kaiming_normal_(layer.weight)
    return network


EXPERIMENT = LearningToOptimize()
