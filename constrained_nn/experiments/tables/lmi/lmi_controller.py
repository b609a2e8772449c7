"""LMI-Net's second table: state feedback and invariant ellipsoid together, by one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Column, Experiment, Row
from constrained_nn.experiments.tables.lmi import problems as common

if TYPE_CHECKING:
    import torch

SETS = ("train", "ood")
_COLUMNS = tuple(f"{what}_{name}" for name in SETS for what in ("violated", "unstable", "ms"))
PAPER = 50.0  # the scale of the paper's step, σ = 0.01, in our penalty


def _row(name: str, label: str, *numbers: float, note: str = "") -> Row:
    values = common.published(_COLUMNS, numbers) if numbers else {}
    return Row(name, label, values, note=note)


@dataclass(frozen=True)
class EllipsoidControllers(Experiment):
    """Networks that map `(A, B, B_w)` to `(Q, Y)`: `u = Y Q⁻¹ x` keeps `{xᵀ Q⁻¹ x <= 1}` invariant.

    Args:
        epochs: Passes over the training systems with the layer.
        soft_epochs: Passes of the soft baseline.
        train_count: Training systems.
        test_count: Systems in each test set.
    """

    epochs: int = 20
    soft_epochs: int = 80
    train_count: int = 10_000
    test_count: int = 1_000

    name: ClassVar[str] = "lmi-controller"
    title: ClassVar[str] = "LMI-Net: controllers with invariant ellipsoids"
    source: ClassVar[str] = "LMI-Net (arXiv 2604.05374), Table 2"
    columns: ClassVar = (
        *(
            Column(f"{what}_{s}", f"{label} {s.upper()} {unit}", form)
            for s in SETS
            for what, label, unit, form in (
                ("violated", "violated", "[%]", ".1f"),
                ("unstable", "unstable", "[%]", ".1f"),
                ("ms", "time", "[ms/sample]", ".3f"),
            )
        ),
        *(Column(f"log_det_{s}", f"median log det Q, {s.upper()}", ".2f") for s in SETS),
        Column("fallback", "saved by interior [%]", ".2f"),
        Column("empty", "proved infeasible [%]", ".2f"),
        Column("steps", "most steps", ".0f"),
    )
    rows: ClassVar = (
        _row("soft", "soft penalty", 46.6, 3.2, 0.003, 79.2, 56.7, 0.006),
        _row("dr-500", "DR 500", 3.2, 0.0, 0.208, 14.6, 0.6, 0.331),
        _row("dr-1000", "DR 1000", 1.2, 0.0, 0.414, 9.0, 0.0, 0.661),
        _row("dr-2000", "DR 2000", 0.6, 0.0, 0.826, 5.6, 0.0, 1.317),
        _row("dr-4000", "DR 4000", 0.0, 0.0, 1.638, 3.4, 0.0, 2.628),
        _row("lmi-net", "LMINet (ours)"),
        _row("scs", "SCS, cvxpy each time", 0.0, 0.0, 4.290, 0.0, 0.0, 5.067),
        _row("clarabel", "Clarabel, compiled"),
    )
    seeds: ClassVar = (1,)
    notes: ClassVar = (
        "Violated: the largest eigenvalue of an inequality's left-hand side is above 0, without tolerance, in"
        " float64; for `LMINet (ours)` an element also counts unless it is proved feasible in exact "
        "arithmetic. Unstable: `A + B K` has an eigenvalue with positive real part. `Q ⪰ 1e-3 I`.",
        "Unstabilizable draws are discarded, as published: here those with an input of an unstable mode below"
        " 0.01, or with two unstable modes closer than 0.01.",
        "Published network: 7 → 64 → 64 → 5, ReLU, cost `log det Q`. Not published: sizes of the data sets, "
        "batch, learning rate. Here 10,000 training and 1,000 test systems, batches of 256, Adam, 20 epochs "
        "at 1e-3 and 10 at 2e-4 (published 1,000), float64. Ours is 5 → 64 → 64 → 5: it sees `A` and the "
        "direction of `B` in the frame of `B_w` and proposes `Q / |B_w|²` in that frame by its log-Cholesky "
        "factor and `K |B|`; its loss adds the squared relative distance between proposal and decision and no"
        " penalty; gradients of each element are clipped at 10. The soft baseline, with the same input, has "
        "the penalty `100 max(0, −λ_min F)` and 80 and 40 epochs.",
        "The DR rows put the paper's iteration (no acceleration, no margin, no interior method, no scaling, "
        "penalty 50, which is the scale of its step size) behind the network that was trained with our layer."
        " `log det Q` is not convex to minimize: the conic rows minimize `tr Q`. Times are CPU milliseconds "
        "of one thread.",
    )

    def settings(self) -> Mapping[str, Any]:
        return {
            "epochs": self.epochs,
            "soft_epochs": self.soft_epochs,
            "train_count": self.train_count,
            "test_count": self.test_count,
            "learning_rate": [1e-3, 2e-4],
            "batch": 256,
            "hidden": [64, 64],
            "floor": 1e-3,
            "stabilizable": common.STABILIZABLE,
            "distance_weight": 1.0,
            "soft_weight": 100.0,
        }

    def fast(self) -> Experiment:
        return EllipsoidControllers(epochs=1, soft_epochs=1, train_count=128, test_count=16)

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        if row in ("scs", "clarabel"):
            return self._conic(row)
        network = self.train(row, int(seed or 0), directory)
        metrics: dict[str, float] = {"fallback": 0.0, "empty": 0.0, "steps": 0.0}
        for k, name in enumerate(SETS):
            metrics |= self._evaluate(row, network, name, 2000 + k, metrics)
        if row == "lmi-net":
            self.save(network, directory)
        return metrics

    def train(self, row: str, seed: int, directory: Path) -> torch.nn.Module:
        """The trained network of a row; all rows with an iteration share one."""
        import torch

        from constrained_nn.layers import LMINet
        from constrained_nn.training import make_backbone

        soft = row == "soft"
        network = make_backbone(5, 5, (64, 64), seed, torch.float64)
        layer = LMINet()

        def loss(epoch: int, A: torch.Tensor, B: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
            raw = self.raw(network, A, B, G)
            set = common.controller(A, B, G)
            if soft:
                return (100.0 * set.violation(raw) + common.log_det(set.variables(raw)[0], 1e-3)).sum()
            y = layer(raw, set)
            apart = (y - raw).square().sum(-1) / y.detach().square().sum(-1)
            return (apart.clamp_max(100.0) + common.log_det(set.variables(y)[0], 1e-12)).sum()

        epochs = self.soft_epochs if soft else self.epochs
        common.descend(
            network,
            common.joint_systems("train", self.train_count, seed),
            loss,
            epochs=epochs,
            seed=seed,
            directory=directory,
            name="soft" if soft else "layer",
        )
        return network

    def raw(
        self, network: torch.nn.Module, A: torch.Tensor, B: torch.Tensor, G: torch.Tensor
    ) -> torch.Tensor:
        """`(svec Q, vec Y)` as the network proposes it, in the frame and scale of `B_w`; `Y = K Q`."""
        import torch

        from constrained_nn.linalg import svec

        R = common.frame(G)
        reach = torch.linalg.vector_norm(B, dim=(-2, -1)).unsqueeze(-1)
        features = torch.cat([common.entries(R.mT @ A @ R), (R.mT @ B).squeeze(-1) / reach], -1)
        p, gain = common.clipped(network(features)).split([3, 2], -1)
        Q = R @ common.positive(p) @ R.mT * G.square().sum((-2, -1))[:, None, None]
        K = (gain / reach).unsqueeze(-2) @ R.mT
        return torch.cat([svec(Q), (K @ Q).flatten(-2)], -1)

    def save(self, network: torch.nn.Module, directory: Path) -> None:
        """A hundred decisions with their inequalities, for `constrained-nn certify`."""
        import torch

        from constrained_nn.evidence import save_decisions

        systems = common.joint_systems("train", 100, 2000)
        set = common.controller(*systems)
        with torch.no_grad():
            y = common.layer_of("lmi-net", PAPER).solve(self.raw(network, *systems), set).value
        save_decisions(directory, self.name, set, y)

    def _evaluate(
        self, row: str, network: torch.nn.Module, name: str, seed: int, so_far: Mapping[str, float]
    ) -> dict[str, float]:
        import torch

        from constrained_nn.solvers import FoundBy, Status

        A, B, G = common.joint_systems(name, self.test_count, seed)
        layer = common.layer_of(row, PAPER)

        def decide() -> Any:
            with torch.no_grad():
                set = common.controller(A, B, G)
                raw = self.raw(network, A, B, G)
                return raw if layer is None else layer.solve(raw, set)

        solution, milliseconds = common.timed(decide, 1 if row.startswith("dr") else 3)
        set = common.controller(A, B, G)
        y = solution if layer is None else solution.value
        violated = set.violation(y) > 0
        if row == "lmi-net":
            empty = solution.status == int(Status.INFEASIBLE)
            violated = (violated | ~set.certified(y) | ~solution.ok) & ~empty
        metrics = _measured(name, y, set, A, B, violated, milliseconds / self.test_count)
        if row == "lmi-net":
            share = 100.0 * (solution.found_by == int(FoundBy.INTERIOR_POINT)).double().mean().item()
            metrics |= {
                f"fallback_{name}": share,
                "fallback": so_far["fallback"] + share / len(SETS),
                "empty": so_far["empty"] + 100.0 * empty.double().mean().item() / len(SETS),
                "steps": max(so_far["steps"], float(solution.steps.max())),
            }
        return metrics

    def _conic(self, row: str) -> dict[str, float]:
        import torch

        metrics: dict[str, float] = {}
        for k, name in enumerate(SETS):
            count = self.test_count if row == "clarabel" else min(self.test_count, 50)
            A, B, G = (t[:count] for t in common.joint_systems(name, self.test_count, 2000 + k))
            y, _, milliseconds = common.run_conic(
                lambda: common.conic_controller("trace"),
                (A.numpy(), B.numpy(), G.numpy()),
                "CLARABEL" if row == "clarabel" else "SCS",
                compiled=row == "clarabel",
            )
            found = torch.from_numpy(y)
            set = common.controller(A, B, G)
            metrics |= _measured(name, found, set, A, B, ~(set.violation(found) <= 0), milliseconds)
            loose = ~(set.violation(found) <= 1e-6)
            metrics[f"violated_above_1e6_{name}"] = 100.0 * loose.double().mean().item()
        return metrics


def _measured(
    name: str,
    y: torch.Tensor,
    set: Any,
    A: torch.Tensor,
    B: torch.Tensor,
    violated: torch.Tensor,
    milliseconds: float,
) -> dict[str, float]:
    import torch

    y = torch.where(y.isfinite(), y, 0.0)
    Q, Y, _ = set.variables(y)
    K = Y @ torch.linalg.pinv(Q)
    unstable = torch.linalg.eigvals(A + B @ K).real.amax(-1) > 0
    return {
        f"violated_{name}": 100.0 * violated.double().mean().item(),
        f"unstable_{name}": 100.0 * unstable.double().mean().item(),
        f"ms_{name}": milliseconds,
        f"log_det_{name}": common.log_det(Q, 1e-300).median().item(),
    }


EXPERIMENT = EllipsoidControllers()
