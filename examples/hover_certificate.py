"""One feedback and one invariant ellipsoid for every model of a polytope, proved, and then flown.

    python examples/hover_certificate.py            some seconds
    python examples/hover_certificate.py --fast     a few short runs

The plant is a PVTOL at a hover whose thrust and coupling are uncertain. A proposal (an LQR) is projected onto the
linear matrix inequalities of the four vertices; decision and inequalities go to a file for `constrained-nn certify`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from constrained_nn import LMINet
from constrained_nn.evidence import save_decisions
from constrained_nn.experiments.tables.lmi import Hover


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="steps of 0.02 s in closed loop")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/hover"), help="folder for the figure and the decision"
    )
    parser.add_argument("--fast", action="store_true", help="a few short runs")
    options = parser.parse_args()

    torch.set_num_threads(1)
    task = Hover(runs=4 if options.fast else 64, horizon=20 if options.fast else options.steps)
    vertices = task.set("polytope")
    solution = LMINet().solve(task.proposal(), vertices)
    Q, Y, _ = vertices.variables(solution.value)
    print("feedback K =", (Y @ torch.linalg.inv(Q)).numpy().round(2).tolist())
    print("proved for all four vertices:", bool(vertices.certified(solution.value)))

    x, worst, final = task.closed_loop(Q, Y)
    print(
        f"V(x) in closed loop: at most {worst.max():.3f} (boundary 1), at the end at most {final.max():.4f}"
    )
    task.plot(options.out / "hover.png", Q, x)
    path = save_decisions(options.out, "hover", vertices, solution.value.unsqueeze(0))
    print(f"wrote {options.out}/hover.png and {path}; prove it: constrained-nn certify {options.out}")


if __name__ == "__main__":
    main()
