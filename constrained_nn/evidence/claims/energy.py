"""Grade `proof` for the energy bound of a learned evolution, and `sampled` for long runs of it."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constrained_nn.errors import FileFormatError, SetTypeError, ShapeError
from constrained_nn.evidence.head import begin_claim, head
from constrained_nn.files import read_tensors, write_tensors
from constrained_nn.layers import RayProjection
from constrained_nn.models import ECO
from constrained_nn.sets import SpectralEllipsoid, WeightedEllipsoid
from constrained_nn.verify import clopper_pearson, digest, encode
from constrained_nn.verify.claims import energy as bounds
from constrained_nn.verify.claims import energy_runs as runs_claim
from constrained_nn.verify.file import decode_one, integer

EVOLUTION = "evolution.safetensors"


@torch.no_grad()
def save_evolution(
    folder: Path | str,
    name: str,
    model: ECO,
    *,
    dtype: torch.dtype,
    starts: Tensor | None = None,
    steps: int = 1000,
    data_norm: float | None = None,
    seed: int = 0,
    confidence: float = 0.99,
) -> Path:
    """The numbers of a model's energy condition, and long runs of it, for `constrained-nn certify FOLDER`.

    Args:
        folder: Where `evolution.safetensors` goes.
        name: Name of the system.
        model: The model, with `RayProjection` and the condition in float64.
        dtype: Dtype of the states that it will be used with.
        starts: Start states `(runs, *shape)` of the runs; default no runs.
        steps: Steps of each run.
        data_norm: Typical norm of a state of the data, to which those of the starts are compared; with `starts` only.
        seed: Seed with which the starts were drawn, kept in the file.
        confidence: Confidence of the bound on the runs.

    Raises:
        SetTypeError: The model has another layer, or computes its condition or the layer in another dtype.
        ShapeError: `starts` are not states of the model, or there is no step.
        ValueError: `starts` are not finite, or `data_norm` is missing beside them or not positive.
    """
    _check_runs(model, starts, steps, data_norm)
    level = model.energy.level.double()
    form, shape, rank, tensors = _take_apart(model.energy.sublevel(level))
    about: dict[str, Any] = {
        "name": name, "form": form, "shape": shape, "rank": rank, "seed": seed,
        "alpha": float(model.alpha).hex(), "level": float(level).hex(), "safety": float(model.room(dtype)).hex(),
        "dtype": str(dtype).removeprefix("torch."),
    }  # fmt: skip
    if starts is not None:
        training = model.training
        tensors |= _run(model.eval(), starts.to(dtype), steps)
        model.train(training)
        norms = torch.linalg.vector_norm(starts.flatten(1).double(), dim=-1)
        digest_of = np.ascontiguousarray(starts.to(dtype).double().numpy(force=True), "<f8").tobytes()
        farthest = float(norms.max()) / float(data_norm or 1.0)
        about |= {
            "steps": steps, "farthest": farthest.hex(), "confidence": confidence.hex(),
            "starts_sha256": hashlib.sha256(digest_of).hexdigest(),
        }  # fmt: skip
    file = Path(folder) / EVOLUTION
    write_tensors(file, {name: t.detach().double() for name, t in tensors.items()}, about)
    return file


def _check_runs(model: ECO, starts: Tensor | None, steps: int, data_norm: float | None) -> None:
    """Refuses a model whose rounding is not bounded, and starts from which no run can be claimed."""
    computed = model.layer.compute_dtype or model.dtype
    if type(model.layer) is not RayProjection or {model.dtype, computed} != {torch.float64}:
        raise SetTypeError(
            f"save_evolution: expected an ECO with RayProjection() and dtype=torch.float64, got "
            f"{type(model.layer).__name__} in {computed} and {model.dtype}. The rounding of other steps is not bounded."
        )
    if steps < 1 or (starts is not None and starts.shape[1:] != model.shape):
        raise ShapeError(
            f"save_evolution: expected steps >= 1 and starts of shape (runs, {', '.join(map(str, model.shape))}), got "
            f"{steps} and {None if starts is None else tuple(starts.shape)}. Add a direction for the runs."
        )
    if starts is not None:
        if data_norm is None or not 0 < data_norm < math.inf:
            raise ValueError(
                f"save_evolution: expected data_norm > 0 beside starts, got {data_norm}. The claim states how far the "
                f"starts are, in norms of the data: pass data.flatten(1).norm(dim=-1).mean()."
            )
        if not starts.isfinite().all():
            raise ValueError(
                "save_evolution: expected finite starts, got NaN or infinity. Leave such runs out."
            )


def _take_apart(set: Any) -> tuple[str, list[int], int, dict[str, Tensor]]:
    """Form, shape, rank and numbers of an energy's sublevel set."""
    shape, rank = [set.dim], 0
    tensors = {"center": set.center, "floor": torch.zeros(())}
    if isinstance(set, WeightedEllipsoid):
        rank = set.factor.shape[-1]
        form = "low-rank" if rank else "diagonal"
        tensors |= {"weights": set.weights, "factor": set.factor}
    elif isinstance(set, SpectralEllipsoid):
        form, shape = "fourier", [set.rows, set.dim // set.rows]
        tensors |= {"weights": set.spectrum, "factor": torch.zeros(0)}
    else:
        form = "dense"
        floor = 0.99 * torch.linalg.eigvalsh(0.5 * (set.P + set.P.mT)).min()
        tensors |= {"weights": set.P, "factor": torch.zeros(0), "floor": floor}
    return form, shape, rank, tensors


def _run(model: ECO, starts: Tensor, steps: int) -> dict[str, Tensor]:
    """For each run: the largest energy relative to its bound, and to its start and the level; share of active steps."""
    run = model.rollout(starts, steps, every=steps)
    level = model.energy.level.double()
    bound = model.alpha * torch.maximum(run.energy[:-1], level)
    ratio, growth = (run.energy[1:] / bound), run.energy[1:] / torch.maximum(run.energy[:1], level)
    worst = [torch.where(run.ok, t.nan_to_num(torch.inf).amax(0), torch.inf) for t in (ratio, growth)]
    return {"ratio": worst[0], "growth": worst[1], "active": run.active.double() / steps}


def certify_evolution(path: Path, *, command: str) -> dict[str, Any]:
    """A certificate about a file that `save_evolution` wrote, as JSON values.

    Raises:
        FileFormatError: The file is missing, damaged, or holds a number that is none.
    """
    tensors, about = read_tensors(path)
    try:
        finite = all(tensors[name].isfinite().all() for name in bounds.DATA)
        certificate = head(
            command=command,
            seed=integer(about["seed"], "seed"),
            # a map of states: its step is the unit of time
            task={
                "name": about["name"],
                "version": 1,
                "dt": encode(1.0),
                "horizon": integer(about.get("steps", 1), "steps", least=1),
                "state": [],
                "input": [],
            },
            controller={
                "method": "energy condition",
                "dtype": str(about["dtype"]),
                "weights": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            },
        )
        certificate["claims"].append(_bound(tensors, about))
        if "ratio" in tensors:
            certificate["claims"].append(_runs(tensors, about))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise FileFormatError(f"{path}: expected the numbers of a learned evolution, got {error}.") from None
    if not finite:
        raise FileFormatError(f"{path}: expected finite numbers, got NaN or infinity.")
    for claim, module in zip(certificate["claims"], (bounds, runs_claim), strict=False):
        found = module.evaluate(claim, certificate)
        claim["verdict"] = found.verdict
        if isinstance(found, bounds.EnergyAccount):
            claim["needed"] = encode(found.needed)
            claim["fingerprint"] = bounds.fingerprint(claim)
        else:
            claim |= {
                "exceeded": found.exceeded,
                "unfinished": found.unfinished,
                "worst": encode(found.worst),
            }
            confidence = decode_one(claim["confidence"], "confidence")
            if not 0 < confidence < 1:
                raise FileFormatError(f"confidence: expected a number in (0, 1), got {confidence!r}.")
            claim["bound"] = encode(
                clopper_pearson(found.exceeded + found.unfinished, found.runs, confidence)
            )
        claim["statement"] = module.statement(claim, certificate)
    certificate["digest"] = digest(certificate)
    return certificate


def _bound(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Any]:
    return {
        **begin_claim(bounds),
        "form": str(about["form"]),
        "shape": list(about["shape"]),
        "rank": about["rank"],
        "state_dtype": str(about["dtype"]),
        **{name: encode(float.fromhex(about[name])) for name in ("alpha", "level", "safety")},
        "needed": "",
        "fingerprint": "",
        "data": {name: encode(tensors[name].flatten().tolist()) for name in bounds.DATA},
    }


def _runs(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Any]:
    return {
        **begin_claim(runs_claim),
        "runs": tensors["ratio"].numel(),
        "steps": about["steps"],
        **{name: encode(float.fromhex(about[name])) for name in ("farthest", "confidence")},
        "starts_sha256": str(about["starts_sha256"]),
        "exceeded": 0,
        "unfinished": 0,
        "bound": "",
        "worst": "",
        "data": {name: encode(tensors[name].flatten().tolist()) for name in runs_claim.DATA},
    }
