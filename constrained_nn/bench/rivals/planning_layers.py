"""One layer on one batch of plans, in a process of its own (arguments: layer, batch, iterations)."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from constrained_nn.layers import HardNetPlusPlus, Implicit, Retraced
from constrained_nn.training import make_backbone
from constrained_nn.training.supervised import draw_starts, plan_cost, plan_set
from control_envs.tasks import ELLIPSE, KinematicUnicycleTask

MARK = "MEASURED "
_TASK = KinematicUnicycleTask()
HORIZON = 10
_STATES, _ROWS = 3 * HORIZON, 6 * HORIZON


def published_layer(y: Tensor, x0: Tensor, iterations: int, damping: float = 0.3) -> Tensor:
    """The iteration of the paper, unrolled: 60 rows, a dense Jacobian entry by entry, Cholesky.

    Rows: 30 of the dynamics, 10 of the ellipse, 20 of the limits.
    """
    rows = torch.arange(HORIZON)
    template = y.new_zeros(len(y), _ROWS, y.shape[-1])
    template[:, torch.arange(_STATES), torch.arange(_STATES)] = 1.0
    for i in range(3):
        template[:, 3 * rows[1:] + i, 3 * rows[:-1] + i] = -1.0
    for i in range(2):
        template[:, 40 + 2 * rows + i, _STATES + 2 * rows + i] = 1.0
    low, high = (y.new_tensor(b).repeat(HORIZON) for b in (_TASK.input_low, _TASK.input_high))
    eye = torch.eye(_ROWS, dtype=y.dtype)
    dt = _TASK.dt
    for _ in range(iterations):
        states, inputs = y[:, :_STATES].unflatten(-1, (-1, 3)), y[:, _STATES:].unflatten(-1, (-1, 2))
        before = torch.cat([x0.unsqueeze(1), states[:, :-1]], 1)
        v, theta = inputs[..., 0], before[..., 2]
        cos, sin = torch.cos(theta), torch.sin(theta)
        ahead = before + dt * torch.stack([v * cos, v * sin, inputs[..., 1]], -1)
        square = ELLIPSE[0] * states[..., 0] ** 2 + ELLIPSE[1] * states[..., 1] ** 2
        u = y[:, _STATES:]
        limits = torch.relu(u - high) - torch.relu(low - u)
        r = torch.cat([(states - ahead).flatten(1), -torch.relu(1.0 - square), limits], -1)
        J = template.clone()
        J[:, 3 * rows[1:], 3 * rows[:-1] + 2] = (dt * v * sin)[:, 1:]
        J[:, 3 * rows[1:] + 1, 3 * rows[:-1] + 2] = -(dt * v * cos)[:, 1:]
        J[:, 3 * rows, _STATES + 2 * rows] = -dt * cos
        J[:, 3 * rows + 1, _STATES + 2 * rows] = -dt * sin
        J[:, 3 * rows + 2, _STATES + 2 * rows + 1] = -dt
        J[:, 30 + rows, 3 * rows] = 2.0 * ELLIPSE[0] * states[..., 0]
        J[:, 30 + rows, 3 * rows + 1] = 2.0 * ELLIPSE[1] * states[..., 1]
        M = J @ J.mT + damping * eye
        L = torch.linalg.cholesky(0.5 * (M + M.mT))
        half = torch.linalg.solve_triangular(L, r.unsqueeze(-1), upper=False)
        w = torch.linalg.solve_triangular(L.mT, half, upper=True)
        y = y - (J.mT @ w).squeeze(-1)
    return y


def layer_of(name: str, iterations: int) -> Callable[[Tensor, Tensor], Tensor]:
    """`(raw plans, start states) -> plans`."""
    if name == "published":
        return lambda y, x0: published_layer(y, x0, iterations)
    layer = HardNetPlusPlus(adjoint={"retraced": Retraced, "implicit": Implicit}[name]())
    return lambda y, x0: layer(y, plan_set(x0, HORIZON))


def raw_plans(batch: int) -> tuple[Tensor, Tensor]:
    """Outputs of an untrained network, and their start states."""
    x0 = torch.from_numpy(draw_starts(3, batch))
    with torch.no_grad():
        return make_backbone(3, 50, (200, 200), 1, torch.float64)(x0), x0


def measure(name: str, batch: int, iterations: int) -> dict[str, float]:
    """CPU seconds forward and backward, peak memory beyond the start, and the largest violation."""
    layer = layer_of(name, iterations)
    dtype = torch.float32 if name == "published" else torch.float64

    def once(count: int) -> tuple[Tensor, float, float]:
        y, x0 = (t.to(dtype) for t in raw_plans(count))
        y.requires_grad_()
        start = time.process_time()
        value = layer(y, x0)
        middle = time.process_time()
        plan_cost(value, HORIZON).sum().backward()
        return value.detach(), middle - start, time.process_time() - middle

    once(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, forward, backward = once(batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    x0 = raw_plans(batch)[1]
    violation = plan_set(x0, HORIZON).violation(value.double()).max().item()
    return {"forward_s": forward, "backward_s": backward, "peak_mib": peak / 1024, "violation": violation}


def main() -> None:
    name, batch, iterations = sys.argv[1:]
    torch.set_num_threads(1)
    print(MARK + json.dumps(measure(name, int(batch), int(iterations))))


if __name__ == "__main__":
    main()
