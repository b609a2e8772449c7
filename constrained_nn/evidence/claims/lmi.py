"""Grade `proof` for decisions that satisfy linear matrix inequalities."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from constrained_nn.errors import FileFormatError
from constrained_nn.evidence.head import begin_claim, head
from constrained_nn.files import read_tensors, write_tensors
from constrained_nn.sets import LMI, LMIBlock
from constrained_nn.verify import digest, encode
from constrained_nn.verify.claims import lmi as claims

DECISIONS = "decisions.safetensors"
_FIELDS = ("constant", "left", "right", "slopes")
_CORES = (2, 2, 2, 3)


def save_decisions(folder: Path, name: str, set: LMI, y: Tensor) -> Path:
    """Decisions `(count, m)` with their inequalities, for `constrained-nn certify FOLDER`; returns the file."""
    tensors = {"y": y.detach().double()}
    for i, block in enumerate(set.blocks):
        tensors |= {f"blocks.{i}.{field}": getattr(block, field).detach().double() for field in _FIELDS}
    write_tensors(folder / DECISIONS, tensors, {"name": name, "blocks": len(set.blocks)})
    return folder / DECISIONS


def load_decisions(path: Path) -> tuple[str, LMI, Tensor]:
    """Name, inequalities and decisions of a file that `save_decisions` wrote.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
    """
    tensors, about = read_tensors(path)
    try:
        blocks = [
            LMIBlock(*(tensors[f"blocks.{i}.{field}"] for field in _FIELDS)) for i in range(about["blocks"])
        ]
        return str(about["name"]), LMI(*blocks), tensors["y"]
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path}: expected decisions of linear matrix inequalities, got {error}."
        ) from None


def certify_decisions(path: Path, *, command: str) -> dict[str, Any]:
    """A certificate about every decision in a file, as JSON values.

    Raises:
        FileFormatError: The file is missing, damaged, or holds a number that is none.
    """
    name, set, y = load_decisions(path)
    tensors = [y, *(getattr(b, field) for b in set.blocks for field in _FIELDS)]
    if not all(t.isfinite().all() for t in tensors):
        raise FileFormatError(f"{path}: expected finite numbers, got NaN or infinity.")
    count = len(y)
    S, Y, z = set.variables(y)
    first = set.blocks[0].map
    claim: dict[str, Any] = {
        **begin_claim(claims),
        "elements": count,
        "variables": [first.symmetric, first.rows, z.shape[-1]],
        "orders": [b.order for b in set.blocks],
        "worst": {},
        "data": {
            **{name: encode(t.flatten().tolist()) for name, t in (("S", S), ("Y", Y), ("z", z))},
            "blocks": [
                {
                    field: _numbers(getattr(b, field), core)
                    for field, core in zip(_FIELDS, _CORES, strict=True)
                }
                for b in set.blocks
            ],
        },
    }
    certificate = head(
        command=command,
        seed=0,
        # no time passes in a matrix inequality: one step, no state
        task={"name": name, "version": 1, "dt": encode(1.0), "horizon": 1, "state": [], "input": []},
        controller={
            "method": "linear matrix inequalities",
            "dtype": "float64",
            "weights": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
    )
    certificate["claims"].append(claim)
    found = claims.evaluate(claim, certificate)
    claim["verdict"] = found.verdict
    claim["worst"] = {"pivot": encode(found.pivot), "element": found.element, "block": found.block}
    claim["statement"] = claims.statement(claim, certificate)
    certificate["digest"] = digest(certificate)
    return certificate


def _numbers(t: Tensor, core: int) -> str:
    """A matrix that all elements share is written once."""
    return encode(torch.as_tensor(t).flatten().tolist()) if t.ndim <= core + 1 else _refuse()


def _refuse() -> str:
    raise FileFormatError("certify: expected decisions with one batch dimension, got more. Flatten them.")
