"""Recorders of graphs that a layer refuses, because what they record would not be the layer."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from constrained_nn.errors import TracingError
from constrained_nn.linalg import lacks_values

_INSTEAD = (
    "Record it with torch.compile, torch.export.export(model, args) or "
    "torch.onnx.export(model, args, dynamo=True)."
)


def refuse_torchscript(layer: str) -> None:
    """Raise: TorchScript has no type for a set, and takes `1 + 1e-9` for 1."""
    raise TracingError(
        f"{layer}: expected a recorder of whole graphs, got TorchScript (torch.jit, or torch.onnx.export with "
        f"dynamo=False), which would keep the branches that this input takes. {_INSTEAD}"
    )


def refuse_tracers(layer: str, y: Tensor | fx.Proxy) -> None:
    """Raise under `torch.jit.trace`, the exporter of ONNX that is built on it, and `torch.fx.symbolic_trace`."""
    if torch.compiler.is_compiling():
        return
    if torch._C._is_tracing():
        refuse_torchscript(layer)
    if isinstance(y, fx.Proxy):
        raise TracingError(
            f"{layer}: expected y with a shape and a dtype, got a Proxy of torch.fx.symbolic_trace, which has neither. "
            f"{_INSTEAD} To keep the layer as one call, name it in `is_leaf_module` of your Tracer."
        )


def refuse_transforms(layer: str, *tensors: Tensor) -> None:
    """Raise where a layer that looks at values has none to look at; `torch.compile` leaves its graph instead."""
    if torch.compiler.is_compiling():
        return
    proxy = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    if proxy or torch._C._are_functorch_transforms_active() or any(map(lacks_values, tensors)):
        raise TracingError(
            f"{layer}: expected tensors with values, got a transform of torch.func, a recorded graph or a fake tensor. "
            f"It decides by values how to go on. Call it on the batch itself, or use EuclideanProjection or "
            f"HardNetPlusPlus."
        )
