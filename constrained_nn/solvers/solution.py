"""What a solver or a layer returns: a value and, for each element, what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Status(IntEnum):
    """Whether one batch element satisfies its constraints: `OK`, or why not.

    How a solution was found is another question: `FoundBy`. Number 1 is free; it once meant both.
    """

    OK = 0
    MAX_STEPS = 2
    INFEASIBLE = 3
    SINGULAR = 4
    NONFINITE_INPUT = 5
    STAGNATED = 6
    STATIONARY = 7
    MISSED = 8

    @property
    def advice(self) -> str:
        """What the status means and what to try next."""
        return _ADVICE[self]


# Length of a table that is indexed by status.
STATUS_CODES = max(Status) + 1

_ADVICE = {
    Status.OK: "The element satisfies its constraints to the stated tolerance.",
    Status.MAX_STEPS: "The tolerance was not reached. Raise max_steps or atol, or rescale the rows.",
    Status.INFEASIBLE: (
        "No point satisfies all rows; the value is a least-violation point. Relax a bound, or drop a row."
    ),
    Status.SINGULAR: (
        "The rows are too nearly dependent to be satisfied in this precision. Merge parallel rows "
        "(`Polyhedron.merged()`), or compute in float64 (`compute_dtype=torch.float64`)."
    ),
    Status.NONFINITE_INPUT: (
        "The input or the set holds NaN, or an infinity where none is allowed. Check the network's output "
        "and the function that builds the set."
    ),
    Status.STAGNATED: (
        "No step lowers the violation any further in this precision. Rescale the rows, raise atol, or start nearer."
    ),
    Status.STATIONARY: (
        "The violation has no descent direction here (the center of a keep-out region, or rows that contradict each "
        "other). Start from another point, or relax a bound."
    ),
    Status.MISSED: (
        "The value that is returned lies outside of the set by more than its dtype explains: the set is thinner than "
        "the rounding of that dtype, or the layer does not enforce this set. Return a wider dtype, or widen the set."
    ),
}


class FoundBy(IntEnum):
    """How the value of one batch element was found."""

    CLOSED_FORM = 0
    ACTIVE_SET = 1
    SPLITTING = 2
    NEWTON = 3
    INTERIOR_POINT = 4
    CONIC_SOLVER = 5


class PerElement:
    """What the results of all solvers have in common: a `status` for each element and what it means.

    Attributes:
        advice: What each status means here and what to try next.
        measure: Name of the tensor `(*batch)` that says by how much an element failed.
    """

    advice: ClassVar[Mapping[Status, str]] = _ADVICE
    measure: ClassVar[str]
    status: Tensor

    @property
    def ok(self) -> Bool[Tensor, "*batch"]:
        """Elements that are what was asked for, to the stated tolerance."""
        return self.status == int(Status.OK)

    def counts(self) -> dict[Status, int]:
        """Number of elements of each status that occurs; synchronises a GPU."""
        found = torch.bincount(self.status.flatten().long(), minlength=STATUS_CODES).tolist()
        return {Status(code): n for code, n in enumerate(found) if n}

    def describe_failures(self) -> str:
        """One line on the first failed element of each kind, with what to do; empty when all is well."""
        lines = []
        for status, n in self.counts().items():
            if status == Status.OK:
                continue
            index = tuple((self.status == status).nonzero()[0].tolist())
            size = getattr(self, self.measure)[index].item()
            lines.append(
                f"{n} of {self.status.numel()} elements {status.name} (first at index {list(index)}, "
                f"{self.measure} {size:.3g}). {self.advice[status]}"
            )
        return " ".join(lines)


@dataclass(frozen=True, eq=False)
class Solution(PerElement):
    """Value with a per-element account of how it came about.

    Args:
        value: The enforced decision `(*batch, n)`; a least-violation point where the status says failure.
        status: `Status` codes `(*batch)`, int8.
        steps: Iterations spent `(*batch)`, int32; 0 for a closed form.
        violation: Largest violated row of `value` `(*batch)`, measured after the fact, in row units.
        found_by: `FoundBy` codes `(*batch)`, int8; `None` where a layer has one way only.
        condition: Factor by which the map may enlarge a change of `y` `(*batch)`, for instance `cond(A)` of the closed
            form; `None` where a layer does not measure it.
        duals: Lagrange multipliers `(*batch, m)` of a projection, for a warm start; `None` if it has none.
        raw: What a network or a controller proposed `(*batch, n)`; `None` where the caller gave it.
    """

    value: Float[Tensor, "*batch n"]
    status: Int[Tensor, "*batch"]
    steps: Int[Tensor, "*batch"]
    violation: Float[Tensor, "*batch"]
    found_by: Int[Tensor, "*batch"] | None = None
    condition: Float[Tensor, "*batch"] | None = None
    duals: Float[Tensor, "*batch m"] | None = None
    raw: Float[Tensor, "*batch n"] | None = None

    measure = "violation"

    @property
    def distance(self) -> Float[Tensor, "*batch"]:
        """Euclidean distance between the proposal and the value; its subgradient where they agree is 0.

        A penalty on the value has zero gradient, because it satisfies the constraints; penalize this instead.
        """
        if self.raw is None:
            raise ValueError(
                "Solution.distance: expected a solution with its proposal (raw), got one without. Take the norm of "
                "value - y, or call `solve` of the network or controller that proposes."
            )
        return torch.linalg.vector_norm(self.value - self.raw, dim=-1)


torch.export.register_dataclass(Solution, serialized_type_name="constrained_nn.Solution")
