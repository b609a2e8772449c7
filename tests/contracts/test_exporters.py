"""What leaves the process enforces its set on other inputs than the one it was recorded with, or does not leave."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from constrained_nn import Constrained, EuclideanProjection, Fixed, HardNetAffine, Polyhedron
from constrained_nn.errors import TracingError
from tests.cases import LayerCase, every, rows
from tests.cases.sets import tensor

pytestmark = pytest.mark.untyped


class Enforcing(nn.Module):
    """A layer with its set, as a module of one argument."""

    def __init__(self, layer: nn.Module, set) -> None:
        super().__init__()
        self.layer, self.set = layer, set

    def forward(self, y: Tensor) -> Tensor:
        return self.layer(y, self.set)


REFUSED: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "jit.trace": lambda net, y: torch.jit.trace(net, (y,), check_trace=False),
    "jit.script": lambda net, y: torch.jit.script(net),
    "onnx, legacy": lambda net, y: torch.onnx.export(net, (y,), io.BytesIO(), dynamo=False),
    "fx": lambda net, y: torch.fx.symbolic_trace(net),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("record", REFUSED.values(), ids=REFUSED)
@every(LayerCase)
def test_recorder_that_freezes_branches_is_refused(record, case: LayerCase, generator) -> None:
    set = case.build(generator, ())
    net = Enforcing(case.make().eval(), set)
    with pytest.raises(TracingError, match=r"expected .*, got .*torch\.export\.export"):
        record(net, case.inside(set))


CLOSED_FORMS = (
    "RayProjection-diagonal",
    "HardNetAffine-Box",
    "HardNetAffine-Halfspace",
    "EuclideanProjection-Simplex",
)


def by_make_fx(net: nn.Module, y: Tensor) -> Callable[[Tensor], Tensor]:
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(net)(y)


EXPORTERS: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]] = {
    "export": lambda net, y: torch.export.export(net, (y,), strict=False).module(),
    "export, strict": lambda net, y: torch.export.export(net, (y,), strict=True).module(),
    "make_fx": by_make_fx,
}
every_exporter = pytest.mark.parametrize("record", EXPORTERS.values(), ids=EXPORTERS)


@every_exporter
@pytest.mark.parametrize("case", [r for r in rows(LayerCase) if r.name in CLOSED_FORMS], ids=lambda r: r.name)
def test_artefact_enforces_what_it_was_not_recorded_with(record, case: LayerCase, generator) -> None:
    set = case.build(generator, (6,))
    inside = case.inside(set).expand(6, set.dim).clone()
    y = inside + 5.0 * torch.randn(6, set.dim, generator=generator, dtype=torch.float64)
    assert (set.violation(y) > 1e-3).any()
    net = Enforcing(case.make().eval(), set)
    torch.testing.assert_close(record(net, inside)(y), net(y), rtol=1e-9, atol=case.atol)


@every_exporter
@pytest.mark.parametrize("layer", [HardNetAffine, lambda: HardNetAffine(compute_dtype=torch.float64)])
def test_constant_rows_leave_without_a_search(record, layer, generator) -> None:
    """Their graph is the closed form alone: it has no loop and no sort, and is small."""
    set = Polyhedron(tensor([1.0, 1.0, 0.0], [0.0, 1.0, 1.0]).float(), upper=torch.tensor([0.5, 0.5]))
    net = Constrained(nn.Linear(4, 3), Fixed(set), layer()).eval()
    with torch.no_grad():
        artefact = record(net, torch.zeros(8, 4))
    x = 100.0 * torch.randn(8, 4, generator=generator)
    torch.testing.assert_close(artefact(x), net(x), rtol=1e-5, atol=1e-4)
    assert set.contains(artefact(x), atol=1e-4).all()
    names = {str(node.target) for node in artefact.graph.nodes}
    assert not any("sort" in name or "linalg_qr" in name or "while" in name for name in names)
    assert len(artefact.graph.nodes) < 400  # the search has thousands


def test_layer_that_decides_by_values_refuses_transforms(generator) -> None:
    (case,) = [row for row in rows(LayerCase) if row.name.startswith("NearestPoint")][:1]
    set = case.build(generator, ())
    layer = case.make()
    with pytest.raises(TracingError, match="EuclideanProjection"):
        torch.func.vmap(lambda y: layer(y, set))(case.inside(set).expand(2, set.dim))


def test_wrapped_projection_names_what_to_use_instead() -> None:
    net = Constrained(nn.Linear(2, 3), Fixed(Polyhedron(torch.eye(3))), EuclideanProjection())
    with pytest.raises(TracingError, match="dynamo=True"):
        torch.jit.trace(net, (torch.zeros(2),))
