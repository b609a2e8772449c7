"""What every certificate function promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn.certificates import SampledBarrier
from control_envs.tasks import Clearance, DoubleIntegratorTask, KinematicUnicycleTask
from tests.cases import CertificateCase, every
from tests.oracles import element, finite_difference, numpy

BATCH = 6


@every(CertificateCase)
def test_value_is_that_of_the_oracle(case: CertificateCase, generator: torch.Generator) -> None:
    x = case.states(generator, 20)
    expected = np.stack([case.value(state) for state in numpy(x)])
    np.testing.assert_allclose(numpy(case.make().value(x)), expected, rtol=1e-6, atol=1e-6)


@every(CertificateCase)
def test_gradient_is_that_of_the_value(case: CertificateCase, generator: torch.Generator) -> None:
    certificate, x = case.make(), case.states(generator, BATCH)
    for state in x:
        expected = finite_difference(certificate.value, state)
        found = certificate.gradient(state).reshape(expected.shape)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@every(CertificateCase)
def test_condition_bounds_the_derivative_along_the_motion(
    case: CertificateCase, generator: torch.Generator
) -> None:
    """An input is in the set exactly where the certificate's own inequality holds for `dx/dt` of the plant."""
    certificate, x = case.make(), case.states(generator, 40)
    u = 20.0 * torch.randn(40, case.plant.input_dim, generator=generator, dtype=torch.float64)
    set = certificate.condition(0.0, x)
    step = 1e-5
    held = 0
    for i in range(len(x)):
        motion = numpy(case.plant.derivative(0.0, x[i], u[i]))
        state = numpy(x[i])
        rate = (case.value(state + step * motion) - case.value(state - step * motion)) / (2 * step)
        margin = case.margin(case.value(state), rate)
        if np.abs(margin).min() < 1e-2:
            continue
        expected = bool((margin >= 0).all())
        held += expected
        assert bool(element(set, i).contains(u[i], atol=1e-6)) == expected
    assert 0 < held < len(x), "the row draws only safe, or only unsafe, inputs"


@every(CertificateCase)
def test_batch_equals_loop_and_quarantine(case: CertificateCase, generator: torch.Generator) -> None:
    certificate, x = case.make(), case.states(generator, BATCH)
    u = torch.randn(BATCH, case.plant.input_dim, generator=generator, dtype=torch.float64)
    violation = certificate.condition(0.0, x).violation(u)
    loop = torch.stack([certificate.condition(0.0, x[i]).violation(u[i]) for i in range(BATCH)])
    torch.testing.assert_close(violation, loop, rtol=1e-9, atol=1e-9)
    bad = x.clone()
    bad[2] = torch.nan
    poisoned = certificate.condition(0.0, bad)
    healthy = torch.arange(BATCH) != 2
    torch.testing.assert_close(poisoned.violation(u)[healthy], violation[healthy], rtol=1e-12, atol=1e-12)
    assert not poisoned.contains(u, atol=1e30)[2]


@every(CertificateCase)
def test_any_number_of_batch_dimensions(case: CertificateCase, generator: torch.Generator) -> None:
    certificate, x = case.make(), case.states(generator, BATCH)
    u = torch.randn(BATCH, case.plant.input_dim, generator=generator, dtype=torch.float64)
    alone = [certificate.condition(0.0, x[i]).residual(u[i]) for i in range(BATCH)]
    found = certificate.condition(0.0, x.unflatten(0, (2, 3))).residual(u.unflatten(0, (2, 3)))
    torch.testing.assert_close(found.flatten(0, 1), torch.stack(alone), rtol=1e-9, atol=1e-9)
    for method in (certificate.value, certificate.gradient):
        alone = torch.stack([method(x[i]) for i in range(BATCH)])
        found = method(x.unflatten(0, (2, 3))).flatten(0, 1)
        torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-9)


