"""constrained-nn: neural networks that cannot break the rules.

Public names resolve on first use (PEP 562), so that importing a part never loads more than that part needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module that defines it
_EXPORTS = {
    "AffineSubspace": "sets",
    "Ball": "sets",
    "Box": "sets",
    "Completion": "layers",
    "Constrained": "layers",
    "ControlBarrier": "certificates",
    "ConvexProgram": "layers",
    "Ellipsoid": "sets",
    "Euclidean": "layers",
    "EuclideanProjection": "layers",
    "Fixed": "layers",
    "Halfspace": "sets",
    "HardNetAffine": "layers",
    "HardNetConvex": "layers",
    "HardNetPlusPlus": "layers",
    "Intersection": "sets",
    "L1Ball": "sets",
    "LMI": "sets",
    "LMIBlock": "sets",
    "LMINet": "layers",
    "LMISolution": "solvers",
    "LeastViolation": "layers",
    "Nan": "layers",
    "NearestPoint": "layers",
    "NonlinearSet": "sets",
    "PSDCone": "sets",
    "Parallel": "layers",
    "Polyhedron": "sets",
    "Product": "sets",
    "Raise": "layers",
    "SecondOrderCone": "sets",
    "Simplex": "sets",
    "SmoothFunction": "sets",
    "Solution": "solvers",
    "Status": "solvers",
    "StrictInterior": "layers",
    "TrajectoryMap": "sets",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


if TYPE_CHECKING:
    from constrained_nn.certificates import ControlBarrier
    from constrained_nn.layers import (
        Completion,
        Constrained,
        ConvexProgram,
        Euclidean,
        EuclideanProjection,
        Fixed,
        HardNetAffine,
        HardNetConvex,
        HardNetPlusPlus,
        LeastViolation,
        LMINet,
        Nan,
        NearestPoint,
        Parallel,
        Raise,
        StrictInterior,
    )
    from constrained_nn.sets import (
        LMI,
        AffineSubspace,
        Ball,
        Box,
        Ellipsoid,
        Halfspace,
        Intersection,
        L1Ball,
        LMIBlock,
        NonlinearSet,
        Polyhedron,
        Product,
        PSDCone,
        SecondOrderCone,
        Simplex,
        SmoothFunction,
        TrajectoryMap,
    )
    from constrained_nn.solvers import LMISolution, Solution, Status
