"""Linear matrix inequalities as sets: factored blocks, and their intersection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.linalg import (
    MatrixMap,
    certified_above,
    magnitude,
    matrix_at,
    split,
    symmetric_eigenvalues,
)
from constrained_nn.sets.base import ConstraintSet, are_tensors, check_batch, check_match, constraint_set
from constrained_nn.sets.lmi import forms as forms
from constrained_nn.sets.lmi.shapes import check_symmetric

Matrices = Tensor | Sequence[Tensor]


@constraint_set
class LMIBlock(ConstraintSet):
    """One linear matrix inequality in factored form.

    `{y = (svec S, vec Y, z) : constant + left V right + (left V right)ᵀ + Σⱼ zⱼ slopesⱼ ⪰ 0}`, `V = [S; Y]`.

    `S` is symmetric `p × p` (as `svec`: upper triangle by rows, off-diagonal entries times √2), `Y` is `k × p` by rows,
    `z` are scalars; the sizes follow from the shapes. With `p = 0` this is the dense form `F₀ + Σ zⱼ Fⱼ`.

    Guarantee: a description only. `residual` holds the negative parts of the eigenvalues of the symmetric part.

    Args:
        constant: Constant term `(*batch, n, n)`, symmetric.
        left: Left factor `(*batch, n, p + k)`.
        right: Right factor `(*batch, p, n)`.
        slopes: Matrices of the scalars `(*batch, s, n, n)`, symmetric; `None` for no scalar.

    Raises:
        ShapeError: The shapes, dtypes or devices do not fit each other.

    Example:
        >>> import torch
        >>> eye = torch.eye(2)
        >>> block = LMIBlock(-eye, 0.5 * eye, eye)  # S ⪰ I
        >>> block.violation(torch.tensor([3.0, 0.0, 0.5]))
        tensor(0.5000)

    References:
        Boyd, El Ghaoui, Feron and Balakrishnan, Linear Matrix Inequalities in System and Control Theory
        (1994), section 2.1.
    """

    constant: Float[Tensor, "*#batch n n"]
    left: Float[Tensor, "*#batch n q"]
    right: Float[Tensor, "*#batch p n"]
    slopes: Float[Tensor, "*#batch s n n"] = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        if not are_tensors(self.constant, self.left, self.right):
            return
        if self.slopes is None:
            object.__setattr__(self, "slopes", self.constant.new_zeros(0, *self.constant.shape[-2:]))
        if not are_tensors(self.slopes):
            return
        n = self.constant.shape[-1] if self.constant.ndim >= 2 else -1
        fits = (
            min(self.left.ndim, self.right.ndim) >= 2
            and self.slopes.ndim >= 3
            and self.constant.shape[-2:] == self.slopes.shape[-2:] == (n, n)
            and self.left.shape[-2] == self.right.shape[-1] == n
            and self.left.shape[-1] >= self.right.shape[-2]
        )
        if not fits or n < 1 or self.map.dim < 1:
            shapes = [tuple(t.shape) for t in (self.constant, self.left, self.right, self.slopes)]
            raise ShapeError(
                f"LMIBlock: expected constant (*batch, n, n), left (*batch, n, p + k), right (*batch, p, n) and slopes "
                f"(*batch, s, n, n), got {shapes}. The variables are S (p x p), Y (k x p) and s scalars."
            )
        check_match(
            "LMIBlock", "constant", self.constant, left=self.left, right=self.right, slopes=self.slopes
        )
        check_batch("LMIBlock", **self._batches())

    def validate(self) -> None:
        """Check that the data hold no NaN and are symmetric; raises `ValueError`. Synchronises a GPU."""
        super().validate()
        check_symmetric("LMIBlock.validate", constant=self.constant, slopes=self.slopes)

    def _batches(self) -> dict[str, torch.Size]:
        return {name: getattr(self, name).shape[:-core] for name, core in self.core_ndims.items()}

    @property
    def map(self) -> MatrixMap:
        """The tensors as the kernels take them."""
        return MatrixMap(self.constant, self.left, self.right, self.slopes)

    @property
    def order(self) -> int:
        """Number of rows of the matrix."""
        return self.constant.shape[-1]

    @property
    def dim(self) -> int:
        return self.map.dim

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(*self._batches().values())

    def matrix(self, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n n"]:
        """`F(y)`."""
        return matrix_at(self.map, y)

    def residual(self, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n"]:
        return symmetric_eigenvalues(self.matrix(y)).clamp_max(0.0)

    def scale(self, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n"]:
        size = torch.linalg.matrix_norm(magnitude(self.map, y))
        return size.unsqueeze(-1).expand(*size.shape, self.order)

    def certified(self, y: Float[Tensor, "*#batch m"]) -> Bool[Tensor, "*batch"]:
        """Whether `F(y) ⪰ 0` is proved for these very numbers, in float64 arithmetic; False says nothing."""
        return certified_above(MatrixMap(*(t.double() for t in self.map)), y.double())


@constraint_set
class LMI(ConstraintSet):
    """Linear matrix inequalities on one decision: the intersection of their blocks.

    `{y : F_b(y) ⪰ 0 for every block b}`, `y = (svec S, vec Y, z)` as in `LMIBlock`.

    Write blocks yourself, or use a constructor: `dense`, `lyapunov`, `invariant_ellipsoid`, `bounded_real`,
    `passivity`, `state_feedback`. They take one system or a tuple of vertices (a polytope of systems), and keep
    the blocks factored: no matrix with `n² m` entries is built. `LMI(*first.blocks, *second.blocks)` joins two.

    Guarantee: a description only; it may be empty: the layer that enforces it reports that for each element.

    Args:
        blocks: The blocks, all on the same decision.

    Raises:
        ShapeError: There is no block, or dimensions, dtypes, devices or batch shapes do not match.
        SetTypeError: An argument is not an `LMIBlock`.

    Example:
        >>> import torch
        >>> stable = LMI.lyapunov(torch.tensor([[-1.0, 2.0], [0.0, -1.0]]), floor=1.0)
        >>> stable.violation(torch.tensor([1.0, 0.0, 4.0]))  # P = diag(1, 4)
        tensor(0.)

    References:
        LMI-Net (arXiv 2604.05374), section 2; Boyd et al., Linear Matrix Inequalities in System and
        Control Theory (1994).
    """

    blocks: tuple[LMIBlock, ...]

    def __init__(self, *members: LMIBlock, blocks: tuple[LMIBlock, ...] = ()) -> None:
        object.__setattr__(self, "blocks", members or tuple(blocks))
        if not self.blocks:
            raise ShapeError(
                "LMI: expected at least one block, got none. Pass each `LMIBlock` as one argument."
            )
        for position, block in enumerate(self.blocks):
            if not isinstance(block, LMIBlock):
                raise SetTypeError(
                    f"LMI: expected LMIBlocks, got {type(block).__name__} at position {position}. Matrices go through "
                    f"a constructor such as `LMI.dense(F0, F)`."
                )
        if not all(are_tensors(b.constant, b.left, b.right, b.slopes) for b in self.blocks):
            return  # placeholders of a pytree transform
        if len({b.dim for b in self.blocks}) > 1:
            raise ShapeError(
                f"LMI: expected blocks of one dimension, got {[b.dim for b in self.blocks]}. Every block is written "
                f"on the whole decision."
            )
        first, *others = (b.constant for b in self.blocks)
        check_match("LMI", "the first block", first, **{f"block {i + 1}": t for i, t in enumerate(others)})
        check_batch("LMI", **{f"block {i}": b.batch_shape for i, b in enumerate(self.blocks)})

    @property
    def dim(self) -> int:
        return self.blocks[0].dim

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(*(b.batch_shape for b in self.blocks))

    def residual(self, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n"]:
        return _expanded([b.residual(y) for b in self.blocks])

    def scale(self, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n"]:
        return _expanded([b.scale(y) for b in self.blocks])

    def certified(self, y: Float[Tensor, "*#batch m"]) -> Bool[Tensor, "*batch"]:
        """Whether `F(y) ⪰ 0` is proved in exact arithmetic for these very numbers; False says nothing.

        One Cholesky factorization a block in float64, whatever the dtype of the numbers, shifted by a bound on its
        own rounding and on that of `F(y)`.
        """
        result = self.blocks[0].certified(y)
        for block in self.blocks[1:]:
            result = result & block.certified(y)
        return result

    def variables(self, y: Float[Tensor, "*#batch m"]) -> tuple[Tensor, Tensor, Tensor]:
        """`S` `(*batch, p, p)`, `Y` `(*batch, k, p)` and `z` `(*batch, s)` of a decision."""
        return split(self.blocks[0].map, y)

    def validate(self) -> None:
        """Check that the data hold no NaN and are symmetric; raises `ValueError`. Synchronises a GPU."""
        for block in self.blocks:
            block.validate()

    @classmethod
    def dense(cls, F0: Float[Tensor, "*#batch n n"], F: Float[Tensor, "*#batch m n n"]) -> LMI:
        """`F0 + Σ yᵢ Fᵢ ⪰ 0`; block-diagonal inequalities are several of these, joined.

        Args:
            F0: Constant `(*batch, n, n)`, symmetric up to rounding.
            F: Coefficients `(*batch, m, n, n)`, symmetric up to rounding.

        Raises:
            ShapeError: The shapes, dtypes or devices do not fit each other.
            ValueError: A matrix is not symmetric: its symmetric part would be another inequality.
        """
        return cls(_block(forms.dense(F0, F)))

    @classmethod
    def lyapunov(cls, A: Matrices, *, rate: float = 0.0, floor: float | Tensor = 1e-3) -> LMI:
        """`Aᵀ P + P A + 2 rate P ⪯ 0`, `P ⪰ floor I`: `V = xᵀ P x` decays like `exp(−2 rate t)`.

        Args:
            A: System `(*batch, n, n)` [1/s], or a tuple of vertices, which then share `P`.
            rate: Decay rate [1/s].
            floor: Least eigenvalue of `P`.
        """
        return cls._of([forms.lyapunov(a, rate) for a in _vertices(A)], floor)

    @classmethod
    def invariant_ellipsoid(
        cls, A: Matrices, B: Matrices, *, multiplier: float | Tensor, floor: float | Tensor = 1e-5
    ) -> LMI:
        """`{x : xᵀ P x <= 1}` is invariant for `dx/dt = A x + B w`, `|w| <= 1` (S-procedure).

        `[[Aᵀ P + P A + α P, P B], [Bᵀ P, −α I]] ⪯ 0`, `P ⪰ floor I`.

        Args:
            A: System `(*batch, n, n)` [1/s], or a tuple of vertices.
            B: Input of the disturbance `(*batch, n, k)`, or a tuple of vertices.
            multiplier: `α` of the S-procedure [1/s], positive.
            floor: Least eigenvalue of `P`.
        """
        return cls._of([forms.invariant(a, b, multiplier) for a, b in _vertices(A, B)], floor)

    @classmethod
    def bounded_real(
        cls,
        A: Matrices,
        B: Matrices,
        C: Tensor,
        D: Tensor,
        *,
        gain: float | None = None,
        floor: float | Tensor = 1e-6,
    ) -> LMI:
        """`‖C (s I − A)⁻¹ B + D‖_∞ <= gain`; without `gain` its square is one more component of the decision.

        `[[Aᵀ P + P A + Cᵀ C, P B + Cᵀ D], [·, Dᵀ D − gain² I]] ⪯ 0`, `P ⪰ floor I`.

        Args:
            A: System `(*batch, n, n)` [1/s], or a tuple of vertices.
            B: Input `(*batch, n, k)`, or a tuple of vertices.
            C: Output `(*batch, l, n)`.
            D: Feedthrough `(*batch, l, k)`.
            gain: Largest gain.
            floor: Least eigenvalue of `P`.
        """
        return cls._of([forms.bounded_real(a, b, C, D, gain) for a, b in _vertices(A, B)], floor)

    @classmethod
    def passivity(
        cls, A: Matrices, B: Matrices, C: Tensor, D: Tensor, *, floor: float | Tensor = 1e-6
    ) -> LMI:
        """`C (s I − A)⁻¹ B + D` is passive: `[[Aᵀ P + P A, P B − Cᵀ], [·, −(D + Dᵀ)]] ⪯ 0`, `P ⪰ floor I`.

        Args:
            A: System `(*batch, n, n)` [1/s], or a tuple of vertices.
            B: Input `(*batch, n, k)`, or a tuple of vertices.
            C: Output `(*batch, k, n)`.
            D: Feedthrough `(*batch, k, k)`.
            floor: Least eigenvalue of `P`.
        """
        return cls._of([forms.passivity(a, b, C, D) for a, b in _vertices(A, B)], floor)

    @classmethod
    def state_feedback(
        cls,
        A: Matrices,
        B: Matrices,
        *,
        rate: float | Tensor,
        disturbance: Tensor | None = None,
        floor: float | Tensor = 1e-3,
    ) -> LMI:
        """State feedback `u = Y Q⁻¹ x` with ellipsoid `{x : xᵀ Q⁻¹ x <= 1}`; the decision is `(svec Q, vec Y)`.

        `A Q + Q Aᵀ + B Y + Yᵀ Bᵀ + rate Q ⪯ 0`, `Q ⪰ floor I`; with a disturbance `G w`, `|w| <= 1`, the ellipsoid is
        invariant: `[[A Q + Q Aᵀ + B Y + Yᵀ Bᵀ + rate Q, G], [Gᵀ, −rate I]] ⪯ 0`.

        Args:
            A: System `(*batch, n, n)` [1/s], or a tuple of vertices.
            B: Input `(*batch, n, k)`, or a tuple of vertices.
            rate: Decay rate of `xᵀ Q⁻¹ x`, or multiplier of the S-procedure, `α` [1/s].
            disturbance: Input of the disturbance `(*batch, n, l)`.
            floor: Least eigenvalue of `Q`.
        """
        rows = _vertices(A, B)
        found = [forms.state_feedback(a, b, rate, disturbance) for a, b in rows]
        return cls._of(found, floor, rows=rows[0][1].shape[-1])

    @classmethod
    def _of(cls, maps: list[MatrixMap], floor: float | Tensor, rows: int = 0) -> LMI:
        """The blocks of every vertex, and `S ⪰ floor I` on the same variables."""
        like = maps[0]
        bound = forms.floor(like.right, floor, rows=rows, scalars=like.slopes.shape[-3])
        return cls(*map(_block, maps), _block(bound))


def _block(map: MatrixMap) -> LMIBlock:
    return LMIBlock(*map)


def _vertices(*matrices: Matrices) -> list:
    """Vertices, matched: a single matrix goes with every vertex of the others."""
    lists = [list(m) if isinstance(m, list | tuple) else [m] for m in matrices]
    count = max(map(len, lists))
    if not count or any(len(entry) not in (1, count) for entry in lists):
        raise ShapeError(
            f"LMI: expected as many vertices of each matrix, got {[len(entry) for entry in lists]}. A matrix that is "
            f"the same in all of them may be given once."
        )
    lists = [entry * count if len(entry) == 1 else entry for entry in lists]
    return lists[0] if len(lists) == 1 else list(zip(*lists, strict=True))


def _expanded(rows: list[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(*(r.shape[:-1] for r in rows))
    return torch.cat([r.expand(*batch, r.shape[-1]) for r in rows], -1)
