"""Projection layers side by side: each takes a `Workload` and gives a forward and a backward run.

A builder returns `(forward, both)`: `forward()` is the projected points as a NumPy array, `both()`
the derivative of `sum(weight * x)` in the points (and, where the peer can, in the right-hand sides
too). What does not depend on the points and right-hand sides is prepared outside both. Every peer
works in float64.
"""

# The peers are optional.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from constrained_nn.bench.rivals.workloads import Workload

Run = Callable[[], np.ndarray]
Builder = Callable[[Workload, str], tuple[Run, Run | None]]

# What has to be importable for each peer.
MODULES = {
    "constrained_nn": "torch",
    "constrained_nn_float32": "torch",
    "moreau": "moreau",
    "cvxpylayers": "cvxpylayers",
    "qpth": "qpth",
    "qpax": "qpax",
    "proxsuite": "proxsuite",
    "pinet_50": "pinet",
    "pinet_1000": "pinet",
    "jaxopt": "jaxopt",
}


def _torch_runs(work: Workload, solve: Callable[..., Any], device: str = "cpu", dtype: str = "float64"):
    """Runs of `solve(point, d, h) -> x`, differentiated in the point and the right-hand sides."""
    import torch

    kind = getattr(torch, dtype)

    def tensor(a: np.ndarray | None):
        return None if a is None else torch.as_tensor(a, dtype=kind, device=device)

    point, weight, d = tensor(work.point), tensor(work.weight), tensor(work.d)
    h = tensor(work.one_sided()[1])
    assert point is not None
    assert weight is not None
    assert h is not None

    def forward() -> np.ndarray:
        with torch.no_grad():
            return solve(point, d, h).cpu().numpy()

    def both() -> np.ndarray:
        leaf = point.clone().requires_grad_()
        sides = [None if t is None else t.clone().requires_grad_() for t in (d, h)]
        (solve(leaf, *sides) * weight).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.cpu().numpy()

    return forward, both


def constrained_nn(work: Workload, device: str, dtype: str = "float64") -> tuple[Run, Run | None]:
    import torch

    from constrained_nn.solvers import factor_polyhedron, project_polyhedron

    kind = getattr(torch, dtype)
    blocks = [M for M in (work.C, work.G) if M is not None]
    shared = all(M.ndim == 2 for M in blocks)
    A = torch.as_tensor(np.concatenate(blocks, -2), dtype=kind, device=device)
    n, q = work.point.shape[-1], 0 if work.C is None else len(work.C)
    box = None
    if work.box is not None:
        box = (A.new_full((n,), work.box[0]), A.new_full((n,), work.box[1]))
    equality = torch.arange(A.shape[-2], device=device) < q
    factor = factor_polyhedron(A, equality if q else None, box=box is not None) if shared else None
    free = A.new_full((len(work.point), A.shape[-2] - q), -torch.inf)

    def solve(point, d, h):
        if work.box is not None:
            lower = upper = d
        elif d is None:
            lower, upper = free, h
        else:
            lower, upper = torch.cat([d, free], -1), torch.cat([d, h], -1)
        return project_polyhedron(point, A, lower, upper, box=box, factor=factor).value

    return _torch_runs(work, solve, device, dtype)


def constrained_nn_float32(work: Workload, device: str) -> tuple[Run, Run | None]:
    return constrained_nn(work, device, "float32")


