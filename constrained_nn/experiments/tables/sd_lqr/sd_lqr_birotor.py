"""SD-LQR's planar birotor: how many samples a learned regulator needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Column, Row
from constrained_nn.experiments.tables.sd_lqr.table import (
    COUNTS,
    NOTES,
    STEPS,
    RegulatorExperiment,
    published,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from control_envs.tasks import RegulationTask

# Rows that fly the double loop.
LOOP_ROWS = ("sd-lqr", "lqr-learned", "ccm", "lqr-known")


@dataclass(frozen=True)
class BirotorRegulator(RegulatorExperiment):
    """Regulators of a planar aircraft on two rotors.

    Args:
        loop: Control intervals of the double loop.
    """

    steps: Mapping[str, int] = field(default_factory=lambda: dict(STEPS))
    loop: int = 1500

    name: ClassVar[str] = "sd-lqr-birotor"
    title: ClassVar[str] = "SD-LQR: planar birotor, few samples"
    columns: ClassVar = (
        *RegulatorExperiment.columns,
        *(Column(f"loop_{c}", f"double loop, error at 10 s, N = {c}", ".1e") for c in COUNTS),
    )
    rows: ClassVar = (
        Row("sd-lqr", "SD-LQR, mean-value factors of an economical model", published(1.00, 0.550, 0.594)),
        Row("lqr-economical", "LQR of the same model"),
        Row("sd-lqr-joint", "SD-LQR, learned factors, as published", published(1.00, 0.550, 0.594)),
        Row("lqr-joint", "LQR of the model trained with factors", published(1.71, 0.742, 0.736)),
        Row("lqr-learned", "LQR of a learned model, as published", published(6.99, 1.76, 0.79)),
        Row("lqr-scaled", "LQR of a learned model, in scaled units"),
        Row("ccm", "contraction metric", published(20.5, 4.49, 1.33)),
        Row("lqr-known", "LQR of the known plant", published(0.717, 0.717, 0.717), seeded=False),
        Row("sd-lqr-known", "SD-LQR of the known plant", seeded=False),
    )
    notes: ClassVar = (
        *NOTES,
        "Double loop: `x = 3 sin(2πt/5) + t − 5`, `y = 2.5 (1 − cos(2πt/5))`, two loops in 10 s, followed exactly by "
        "the flat outputs of the plant; the start has no velocity and no roll. Error at the end over error at the "
        "start; published: about 1e-3 for SD-LQR at every N.",
        "![error over time](../images/sd_lqr_birotor.png)",
        "![double loop](../images/sd_lqr_double_loop.png)",
    )
    near: ClassVar[float] = 0.5
    room: ClassVar = (1.0, 1.0)

    @property
    def task(self) -> RegulationTask:
        from control_envs.tasks import PlanarBirotorTask

        return PlanarBirotorTask()

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "loop": self.loop}

    def more(self, row: str, make: Callable[..., Any], directory: Path) -> dict[str, float]:
        if row not in LOOP_ROWS:
            return {}
        from constrained_nn.files import write_tensors

        x, u = self.double_loop()
        start = x[:, 0].clone()
        start[:, 2:] = 0.0
        states, errors, _ = self.fly(make, start, x, u)
        write_tensors(directory / "loop.safetensors", {"x": states[:, 0, ::15].clamp(-1e9, 1e9).float()}, {})
        last = errors[:, 0, -1].expand(len(COUNTS))
        return {f"loop_{c}": last[i].item() for i, c in enumerate(COUNTS)}

    def double_loop(self) -> tuple[torch.Tensor, torch.Tensor]:
        """States `(1, T + 1, n)` and inputs `(1, T, m)` that follow the double loop exactly."""
        import torch

        from constrained_nn.control import flat_state
        from control_envs.references import Loops

        task = self.task
        plant: Any = task.plant
        table = Loops(width=3.0, height=2.5, period=5.0, speed=1.0, order=4).table(task.dt, self.loop)
        inertial, pull = flat_state(torch.from_numpy(table.values), plant.gravity)
        c, s = inertial[:, 2].cos(), inertial[:, 2].sin()
        vx, vy = inertial[:, 3], inertial[:, 4]
        x = torch.stack(
            [
                inertial[:, 0] - 5.0,
                inertial[:, 1],
                inertial[:, 2],
                c * vx + s * vy,
                c * vy - s * vx,
                inertial[:, 5],
            ],
            -1,
        )
        lift, turn = plant.mass * pull[:, 0], plant.inertia / plant.arm * pull[:, 1]
        u = 0.5 * torch.stack([lift + turn, lift - turn], -1)
        return x.unsqueeze(0), u[:-1].unsqueeze(0)

    def draw_loop(self, runs: Path, path: Path, seed: int = 1) -> Path:
        """The double loop by models of 50 samples, of the finished cells of a seed."""
        from constrained_nn.files import read_tensors
        from constrained_nn.plotting import plot_flights

        flights: dict[str, Any] = {}
        for row in self.rows:
            folder = runs / (f"{row.name}-seed{seed}" if row.seeded else row.name)
            if row.name in LOOP_ROWS and (folder / "loop.safetensors").exists():
                x = read_tensors(folder / "loop.safetensors")[0]["x"][0]
                inside = (
                    (x[:, :2].abs() < 12.0).all(-1).cumprod(0).bool()
                )  # a flight is drawn until it is gone
                flights[row.label] = x.masked_fill(~inside.unsqueeze(-1), float("nan"))
        return plot_flights(path, self.double_loop()[0][0, ::15], flights, 15 * self.task.dt)


EXPERIMENT = BirotorRegulator()
