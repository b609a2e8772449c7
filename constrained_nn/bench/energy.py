"""`constrained-nn bench energy`: what the energy condition costs, and whether it holds."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from constrained_nn.bench.figures import Out, with_origin, write_figures
from constrained_nn.options import Device, Threads, prepare_torch
from constrained_nn.printing import make_table, print_tables

BAR = 0.05  # share of the operator's forward time that the layer may add
_GRID, _MODES, _CHUNK, _COMPONENTS = 64, 20, 20_000, 16


def command(
    steps: Annotated[int, typer.Option(min=1, help="Random steps of each dtype.")] = 10**7,
    repeats: Annotated[int, typer.Option(min=3, help="Repetitions; the least time counts.")] = 10,
    out: Out = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Time a step of a Fourier neural operator with and without ECO, and count violated bounds.

    The operator has 64 x 64 points, four layers and 20 modes, in float32; the energy is diagonal,
    its condition computed in float64. The random steps have 16 components, states and proposals of
    energies over twelve decades; their bounds are checked in extended precision.
    """
    prepare_torch(device, threads)
    costs = [cost(width, batch, repeats, device) for width in (32, 128) for batch in (1, 8)]
    pairs = (("float64", "float64"), ("float32", "float64"), ("float32", "float32"))
    counts = [violations(state, condition, steps) for state, condition in pairs]
    print_tables(*tables(costs, counts))
    run = {"threads": threads, "device": device}
    write_figures(out, with_origin("energy", **run, costs=costs, violations=counts))


def cost(width: int, batch: int, repeats: int, device: str) -> dict[str, Any]:
    """CPU milliseconds (wall, for a GPU) of a forward pass with and without the layer, in turns."""
    import torch

    from constrained_nn.certificates import DiagonalEnergy
    from constrained_nn.models import ECO
    from constrained_nn.operators import FNO

    generator = torch.Generator().manual_seed(0)
    operator = FNO((_MODES, _MODES), width=width).to(device).eval()
    energy = DiagonalEnergy(torch.full((_GRID * _GRID,), 1.0 / _GRID**2), level=1.0)
    model = ECO(operator, energy, shape=(1, _GRID, _GRID)).to(device).eval()
    x = torch.randn(batch, 1, _GRID, _GRID, generator=generator).to(device)
    proposal = 3.0 * torch.randn(batch, 1, _GRID, _GRID, generator=generator).to(
        device
    )  # outside: the layer acts
    alone = ECO(_Given(proposal), energy, shape=(1, _GRID, _GRID)).to(device).eval()
    runs = {"operator_ms": lambda: operator(x), "model_ms": lambda: model(x), "layer_ms": lambda: alone(x)}
    least = dict.fromkeys(runs, float("inf"))
    clock = time.process_time if device == "cpu" else time.perf_counter
    with torch.no_grad():
        for k in range(repeats + 1):
            for name, run in runs.items():
                start = clock()
                run()
                if device != "cpu":
                    torch.cuda.synchronize()
                if k:  # the first one warms up
                    least[name] = min(least[name], 1e3 * (clock() - start))
    return {
        "width": width,
        "batch": batch,
        "repeats": repeats,
        "overhead": least["layer_ms"] / least["operator_ms"],
        **least,
    }


def _Given(proposal: Any) -> Any:
    """A backbone that proposes the same state for every state."""
    import torch

    class Given(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return proposal

    return Given()


def violations(name: str, condition: str, steps: int) -> dict[str, Any]:
    """Violated bounds among random steps, and the largest energy relative to its bound."""
    import numpy as np
    import torch

    from constrained_nn.certificates import DiagonalEnergy
    from constrained_nn.models import ECO

    dtype, n, alpha = getattr(torch, name), _COMPONENTS, 0.99
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(n, generator=generator, dtype=dtype) + 0.1
    center = torch.randn(n, generator=generator, dtype=dtype)
    energy = DiagonalEnergy(weights, center=center, level=float(n))
    backbone = _Given(None)
    model = ECO(backbone, energy, alpha=alpha, dtype=getattr(torch, condition)).eval()
    wide = energy.sublevel(energy.level.double())
    q, w, level = (t.detach().numpy().astype(np.longdouble) for t in (wide.weights, wide.center, wide.level))

    def exact(x: torch.Tensor) -> Any:
        return (q * (x.detach().numpy().astype(np.longdouble) - w) ** 2).sum(-1)

    def draw(count: int, low: float, high: float) -> torch.Tensor:
        size = 10.0 ** (low + (high - low) * torch.rand(count, 1, generator=generator, dtype=torch.float64))
        return (center + size * torch.randn(count, n, generator=generator, dtype=torch.float64)).to(dtype)

    violated, active, worst, done = 0, 0, -np.inf, 0
    with torch.no_grad():
        while done < steps:
            count = min(_CHUNK, steps - done)
            x, y = draw(count, -3.0, 3.0), draw(count, -1.0, 5.0)
            backbone.forward = lambda _, y=y: y
            step = model.solve(x)
            assert step.ok.all()
            relative = exact(step.value) / (np.longdouble(alpha) * np.maximum(exact(x), level)) - 1
            violated += int((relative > 0).sum())
            active += int((step.value != y).any(-1).sum())
            worst = max(worst, float(relative.max()))
            done += count
    return {
        "dtype": name,
        "condition": condition,
        "steps": steps,
        "active": active,
        "violated": violated,
        "worst": worst,
        "room": model.room(dtype),
    }


def tables(costs: list[dict[str, Any]], counts: list[dict[str, Any]]) -> list[Any]:
    """The figures, with the bar."""
    met = all(c["overhead"] <= BAR for c in costs)
    first = make_table(
        ("width", "batch", "operator", "with ECO", "the layer alone", "overhead"),
        [
            (
                str(c["width"]),
                str(c["batch"]),
                *(f"{c[k]:.3f}" for k in ("operator_ms", "model_ms", "layer_ms")),
                f"{100 * c['overhead']:.1f} %",
            )
            for c in costs
        ],
        title=f"FNO, {_MODES} modes, {_GRID} x {_GRID} points: least ms of a forward pass",
        caption=f"bar: at most {100 * BAR:g} %: {'met' if met else 'missed'}",
    )
    bound = "V(x+) / bound - 1 at most"
    second = make_table(
        ("states", "condition", "steps", "changed", "violated", bound, "kept free"),
        [
            (
                c["dtype"],
                c["condition"],
                f"{c['steps']:,}",
                f"{c['active']:,}",
                str(c["violated"]),
                f"{c['worst']:.2e}",
                f"{c['room']:g}",
            )
            for c in counts
        ],
        title=f"random steps in {_COMPONENTS} components, checked in extended precision",
    )
    return [first, second]