def moreau(work: Workload, device: str) -> tuple[Run, Run | None]:
    import moreau as library
    import torch
    from moreau.torch import Solver

    rows, _ = work.one_sided()
    n, m = work.point.shape[-1], rows.shape[-2]
    q = 0 if work.C is None else len(work.C)
    # compressed rows: dense ones for C and G, one entry for a bound
    dense = q if work.box is not None else q + m
    columns = [np.tile(np.arange(n), dense)]
    offsets = np.arange(dense + 1) * n
    if work.box is not None:
        columns.append(np.tile(np.arange(n), 2))
        offsets = np.concatenate([offsets, offsets[-1] + np.arange(1, m + 1)])
        assert work.C is not None
        entries = np.concatenate([work.C.ravel(), np.ones(n), -np.ones(n)])
    elif rows.ndim == 3:
        entries = rows.reshape(len(rows), -1)
    else:
        entries = (rows if work.C is None else np.vstack([work.C, rows])).ravel()
    solver = Solver(
        n=n,
        m=q + m,
        P_row_offsets=torch.arange(n + 1),
        P_col_indices=torch.arange(n),
        A_row_offsets=torch.as_tensor(offsets),
        A_col_indices=torch.as_tensor(np.concatenate(columns)),
        cones=library.Cones(num_zero_cones=q, num_nonneg_cones=m),
        settings=library.Settings(enable_grad=True, device="cpu"),
    )
    identity = torch.ones(n, dtype=torch.float64)
    values = torch.as_tensor(entries)
    if values.ndim == 2:
        identity = identity.expand(len(values), n).contiguous()

    def solve(point, d, h):
        return solver.solve(identity, values, -point, h if d is None else torch.cat([d, h], -1)).x

    return _torch_runs(work, solve)


def cvxpylayers(work: Workload, device: str) -> tuple[Run, Run | None]:
    import cvxpy as cp
    import torch
    from cvxpylayers.torch import CvxpyLayer  # pyright: ignore[reportPrivateImportUsage]

    rows, bound = work.one_sided()
    x, point = cp.Variable(work.point.shape[-1]), cp.Parameter(work.point.shape[-1])
    h, constraints, parameters = cp.Parameter(bound.shape[-1]), [], [point]
    if rows.ndim == 3:
        G = cp.Parameter(rows.shape[1:])
        parameters.append(G)
        constraints.append(G @ x <= h)
    else:
        constraints.append(rows @ x <= h)
    parameters.append(h)
    if work.C is not None and work.d is not None:
        d = cp.Parameter(work.d.shape[-1])
        parameters.append(d)
        constraints.append(work.C @ x == d)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) - point @ x), constraints)
    layer = CvxpyLayer(problem, parameters=parameters, variables=[x], solver_args={"eps": 1e-9})
    matrix = [torch.as_tensor(rows)] if rows.ndim == 3 else []

    def solve(point, d, h):
        return layer(point, *matrix, h, *([] if d is None else [d]))[0]

    return _torch_runs(work, solve)


def qpth(work: Workload, device: str) -> tuple[Run, Run | None]:
    import torch
    from qpth.qp import QPFunction

    rows = torch.as_tensor(work.one_sided()[0])
    Q = torch.eye(work.point.shape[-1], dtype=torch.float64)
    none = torch.tensor([], dtype=torch.float64)
    C = none if work.C is None else torch.as_tensor(work.C)
    function = QPFunction(verbose=-1, check_Q_spd=False)
    return _torch_runs(work, lambda point, d, h: function(Q, -point, rows, h, C, none if d is None else d))


def proxsuite(work: Workload, device: str) -> tuple[Run, Run | None]:
    import torch
    from proxsuite.torch.qplayer import QPFunction

    torch.set_default_dtype(torch.float64)  # its backward buffers take the default dtype
    batch, n = work.point.shape

    def each(M: np.ndarray | None):
        if M is None:
            return torch.tensor([])
        return torch.as_tensor(np.broadcast_to(M, (batch, *M.shape[-2:])).copy())

    rows, C = each(work.one_sided()[0]), each(work.C)
    Q = torch.eye(n).expand(batch, n, n).contiguous()
    low = torch.full((batch, rows.shape[1]), -1e20)
    function = QPFunction(omp_parallel=False, structural_feasibility=True)
    none = torch.tensor([])
    return _torch_runs(
        work, lambda point, d, h: function(Q, -point, C, none if d is None else d, rows, low, h)[0]
    )


def _jax_runs(work: Workload, solve: Callable[..., Any]) -> tuple[Run, Run | None]:
    """Runs of a jittable `solve(point, d, h) -> x`, differentiated in the point; compiled before it is timed."""
    import jax
    import jax.numpy as jnp

    point, weight, h = jnp.asarray(work.point), jnp.asarray(work.weight), jnp.asarray(work.one_sided()[1])
    d = None if work.d is None else jnp.asarray(work.d)
    value = jax.jit(solve)
    slope = jax.jit(jax.value_and_grad(lambda p, d, h: jnp.sum(weight * solve(p, d, h))))
    return (
        lambda: np.asarray(jax.block_until_ready(value(point, d, h))),
        lambda: np.asarray(jax.block_until_ready(slope(point, d, h))[1]),
    )