@every(CertificateCase)
def test_condition_is_differentiable_in_the_state(case: CertificateCase, generator: torch.Generator) -> None:
    certificate, x = case.make(), case.states(generator, 2).requires_grad_()
    u = torch.randn(2, case.plant.input_dim, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: certificate.condition(0.0, x).violation(u), (x,), atol=1e-4, rtol=1e-4
    )


def safe_unicycle_inputs(x: np.ndarray, u: np.ndarray) -> bool:
    """Both clearances of the task, written out: the obstacle `a x² + b y² >= 1` and the fence of 5 m."""
    (px, py, theta), (v, omega) = x, u
    a, b = 0.51020408, 0.90702948
    along = np.array([px * np.cos(theta), py * np.sin(theta)])
    obstacle, slope = a * px**2 + b * py**2 - 1, 2 * np.hypot(a * px, b * py)
    rates = 2 * v * np.array([a, b]) @ along, -2 * v * along.sum()
    curvatures = 1.5 * (1.2 * slope + 6 + obstacle / 2), 20 + 3.6 * np.hypot(px, py)
    held = [
        rate + 2 * e >= 0.05 / 2 * m * v
        for e, rate, m in zip((obstacle, 25 - px**2 - py**2), rates, curvatures, strict=True)
    ]
    return all(held) and 0 <= v <= 2 and abs(omega) <= 1.5


@pytest.mark.parametrize("acts_on", [None, 0], ids=["rows", "box"])
def test_sampled_barrier_of_two_inputs(acts_on: int | None, generator: torch.Generator) -> None:
    """Rows and limits of any number of batch dimensions; as rows, or as bounds of the one input they touch."""
    task = KinematicUnicycleTask()
    limits = {"low": torch.tensor(task.input_low), "high": torch.tensor(task.input_high)}
    barrier = SampledBarrier(task.clearances, task.plant, hold=0.05, acts_on=acts_on, **limits)
    draw = torch.rand(2, 100, 5, generator=generator, dtype=torch.float64)
    x = torch.tensor([-3.5, -3.5, -3.14]) + torch.tensor([7.0, 7.0, 6.28]) * draw[..., :3]
    outside = 0.51020408 * x[..., 0] ** 2 + 0.90702948 * x[..., 1] ** 2 >= 1
    x = torch.where(outside.unsqueeze(-1), x, torch.tensor([3.0, 0.0, 0.0]).double())  # states that are safe
    u = torch.tensor([-0.5, -2.0]) + torch.tensor([3.0, 4.0]) * draw[..., 3:]
    expected = np.array(
        [
            [safe_unicycle_inputs(*pair) for pair in zip(*rows, strict=True)]
            for rows in zip(numpy(x), numpy(u), strict=True)
        ]
    )
    assert 20 < expected.sum() < 180
    found = barrier.condition(0.0, x).contains(u, atol=0.0)
    np.testing.assert_array_equal(numpy(found), expected)
    alone = [bool(barrier.condition(0.0, x[1, i]).contains(u[1, i], atol=0.0)) for i in range(30)]
    assert alone == expected[1, :30].tolist()


def test_row_that_no_input_touches_holds_or_forbids_everything() -> None:
    """`p >= 0` alone, of a car that the force moves only by its speed: `v + 2 p >= 0` holds, or nothing helps."""
    position = Clearance("p", "m", lambda x, xp: x[..., 0], lambda x, xp: xp.zeros_like(x), (2.0,))
    limits = {"low": torch.tensor([-1.0]).double(), "high": torch.tensor([1.0]).double()}
    barrier = SampledBarrier((position,), DoubleIntegratorTask.plant, hold=0.05, **limits)
    x = torch.tensor([[0.5, -0.9], [0.5, -1.1], [torch.nan, 0.0]]).double()
    u = torch.tensor([-1.0, 0.0, 1.0]).double()[:, None, None]
    assert barrier.condition(0.0, x).contains(u, atol=0.0).tolist() == [[True, False, False]] * 3
