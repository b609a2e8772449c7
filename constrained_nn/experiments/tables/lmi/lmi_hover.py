"""A hovering aircraft of uncertain parameters: one feedback and one ellipsoid for a polytope of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Column, Experiment, Row

if TYPE_CHECKING:
    import numpy as np
    import torch

    from constrained_nn.sets import LMI

# Vertices: thrust over mass at hover [m/s^2], and the coupling ε of the turn into a side force [m].
THRUST, COUPLING = (8.8, 10.8), (0.0, 0.3)
RATE = 0.5
# Accelerations by unknown forces, each up to this much for |w| <= 1: vx, vy [m/s^2], turn
# [rad/s^2].
FORCES = (0.3, 0.3, 0.3)
# The size of the ellipsoid that is proposed: px, py [m], phi [rad], vx, vy [m/s], rate [rad/s].
SIZES = (2.0, 2.0, 0.6, 2.0, 2.0, 1.5)


@dataclass(frozen=True)
class Hover(Experiment):
    """PVTOL at a hover: `u = u* + Y Q⁻¹ x` from the projection of a proposal, simulated on the nonlinear plant.

    Args:
        runs: Runs in closed loop, from the boundary of the ellipsoid.
        horizon: Steps of 0.02 s.
    """

    runs: int = 64
    horizon: int = 400

    name: ClassVar[str] = "lmi-hover"
    title: ClassVar[str] = "LMINet: a certificate for a hovering aircraft, in closed loop"
    source: ClassVar[str] = "none; the task is ours, the plant that of arXiv 2204.06716"
    columns: ClassVar = (
        Column("proved", "vertices proved [%]", ".0f"),
        Column("volume", "log det Q", ".2f"),
        Column("worst", "largest V in closed loop", ".3f"),
        Column("left", "runs that leave the ellipsoid [%]", ".1f"),
        Column("final", "largest V at the end", ".3f"),
        Column("seconds", "CPU seconds of the projection", ".2f"),
    )
    rows: ClassVar = (
        Row("nominal", "one model", seeded=False),
        Row("polytope", "four vertices", seeded=False),
    )
    notes: ClassVar = (
        "Vertices: thrust over mass 8.8 and 10.8 m/s² and coupling ε 0 and 0.3 m around the linearization of the "
        "PVTOL at hover; `one model` knows 9.81 m/s² and ε = 0 only. Unknown forces up to 0.3 m/s² and 0.3 rad/s², "
        "`α` = 0.5. The proposal is an LQR and its ellipsoid, 2 m wide. Runs start at V = 0.64 on the nonlinear plant, "
        "drag included, with ε drawn from [0, 0.3] and constant forces along thrust and turn.",
        "The guarantee is that of the linear models; in closed loop it is tested, not proved. The decision of each row "
        "is proved by `constrained-nn certify runs/reproduce/lmi-hover/polytope`.",
        "![ellipsoid and trajectories](../images/lmi_hover.png)",
    )

    def settings(self) -> Mapping[str, Any]:
        return {
            "runs": self.runs,
            "horizon": self.horizon,
            "thrust": list(THRUST),
            "coupling": list(COUPLING),
            "rate": RATE,
            "forces": list(FORCES),
            "sizes": list(SIZES),
        }

    def fast(self) -> Experiment:
        return Hover(runs=4, horizon=20)

    def set(self, row: str) -> LMI:
        """The inequalities of every vertex."""
        import torch

        from constrained_nn.sets import LMI

        corners = [(9.81, 0.0)] if row == "nominal" else [(g, e) for g in THRUST for e in COUPLING]
        G = torch.zeros(6, 3, dtype=torch.float64)
        G[3:, :] = torch.diag(torch.tensor(FORCES, dtype=torch.float64))
        systems = [self.model(g, e) for g, e in corners]
        return LMI.state_feedback(
            tuple(A for A, _ in systems), tuple(B for _, B in systems), rate=RATE, disturbance=G, floor=1e-4
        )

    def model(self, thrust: float, coupling: float) -> tuple[torch.Tensor, torch.Tensor]:
        """`A` and `B` of the linearization at hover, by the plant's own derivative."""
        import numpy as np
        import torch

        from control_envs.dynamics import PVTOL

        A, B = PVTOL(coupling=coupling, gravity=thrust).linearize(np.zeros(6), np.array([thrust, 0.0]))
        return torch.from_numpy(np.array(A)), torch.from_numpy(np.array(B))

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        import time

        import torch

        from constrained_nn.evidence import save_decisions
        from constrained_nn.layers import LMINet

        set = self.set(row)
        start = time.process_time()
        solution = LMINet().solve(self.proposal(), set)
        seconds = time.process_time() - start
        save_decisions(directory, f"{self.name}-{row}", set, solution.value.unsqueeze(0))
        Q, Y, _ = set.variables(solution.value)
        x, worst, final = self.closed_loop(Q, Y)
        self.plot(directory / "hover.png", Q, x)
        every = torch.stack([b.certified(solution.value) for b in self.set("polytope").blocks[:-1]])
        return {
            "proved": 100.0 * every.double().mean().item(),
            "volume": torch.logdet(Q).item(),
            "worst": float(worst.max()),
            "left": 100.0 * float((worst > 1.0 + 1e-9).mean()),
            "final": float(final.max()),
            "seconds": seconds,
        }

    def proposal(self) -> torch.Tensor:
        """The ellipsoid and the feedback of an LQR for the middle of the polytope, at the wanted size."""
        import torch

        from constrained_nn.linalg import svec
        from constrained_nn.solvers import solve_care

        A, B = self.model(9.81, 0.15)
        weights = torch.diag(torch.tensor(SIZES, dtype=torch.float64) ** -2)
        P = solve_care(A, B, weights, 0.02 * torch.eye(2, dtype=torch.float64)).P
        Q = torch.linalg.inv(P)
        Q = Q * (SIZES[0] ** 2 / Q[0, 0])
        gain = -(B.mT @ P) / 0.02
        return torch.cat([svec(0.5 * (Q + Q.mT)), (gain @ Q).flatten()])

    def closed_loop(self, Q: torch.Tensor, Y: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States `(runs, steps, 6)`, largest `V = xᵀ Q⁻¹ x` of every run, and the last one."""
        import numpy as np

        from control_envs.dynamics import PVTOL
        from control_envs.simulate import rollout

        rng = np.random.default_rng(3)
        P = np.linalg.inv(Q.numpy())
        K = Y.numpy() @ P
        direction = rng.standard_normal((self.runs, 6))
        # from V = 0.64: further out the tilt is more than the linear models describe
        x0 = 0.8 * direction / np.sqrt((direction @ P * direction).sum(-1, keepdims=True))
        push = rng.standard_normal((self.runs, 3))
        push *= np.array(FORCES) * 0.5 / np.linalg.norm(push, axis=-1, keepdims=True)
        plant = PVTOL(coupling=rng.uniform(*COUPLING, self.runs))
        hover = np.array([plant.gravity, 0.0])
        # unknown forces enter as inputs: along the thrust and the turn
        trajectory = rollout(
            plant,
            lambda t, x: hover + x @ K.T,
            x0,
            dt=0.02,
            horizon=self.horizon,
            input_disturbance=lambda t, x: push[:, 1:],
            extremes={"V": lambda t, x, u: (x @ P * x).sum(-1)},
        )
        x = np.asarray(trajectory.x)
        x = x if x.shape[0] == self.runs else np.moveaxis(x, 0, 1)
        return x, np.asarray(trajectory.worst["V"]), (x[:, -1] @ P * x[:, -1]).sum(-1)

    def plot(self, path: Path, Q: torch.Tensor, x: np.ndarray) -> None:
        """The ellipsoid's shadow on two planes, with the trajectories."""
        import numpy as np

        from constrained_nn.plotting import COLORS, new_figure

        figure, axes = new_figure(8.0, 3.4, 1, 2)
        circle = np.linspace(0.0, 2.0 * np.pi, 200)
        for ax, (i, j, names) in zip(
            axes[0], ((0, 2, ("px [m]", "phi [rad]")), (0, 3, ("px [m]", "vx [m/s]"))), strict=True
        ):
            shadow = np.linalg.cholesky(Q.numpy()[np.ix_([i, j], [i, j])]) @ np.stack(
                [np.cos(circle), np.sin(circle)]
            )
            ax.fill(*shadow, color=COLORS[5], alpha=0.25)
            ax.plot(*shadow, color=COLORS[0], lw=1.2)
            for one in x:
                ax.plot(one[:, i], one[:, j], lw=0.6, alpha=0.7, color=COLORS[1])
            ax.plot(x[:, 0, i], x[:, 0, j], ".", ms=2, color="black")
            ax.set_xlabel(names[0])
            ax.set_ylabel(names[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


EXPERIMENT = Hover()
