"""Batched linear algebra with proved derivatives.

Every function takes `(*batch, ...)`, synchronizes nothing, and raises nothing for a bad element.
"""

from constrained_nn.linalg.autocast import without_autocast
from constrained_nn.linalg.basics import (
    branchless,
    lacks_values,
    matvec,
    nearest_between,
    normalize,
    outer_sum_to,
    power_of_two,
    recording,
    rmatvec,
    safe_norm,
)
from constrained_nn.linalg.matrix_map import (
    MatrixMap,
    adjoint_at,
    certified_above,
    columns,
    linear_part,
    magnitude,
    matrix_at,
    rounding_of,
    split,
)
from constrained_nn.linalg.min_norm import (
    ThinQR,
    default_rank_rtol,
    min_norm_adjoint,
    min_norm_solve,
    pinv_apply,
    pinv_transpose_apply,
    product,
    thin_qr,
)
from constrained_nn.linalg.modes import even_spectrum, from_modes, multiplicity, to_modes
from constrained_nn.linalg.secular import project_ellipsoid, project_weighted
from constrained_nn.linalg.sorting import project_simplex
from constrained_nn.linalg.symmetric import psd_project, smat, svec, symmetric_eigenvalues, symmetric_eigh

__all__ = [
    "MatrixMap",
    "ThinQR",
    "adjoint_at",
    "branchless",
    "certified_above",
    "columns",
    "default_rank_rtol",
    "even_spectrum",
    "from_modes",
    "lacks_values",
    "linear_part",
    "magnitude",
    "matrix_at",
    "matvec",
    "min_norm_adjoint",
    "min_norm_solve",
    "multiplicity",
    "nearest_between",
    "normalize",
    "outer_sum_to",
    "pinv_apply",
    "pinv_transpose_apply",
    "power_of_two",
    "product",
    "project_ellipsoid",
    "project_simplex",
    "project_weighted",
    "psd_project",
    "recording",
    "rmatvec",
    "rounding_of",
    "safe_norm",
    "smat",
    "split",
    "svec",
    "symmetric_eigenvalues",
    "symmetric_eigh",
    "thin_qr",
    "to_modes",
    "without_autocast",
]
