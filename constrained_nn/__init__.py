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
    "BlendedProjection": "layers",
    "Box": "sets",
    "Completion": "layers",
    "Constrained": "layers",
    "ControlBarrier": "certificates",
    "ConvexProgram": "layers",
    "DenseEnergy": "certificates",
    "DiagonalEnergy": "certificates",
    "ECO": "models",
    "Ellipsoid": "sets",
    "Euclidean": "layers",
    "EuclideanProjection": "layers",
    "Fixed": "layers",
    "FoundBy": "solvers",
    "FourierEnergy": "certificates",
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
    "LowRankEnergy": "certificates",
    "Nan": "layers",
    "NearestPoint": "layers",
    "NeuralEnergy": "certificates",
    "NonlinearSet": "sets",
    "PSDCone": "sets",
    "Parallel": "layers",
    "Polyhedron": "sets",
    "Product": "sets",
    "Raise": "layers",
    "RayProjection": "layers",
    "Report": "layers",
    "SecondOrderCone": "sets",
    "Simplex": "sets",
    "SmoothFunction": "sets",
    "Solution": "solvers",
    "SpectralEllipsoid": "sets",
    "Status": "solvers",
    "StrictInterior": "layers",
    "TrajectoryMap": "sets",
    "WeightedEllipsoid": "sets",
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
    from constrained_nn.certificates import (
        ControlBarrier,
        DenseEnergy,
        DiagonalEnergy,
        FourierEnergy,
        LowRankEnergy,
        NeuralEnergy,
    )
    from constrained_nn.layers import (
        BlendedProjection,
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
        RayProjection,
        Report,
        StrictInterior,
    )
    from constrained_nn.models import ECO
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
        SpectralEllipsoid,
        TrajectoryMap,
        WeightedEllipsoid,
    )
    from constrained_nn.solvers import FoundBy, LMISolution, Solution, Status