def _jax():
    import os

    os.environ.setdefault("PINET_RUNTIME_CHECK", "0")
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def _pinet(work: Workload, steps: int, adjoint_steps: int, sigma: float, equilibration: int):
    _jax()
    import jax.numpy as jnp
    import pinet

    rows, bound = work.one_sided()
    equality = inequality = box = None
    if work.C is not None:
        equality = pinet.EqualityConstraint(
            a_mat=jnp.asarray(work.C)[None], b=jnp.asarray(work.d)[..., None], method=None, var_b=True
        )
    if work.box is not None:
        side = jnp.ones((1, work.point.shape[-1], 1))
        box = pinet.BoxConstraint(
            pinet.BoxConstraintSpecification(lb=work.box[0] * side, ub=work.box[1] * side)
        )
    else:
        upper = jnp.asarray(bound)[..., None]
        inequality = pinet.AffineInequalityConstraint(
            c_mat=jnp.asarray(rows if rows.ndim == 3 else rows[None]),
            ub=upper,
            lb=jnp.full_like(upper, -jnp.inf),
        )
    project = pinet.Project(
        eq_constraint=equality,
        ineq_constraint=inequality,
        box_constraint=box,
        equilibration_params=pinet.EquilibrationParams(max_iter=equilibration),
    )

    def solve(point, d, h):
        given = None if d is None else pinet.EqualityConstraintsSpecification(b=d[..., None])
        return project.call(
            y_raw=pinet.ProjectionInstance(x=point[..., None], eq=given),
            sigma=sigma,
            omega=1.7,
            n_iter=steps,
            n_iter_bwd=adjoint_steps,
            fpi=False,
        )[0].x[..., 0]

    return _jax_runs(work, solve)


def pinet_50(work: Workload, device: str) -> tuple[Run, Run | None]:
    """The setting that Pi-net's own tuning found for its benchmark (dc3)."""
    return _pinet(work, 50, 25, sigma=0.06806787572155291, equilibration=25)


def pinet_1000(work: Workload, device: str) -> tuple[Run, Run | None]:
    return _pinet(work, 1000, 100, sigma=1.0, equilibration=0)


def _each_element(work: Workload, one: Callable[..., Any]) -> tuple[Run, Run | None]:
    """Runs of a solver of one problem `one(point, C, d, G, h)`, mapped over the batch by JAX."""
    jax = _jax()
    import jax.numpy as jnp

    rows = jnp.asarray(work.one_sided()[0])
    C = None if work.C is None else jnp.asarray(work.C)
    mapped = jax.vmap(
        lambda p, d, G, h: one(p, C, d, G, h),
        in_axes=(0, None if C is None else 0, 0 if rows.ndim == 3 else None, 0),
    )
    return _jax_runs(work, lambda p, d, h: mapped(p, d, rows, h))


def qpax(work: Workload, device: str) -> tuple[Run, Run | None]:
    _jax()
    import jax.numpy as jnp
    import qpax as library

    n = work.point.shape[-1]

    def one(point, C, d, G, h):
        C, d = (jnp.zeros((0, n)), jnp.zeros(0)) if C is None else (C, d)
        return library.solve_qp_primal(jnp.eye(n), -point, C, d, G, h, solver_tol=1e-8, target_kappa=1e-6)

    return _each_element(work, one)


def jaxopt(work: Workload, device: str) -> tuple[Run, Run | None]:
    _jax()
    import jax.numpy as jnp
    import jaxopt as library

    n = work.point.shape[-1]
    solver = library.OSQP(tol=1e-6, maxiter=20000)

    def one(point, C, d, G, h):
        equality = None if C is None else (C, d)
        return solver.run(
            params_obj=(jnp.eye(n), -point), params_eq=equality, params_ineq=(G, h)
        ).params.primal

    return _each_element(work, one)


BUILDERS: dict[str, Builder] = {name: globals()[name] for name in MODULES}
