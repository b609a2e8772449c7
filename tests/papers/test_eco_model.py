"""ECO as a model: hostile weights, rounding, failures, gradients, devices."""

from __future__ import annotations

import copy

import pytest
import torch

from constrained_nn.certificates import DiagonalEnergy, FourierEnergy
from constrained_nn.errors import ShapeError
from constrained_nn.experiments.runner import load
from constrained_nn.layers import BlendedProjection, EuclideanProjection, Nan, RayProjection
from constrained_nn.models import ECO
from constrained_nn.solvers import Status
from tests.cases.energies import fitted
from tests.cases.sets import randn
from tests.fake_cuda import fake_cuda, on_cuda
from tests.oracles import finite_difference


class Given(torch.nn.Module):
    """A backbone that proposes whatever it is told."""

    def __init__(self, proposal: torch.Tensor) -> None:
        super().__init__()
        self.proposal = proposal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proposal


class Hostile(torch.nn.Module):
    """Many networks of two layers at once, `(networks, starts, n)`; weights of random signs, over six decades."""

    def __init__(self, generator: torch.Generator, n: int, sizes: torch.Tensor) -> None:
        super().__init__()

        def draw(*shape: int) -> torch.nn.Parameter:
            decades = 10.0 ** (
                6 * torch.rand(len(sizes), *shape, generator=generator, dtype=torch.float64) - 3
            )
            return torch.nn.Parameter(sizes[:, None, None] * randn(generator, len(sizes), *shape) * decades)

        self.first, self.shift = draw(n, 32), draw(1, 32)
        self.second, self.offset = draw(32, n), draw(1, n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.gelu(x @ self.first + self.shift)
        return hidden @ self.second + self.offset


def never_leaves(
    generator: torch.Generator, dtype: torch.dtype, steps: int, alpha: float, energy, sizes
) -> None:
    """From states of norm up to 100 times the data's, for hostile weights, no bound is missed at any step."""
    n, count = energy.dim, len(sizes)
    model = ECO(Hostile(generator, n, torch.tensor(sizes).double()), energy, alpha=alpha).to(dtype).eval()
    start = torch.logspace(-1, 2, 8, dtype=torch.float64).unsqueeze(-1) * randn(generator, count, 8, n)
    with torch.no_grad():
        run = model.rollout(start.to(dtype), steps, every=steps)
    assert run.ok.all(), run.describe_failures()
    assert (run.violation <= 0).all()
    assert (run.energy[1:] <= alpha * run.energy[:-1].clamp_min(float(energy.level))).all()
    assert (run.active.amax(-1) > steps // 2).any(), "the weights were not hostile"
    entered = run.energy <= float(energy.level)
    assert entered[-1].all()
    assert (entered.int().diff(dim=0) >= 0).all(), "a trajectory left the level set"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_hostile_weights_never_leave_the_set(dtype: torch.dtype, generator: torch.Generator) -> None:
    for energy in fitted(generator)[:1] + fitted(generator)[3:4]:
        never_leaves(generator, dtype, 300, 0.95, copy.deepcopy(energy), (1.0,))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", range(6), ids=["diagonal", "dense", "low-rank", "fourier", "fourier-2d", "neural"]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_hostile_weights_never_leave_the_set_in_ten_thousand_steps(dtype, kind: int, generator) -> None:
    """Four networks of each size at once, eight starts each."""
    energy = fitted(generator)[kind]
    never_leaves(generator, dtype, 10_000, 0.99, energy, (1e-2, 1.0, 1e6) * 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_bound_holds_in_random_steps(dtype: torch.dtype, generator: torch.Generator) -> None:
    """`bench energy` does ten million of each."""
    from constrained_nn.bench.energy import violations

    found = violations(str(dtype).removeprefix("torch."), "float64", 50_000)
    assert found["violated"] == 0
    assert found["active"] > 25_000
    assert -found["room"] < found["worst"] < 0.0


def test_infinite_proposals_are_flagged_and_hurt_nobody_else(generator: torch.Generator) -> None:
    energy = DiagonalEnergy(torch.ones(3).double(), level=1.0)
    proposal = 5.0 * randn(generator, 4, 3)
    healthy = ECO(Given(proposal), energy).eval().solve(torch.zeros(4, 3).double())
    for poison in (torch.inf, torch.nan):
        bad = proposal.clone()
        bad[2, 1] = poison
        model = ECO(Given(bad), energy, on_failure=Nan())
        found = model.solve(torch.zeros(4, 3).double())
        assert found.status.tolist() == [0, 0, int(Status.NONFINITE_INPUT), 0]
        assert torch.equal(found.value[[0, 1, 3]], healthy.value[[0, 1, 3]])
        assert found.violation[2] == torch.inf
        assert model(torch.zeros(4, 3).double())[2].isnan().all()
        run = model.rollout(torch.zeros(4, 3).double(), 3)
        assert run.states[1:, 2].isnan().all()
        assert run.status.tolist() == [0, 0, int(Status.NONFINITE_INPUT), 0]
        assert run.states[:, [0, 1, 3]].isfinite().all()


def test_states_of_any_shape_and_further_inputs(generator: torch.Generator) -> None:
    class Forced(torch.nn.Module):
        def forward(self, x: torch.Tensor, force: torch.Tensor) -> torch.Tensor:
            return 9.0 * x + force

    model = ECO(Forced(), FourierEnergy(torch.ones(4, 3).double(), (4, 4), level=3.0), shape=(4, 4)).eval()
    x, force = randn(generator, 2, 5, 4, 4), randn(generator, 2, 5, 4, 4)
    assert model(x, force).shape == x.shape
    assert model.solve(x, force).value.shape == (2, 5, 16)


def test_counts_how_often_the_condition_acts(generator: torch.Generator) -> None:
    energy = DiagonalEnergy(torch.ones(2).double(), level=1.0)
    proposal = torch.tensor([[0.1, 0.0], [3.0, 0.0], [0.0, 9.0], [0.5, 0.5]], dtype=torch.float64)
    model = ECO(Given(proposal), energy, alpha=1.0)
    assert model.activation_rate() == 0.0
    model(torch.zeros(4, 2).double())
    assert model.activation_rate() == 0.5
    model.reset_counts()
    assert model.activation_rate() == 0.0
    assert "seen" not in model.state_dict()
    assert model.rollout(torch.zeros(4, 2).double(), 6).active.tolist() == [0, 6, 6, 0]


def test_gradients_reach_center_level_and_weights(generator: torch.Generator) -> None:
    energy = DiagonalEnergy(torch.ones(3).double(), level=0.5, learn_level=True)
    model = ECO(Given(4.0 * randn(generator, 6, 3)), energy)
    loss = model.rollout(0.1 * randn(generator, 6, 3), 2).states.square().sum() + energy.log_volume()
    gradients = torch.autograd.grad(loss, list(energy.parameters()))
    assert len(gradients) == 3
    assert all(g.abs().max() > 0 for g in gradients)

    def of_level(log_level: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(
            model, {"energy.log_level": log_level}, (torch.zeros(6, 3).double(),)
        ).sum(-1)

    level = energy.log_level.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(of_level(level).sum(), level)
    assert float(found) == pytest.approx(float(finite_difference(of_level, level).sum()), rel=1e-6)


@pytest.mark.untyped
def test_model_compiles_and_does_not_synchronize(generator: torch.Generator) -> None:
    for energy in (fitted(generator)[0], fitted(generator)[3]):
        model = ECO(torch.nn.Linear(16, 16).double(), energy).eval()
        x = 5.0 * randn(generator, 4, 16)
        if isinstance(energy, DiagonalEnergy):
            compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-12, atol=1e-12)
        mapped = torch.func.vmap(model)(x)
        torch.testing.assert_close(mapped, model(x), rtol=1e-12, atol=1e-12)
        with fake_cuda():
            tensors = {n: on_cuda(t) for n, t in model.state_dict(keep_vars=True).items()}
            found = torch.func.functional_call(model, tensors, (on_cuda(x),))
        assert found.device.type == "cuda"


def test_model_survives_its_state_dict(generator: torch.Generator) -> None:
    first, second = fitted(generator)[5], fitted(torch.Generator().manual_seed(9))[5]
    x = 5.0 * randn(generator, 4, 16)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.value(x), second.value(x))
    assert torch.equal(copy.deepcopy(first).value(x), first.value(x))


def test_an_experiment_has_no_statistics_of_a_model_that_left_for_infinity(tmp_path, monkeypatch) -> None:
    experiment = load("eco-lorenz63").fast()
    monkeypatch.setattr(
        type(experiment),
        "train",
        lambda self, *_: (Given(torch.full((1, 3), torch.inf)), {"train_minutes": 0.0}),
    )
    cell = tmp_path / "cell"
    cell.mkdir()
    measures = experiment.run("backbone", 1, cell)
    assert measures["bounded_steps"] == 0
    assert measures["largest_norm"] == torch.inf
    assert "values_kl" not in measures


# --- what must fail closed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [RayProjection(), EuclideanProjection(), BlendedProjection()])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e200])
def test_a_bad_state_is_flagged_and_spoils_no_shared_weight(layer, bad: float, generator) -> None:
    """The derivatives of backbone and energy are those of the other states."""
    x = 3.0 * randn(generator, 4, 3)
    spoiled = x.clone()
    spoiled[2] = bad
    model = ECO(torch.nn.Linear(3, 3).double(), DiagonalEnergy(torch.ones(3).double(), level=0.5), layer)
    good = [0, 1, 3]
    slopes = []
    for states in (x, spoiled):
        found = model.solve(states)
        assert found.status[good].eq(int(Status.OK)).all()
        slopes.append(torch.autograd.grad(found.value[good].square().sum(), list(model.parameters())))
    assert found.status[2] == int(Status.NONFINITE_INPUT)
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("power", [20, 100, 300])
def test_nearest_points_of_the_farthest_proposals_satisfy_the_bound(power: int, generator) -> None:
    energy = DiagonalEnergy(torch.logspace(-4, 4, 8, dtype=torch.float64), level=2.0)
    model = ECO(Given(10.0**power * randn(generator, 5, 8)), energy, EuclideanProjection()).eval()
    run = model.rollout(randn(generator, 5, 8), 3)
    assert run.ok.all()
    assert (run.violation <= 0).all()


def test_a_bound_that_is_missed_after_rounding_is_flagged() -> None:
    """A center that is far away for its dtype."""
    energy = DiagonalEnergy(torch.ones(3).double(), center=torch.tensor([1e4, 0.0, 0.0]).double())
    x = torch.tensor([1e4, 0.5, 0.0])
    model = ECO(Given(torch.tensor([1e6, 3.0, 4.0])), energy)
    found = model.solve(x)
    assert found.violation > 1e-4
    assert found.status == int(Status.SINGULAR)
    assert not model.rollout(x, 1).ok
    assert ECO(Given(torch.tensor([1e6, 3.0, 4.0]).double()), energy).solve(x.double()).ok


@pytest.mark.parametrize("layer", [RayProjection(), RayProjection(compute_dtype=torch.float32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_room_is_that_of_the_coarsest_dtype(layer, dtype: torch.dtype, generator: torch.Generator) -> None:
    energy = DiagonalEnergy(0.1 + torch.rand(64, generator=generator).double())
    model = ECO(Given(100.0 * randn(generator, 200, 64)), energy, layer, dtype=dtype)
    x = randn(generator, 200, 64)
    value = model(x)
    assert (energy.value(value) <= model.alpha * energy.value(x).clamp_min(1.0)).all()


def test_a_proposal_in_another_dtype_is_not_counted_as_changed(generator: torch.Generator) -> None:
    model = ECO(Given(0.1 * randn(generator, 5, 3)), DiagonalEnergy(torch.ones(3), level=9.0))
    model(torch.zeros(5, 3))
    assert model.activation_rate() == 0.0


def test_what_is_no_state_or_no_number_is_refused() -> None:
    def model(**options) -> ECO:
        return ECO(torch.nn.Linear(3, 3), DiagonalEnergy(torch.ones(3)), **options)

    for safety in (-1.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="safety"):
            model(safety=safety)
    with pytest.raises(ShapeError, match=r"shape of 3 components"):
        model(shape=(2, 2))
    for x in (torch.ones(4, 1), torch.ones(()), torch.ones(4, 3, dtype=torch.int64)):
        with pytest.raises(ShapeError, match=r"state of shape \(\*batch, 3\)"):
            model()(x)
    for options in ({"steps": -1}, {"steps": 2, "every": 0}):
        with pytest.raises(ValueError, match="every"):
            model().rollout(torch.ones(3), **options)
    start = torch.tensor([[1.0, 0.0, 0.0], [float("nan"), 0.0, 0.0]])
    assert model().rollout(start, 0).ok.tolist() == [True, False]
