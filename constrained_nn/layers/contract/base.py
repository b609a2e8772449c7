"""The contract of layers that enforce a set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Generic, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.layers.contract.audit import Relative, Tolerance, Verdict
from constrained_nn.layers.contract.policies import FailurePolicy, LeastViolation, Nan, Raise
from constrained_nn.layers.contract.quarantine import quarantine, same_dtype
from constrained_nn.layers.contract.rounding import Rounded, round_into
from constrained_nn.layers.contract.tracers import refuse_torchscript, refuse_tracers
from constrained_nn.linalg import branchless, without_autocast
from constrained_nn.plain_state import PlainState
from constrained_nn.sets import ConstraintSet, SetT, check_batch, is_half, take_apart, tensors_of
from constrained_nn.solvers import STATUS_CODES, Solution, Status

# Policies that have nothing to say where no element has failed.
_SILENT = (type(None), Raise, Nan, LeastViolation)


class AtOnce(NamedTuple):
    """What a formula gives to all elements, before anybody has judged it.

    Args:
        value: The value `(*batch, n)`.
        details: Further fields of the `Solution`, for whom asks for one.
    """

    value: Tensor
    details: Callable[[], dict[str, Tensor]] = dict


class ProjectionLayer(PlainState, Generic[SetT]):
    """Map from a raw decision into a set, differentiable in the decision and in the set.

    A subclass writes `enforce`, its mathematics. Everything else is here, once: batch shapes, dtypes, elements that are
    not finite, and the audit of the value that is returned, after the last rounding. `OK` is never said of a value that
    was not checked, whatever `enforce` says of it.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`. Default: `LeastViolation()` in training mode (with
            the statuses counted in `counts`), `Raise()` in eval mode.
        compute_dtype: Compute in this dtype and round the result back; `torch.float64` for float32 networks.
            Decisions in bfloat16 and float16 are always computed in float64.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]]
    guarantee: ClassVar[str]
    # Whether a set that is made of accepted parts (`parts()`) is accepted too.
    composes: ClassVar[bool] = False
    # A layer that rounds by itself gets the decision and the set in the dtypes in which they come.
    rounds: ClassVar[bool] = False
    tolerance: Tolerance = Relative()
    counts: Tensor

    def __init__(
        self, *, on_failure: FailurePolicy | None = None, compute_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.on_failure = on_failure
        self.compute_dtype = compute_dtype
        # Statuses met in training mode by this process, indexed by `Status`; not part of the state_dict.
        self.keep("counts", torch.zeros(STATUS_CODES, dtype=torch.int64), saved=False)

    @abstractmethod
    def enforce(self, y: Tensor, set: Any, factor: Any, warm_start: Any) -> Solution | Tensor:
        """The layer's own map, on finite `y` `(*batch, n)` of the full batch shape, in the dtype of the set.

        Args:
            y: Raw decision; elements that are not finite have been replaced.
            set: The set; tensors that all elements share are not expanded.
            factor: What `self.factor(set)` returned for a constant set, or `None`.
            warm_start: An earlier `Solution` of the full batch shape, or `None`. Elements that had failed hold `y` and
                multipliers of 0. A layer that has no use for it says so.

        Returns:
            A `Solution`, or the value alone if the layer has nothing to say about single elements.
        """

    def at_once(self, y: Tensor, set: Any, factor: Any) -> AtOnce | None:
        """The value of `enforce` where a formula gives it to every element, or `None`; the common case made cheap.

        Asked before `enforce`, with the same arguments, where control flow may read values. What comes back is returned
        if every element of it is in the set for certain; otherwise `enforce` finds out what is the matter.
        """
        return None

    def factor(self, set: SetT) -> Any:
        """Precomputed factor of a constant set (pass it to `solve`), or `None` if the layer has no use for it."""
        return None

    def solve(
        self,
        y: Float[Tensor, "*#batch n"],
        set: SetT,
        *,
        factor: Any = None,
        warm_start: Solution | None = None,
    ) -> Solution:
        """Enforce and report, element by element; never raises for a value.

        Args:
            y: Raw decision `(*batch, n)`, in the dtype of the set or a narrower one, in which the value is returned.
            set: The set; its batch shape is that of `y`, or one of them has the other's.
            factor: Result of `self.factor(set)` for a constant set.
            warm_start: An earlier solution of a similar problem, of the same batch shape, from which an iterative layer
                starts. Elements of it that are not `OK` or not finite are ignored; so is all of it where a layer
                does not iterate. It changes the number of steps, and the value by its tolerance.

        Raises:
            SetTypeError: The layer cannot enforce this kind of set.
            ShapeError: Size, dtype, device or batch shape of `y` does not fit the set, or that of `warm_start` does not
                fit `y`.
            TracingError: Under a tracer that would not record what the layer does (`torch.jit`, `torch.fx`).
        """
        solution = self._solve(y, set, factor, warm_start, bare=False)
        assert isinstance(solution, Solution)
        return solution

    @without_autocast
    def _solve(
        self, y: Tensor, set: SetT, factor: Any, warm_start: Solution | None, *, bare: bool
    ) -> Solution | Tensor:
        """The solution; if it is to be bare, the value alone where every element is found at once."""
        refuse_tracers(type(self).__name__, y)
        batch, tensors = self._check(y, set)
        dtype = self._working_dtype(y, tensors)
        x = y if y.shape[:-1] == batch else y.expand(*batch, y.shape[-1])
        work = set if self.rounds or all(t.dtype == dtype for t in tensors) else same_dtype(set, dtype)
        x, clean, healthy = quarantine(x if self.rounds else x.to(dtype), work)
        factor = _fit(factor, dtype) if clean is work or branchless(y, *tensors) else None
        earlier = None if warm_start is None else _usable(type(self).__name__, warm_start, x)
        if healthy is None and not is_half(y) and (found := self.at_once(x, clean, factor)) is not None:
            value = found.value.to(y.dtype)
            with torch.no_grad():
                verdict = self.tolerance(value.detach(), clean)
            if verdict.certain:
                return value if bare else _settled(value, verdict, found)
        solution = _complete(self.enforce(x, clean, factor, earlier), batch)
        value = solution.value.to(y.dtype)
        with torch.no_grad():
            verdict = self.tolerance(value.detach(), clean)
        if is_half(y) and not self.rounds:
            again = lambda shrunk: self.enforce(x, shrunk, None, None)  # noqa: E731
            value, verdict = round_into(again, clean, self.tolerance, solution, Rounded(value, verdict))
        return self._report(solution, value, verdict, healthy)

    def forward(
        self, y: Float[Tensor, "*#batch n"], set: SetT, *, factor: Any = None
    ) -> Float[Tensor, "*batch n"]:
        """The enforced decision `(*batch, n)`; failed elements go to the failure policy."""
        solution = self._solve(y, set, factor, None, bare=type(self.on_failure) in _SILENT)
        if isinstance(solution, Tensor):
            if self.training:
                self.counts[int(Status.OK)] += solution.shape[:-1].numel()
            return solution
        counted = self.count(solution)
        # a failure that nobody counts may not pass for a result
        policy = self.on_failure or (LeastViolation() if counted else Nan() if self.training else Raise())
        return policy(solution, type(self).__name__)

    def count(self, solution: Solution) -> bool:
        """Add the statuses of a solution to `counts` in training mode, where values can be read; whether it has."""
        counted = self.training and not branchless(solution.value)
        if counted:
            found = torch.bincount(solution.status.flatten(), minlength=STATUS_CODES)
            self.counts += found.to(self.counts.device)
        return counted

    def __prepare_scriptable__(self) -> None:
        refuse_torchscript(type(self).__name__)

    def takes(self, set: ConstraintSet) -> bool:
        """Whether the layer enforces this kind of set, or all of its parts together."""
        if isinstance(set, self.accepts):
            return True
        if not self.composes or not isinstance(set, ConstraintSet):
            return False
        return all(part is not set and isinstance(part, self.accepts) for _, part in take_apart(set))

    def _working_dtype(self, y: Tensor, tensors: list[Tensor]) -> torch.dtype:
        """The dtype of the computation: what was asked for, else that of the set, and float64 for 16 bits."""
        if self.compute_dtype is not None:
            return self.compute_dtype
        widest = y.dtype
        for t in tensors:
            if t.dtype != widest:
                widest = torch.promote_types(widest, t.dtype)
        return torch.float64 if is_half(y) else widest

    def _report(
        self, solution: Solution, value: Tensor, verdict: Verdict, healthy: Tensor | None
    ) -> Solution:
        """Status and violation of the value that is returned."""
        narrow = torch.float32 if is_half(value) else value.dtype
        if verdict.certain and healthy is None:
            return replace(solution, value=value, violation=verdict.violation.to(narrow))
        if healthy is None:
            healthy = torch.ones_like(verdict.held)
        missed = (solution.status == int(Status.OK)) & ~verdict.held
        status = torch.where(missed, int(Status.MISSED), solution.status)
        status = torch.where(healthy, status, int(Status.NONFINITE_INPUT)).to(torch.int8)
        known = healthy & ~verdict.violation.isnan()
        violation = torch.where(known, verdict.violation, torch.inf)
        return replace(solution, value=value, status=status, violation=violation.to(narrow))

    def _check(self, y: Tensor, set: SetT) -> tuple[torch.Size, list[Tensor]]:
        """The common batch shape of a decision and a set that fit each other, and the tensors of the set."""
        name = type(self).__name__
        if not self.takes(set):
            expected = " | ".join(c.__name__ for c in self.accepts)
            raise SetTypeError(
                f"{name}: expected set of type {expected}, got {type(set).__name__}. "
                f"See the table 'how to choose' for the layer that enforces it."
            )
        if not isinstance(y, Tensor) or not y.is_floating_point():
            got = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise ShapeError(
                f"{name}: expected y to be a tensor of a floating dtype, got {got}. Convert it with "
                f"`torch.as_tensor(y, dtype=torch.float64)`."
            )
        tensors = tensors_of(set)
        for t in tensors:
            if not isinstance(t, Tensor):
                raise ShapeError(
                    f"{name}: expected a {type(set).__name__} of tensors, got one of {type(t).__name__}. Build it "
                    f"from tensors, for example `torch.tensor([{t}])`."
                )
        if y.ndim < 1 or y.shape[-1] != set.dim:
            raise ShapeError(
                f"{name}: expected y of shape (*batch, {set.dim}) for a set of dimension {set.dim}, got "
                f"{tuple(y.shape)}. The last dimension is the decision; batch dimensions come first."
            )
        for t in tensors:
            wider = t.dtype == y.dtype or torch.promote_types(y.dtype, t.dtype) == t.dtype
            if not wider or y.device != t.device:
                raise ShapeError(
                    f"{name}: expected y of dtype {t.dtype} on {t.device} like the set, or of a narrower dtype, got "
                    f"{y.dtype} on {y.device}. Convert one of them with `.to(...)`; to compute in float64 "
                    f"and return float32, pass compute_dtype=torch.float64."
                )
        return check_batch(name, y=y.shape[:-1], set=set.batch_shape), tensors


def _fit(factor: Any, dtype: torch.dtype) -> Any:
    """The factor in the dtype of the computation; none where it has fewer digits than that."""
    if factor is None:
        return None
    floats = [t for t in tree_leaves(factor) if isinstance(t, Tensor) and t.is_floating_point()]
    if any(torch.finfo(t.dtype).eps > torch.finfo(dtype).eps for t in floats):
        return None
    if all(t.dtype == dtype or t.dtype == torch.float64 for t in floats):
        return factor
    return tree_map(lambda t: t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t, factor)


def _settled(value: Tensor, verdict: Verdict, found: AtOnce) -> Solution:
    """The solution of a value of which every element holds."""
    batch = value.shape[:-1]
    status = torch.zeros(batch, dtype=torch.int8, device=value.device)
    return Solution(
        value, status, status.to(torch.int32), verdict.violation.to(value.dtype), **found.details()
    )


def _usable(layer: str, warm_start: Solution, y: Tensor) -> Solution:
    """An earlier solution without derivative; where it failed, `y` with multipliers of 0, as if there was none."""
    if not isinstance(warm_start, Solution) or warm_start.value.shape != y.shape:
        got = tuple(warm_start.value.shape) if isinstance(warm_start, Solution) else type(warm_start).__name__
        raise ShapeError(
            f"{layer}: expected warm_start to be a Solution with a value of shape {tuple(y.shape)}, got {got}. Pass "
            f"what `solve` returned for the same batch, or leave it out."
        )
    good, value, duals = warm_start.ok, warm_start.value.detach(), warm_start.duals
    good = good & value.isfinite().all(-1)
    if duals is not None:
        duals = duals.detach()
        good = good & duals.isfinite().all(-1)
        duals = torch.where(good.unsqueeze(-1), duals, 0.0)
    return replace(warm_start, value=torch.where(good.unsqueeze(-1), value, y.detach()), duals=duals)


def _complete(found: Solution | Tensor, batch: torch.Size) -> Solution:
    """A `Solution` of the full batch shape, also of a layer that returns its value alone."""
    if isinstance(found, Tensor):
        none = torch.zeros(batch, dtype=torch.int8, device=found.device)
        return Solution(found, none, none.to(torch.int32), found.new_zeros(batch))
    if found.status.shape == batch:
        return found
    return replace(found, status=found.status.expand(batch), steps=found.steps.expand(batch))
