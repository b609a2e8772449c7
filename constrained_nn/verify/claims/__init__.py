"""The kinds of claims that the checker knows, one module each."""

from constrained_nn.verify.claim import ClaimModule
from constrained_nn.verify.claims import (
    barrier,
    energy,
    energy_runs,
    lmi,
    lyapunov,
    model_decrease,
    outputs,
    rows,
    sampled,
)
from constrained_nn.verify.claims.rows import MAX_RTOL
from constrained_nn.verify.claims.sampled import clopper_pearson

# every claim that there is; `ClaimModule` says what a module declares
KINDS: tuple[ClaimModule, ...] = (
    rows,
    lmi,
    lyapunov,
    barrier,
    outputs,
    model_decrease,
    energy,
    sampled,
    energy_runs,
)

__all__ = [
    "KINDS",
    "MAX_RTOL",
    "barrier",
    "clopper_pearson",
    "energy",
    "energy_runs",
    "lmi",
    "lyapunov",
    "model_decrease",
    "outputs",
    "rows",
    "sampled",
]
