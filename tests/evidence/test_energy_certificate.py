"""Proofs of energy bounds: certified, checked, not to be forged, and true in exact arithmetic."""

from __future__ import annotations

import copy
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from constrained_nn.certificates import DenseEnergy, DiagonalEnergy, FourierEnergy, LowRankEnergy
from constrained_nn.cli import build
from constrained_nn.errors import FileFormatError, SetTypeError, ShapeError
from constrained_nn.evidence import certify_evolution, save_evolution
from constrained_nn.files import read_tensors, write_tensors
from constrained_nn.layers import EuclideanProjection, RayProjection
from constrained_nn.models import ECO
from constrained_nn.verify import Outcome, check_claims, decode, digest, encode
from constrained_nn.verify.claims import energy as bounds


def randn(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


ENERGIES = {
    "diagonal": lambda x: DiagonalEnergy.from_data(x, headroom=1.2),
    "low-rank": lambda x: LowRankEnergy.from_data(x, rank=2),
    "fourier": lambda x: FourierEnergy.from_data(x, (2, 6)),
    "dense": lambda x: DenseEnergy.from_data(x),
}


def model(form: str, generator: torch.Generator, **options) -> ECO:
    """A model of states in 12 dimensions, far from the origin, with a wild backbone."""
    x = 0.3 + randn(generator, 200, 12) * torch.linspace(0.5, 2.0, 12).double()
    backbone = torch.nn.Linear(12, 12).double()
    with torch.no_grad():
        backbone.weight.copy_(5.0 * randn(generator, 12, 12))
    return ECO(backbone, ENERGIES[form](x), alpha=0.98, **options)


def certificate(folder: Path, form: str, generator: torch.Generator, dtype=torch.float64, **options) -> dict:
    starts = 20.0 * randn(generator, 10, 12)
    path = save_evolution(
        folder,
        form,
        model(form, generator, **options).to(dtype),
        dtype=dtype,
        starts=starts,
        steps=50,
        data_norm=4.0,
    )
    return certify_evolution(path, command="test")


def forged(original: dict, change, index: int = 0) -> dict:
    """A certificate with a change to a claim, and a digest that fits."""
    other = copy.deepcopy(original)
    change(other["claims"][index])
    other["digest"] = digest(other)
    return other


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("form", ENERGIES)
def test_every_form_is_proved_and_its_runs_are_consistent(tmp_path, generator, form, dtype) -> None:
    room = 3e-6 if (form, dtype) == ("dense", torch.float32) else None
    proof, runs = check_claims(certificate(tmp_path, form, generator, dtype, safety=room))
    assert proof.outcome is Outcome.HOLDS, proof.text
    assert runs.outcome is Outcome.HOLDS, runs.text
    assert form in proof.statement
    assert "10 runs of 50 steps" in runs.statement


@pytest.mark.once  # in other processes
def test_command_line_certifies_and_checks(tmp_path: Path, generator: torch.Generator) -> None:
    certificate(tmp_path, "diagonal", generator)
    for words in (
        ["certify", str(tmp_path)],
        ["check", str(tmp_path / "certificate.json"), "--accept", "sampled"],
    ):
        done = CliRunner().invoke(build(), words)
        assert done.exit_code == 0, done.output
        assert "rounding takes less than" in done.output


def test_too_little_room_is_no_proof(tmp_path: Path, generator: torch.Generator) -> None:
    for dtype, safety in ((torch.float64, 1e-16), (torch.float32, 1e-8)):
        finding = check_claims(certificate(tmp_path, "diagonal", generator, dtype, safety=safety))[0]
        assert finding.outcome is Outcome.INCONCLUSIVE
        assert "rounding may take" in finding.text
        assert "build the model with safety=" in finding.text


def test_other_layers_and_damaged_files_are_refused(tmp_path: Path, generator: torch.Generator) -> None:
    other = model("diagonal", generator)
    other.layer = EuclideanProjection()
    with pytest.raises(SetTypeError, match="RayProjection"):
        save_evolution(tmp_path, "other", other, dtype=torch.float64)
    other.layer = RayProjection(compute_dtype=torch.float32)  # whose rounding is that of float32
    with pytest.raises(SetTypeError, match="float32"):
        save_evolution(tmp_path, "other", other, dtype=torch.float64)
    for options in ({"steps": 0, "starts": torch.ones(3, 12)}, {"starts": torch.ones(12)}):
        with pytest.raises(ShapeError, match="starts of shape"):
            save_evolution(tmp_path, "other", model("diagonal", generator), dtype=torch.float64, **options)
    starts = torch.ones(3, 12)
    for options in (
        {},
        {"data_norm": 0.0},
        {"data_norm": float("nan")},
    ):  # the claim compares the starts to the data
        with pytest.raises(ValueError, match="expected data_norm > 0"):
            save_evolution(
                tmp_path, "other", model("diagonal", generator), dtype=torch.float64, starts=starts, **options
            )
    with pytest.raises(ValueError, match="finite starts"):
        save_evolution(
            tmp_path,
            "other",
            model("diagonal", generator),
            dtype=torch.float64,
            starts=torch.nan * starts,
            data_norm=1.0,
        )
    bad = model("diagonal", generator)
    with torch.no_grad():
        bad.energy.center[3] = torch.nan
    with pytest.raises(FileFormatError, match="NaN"):
        certify_evolution(save_evolution(tmp_path, "bad", bad, dtype=torch.float64), command="test")


def test_numbers_of_a_file_that_are_none_are_refused(tmp_path: Path, generator: torch.Generator) -> None:
    certificate(tmp_path, "diagonal", generator)
    tensors, about = read_tensors(tmp_path / "evolution.safetensors")
    for name, values in {
        "alpha": (True, 0.5, "nan", "0x1p5000"),
        "level": ("inf", "0x1p99999"),
        "confidence": ("nan", "inf", "0x1p2", "0x1p9999"),
        "shape": ([12.7], ["12"], [True]),
        "rank": (0.0, False),
        "seed": (-3, 10**40, float("inf")),
        "steps": (0, True, float("nan")),
        "name": (None, "holds: everything"),
    }.items():
        for value in values:
            write_tensors(tmp_path / "other.safetensors", tensors, {**about, name: value})
            with pytest.raises(FileFormatError):
                certify_evolution(tmp_path / "other.safetensors", command="test")


def test_more_factors_than_components_are_proved_and_training_goes_on(tmp_path: Path, generator) -> None:
    energy = LowRankEnergy(torch.ones(4).double(), randn(generator, 4, 6))
    wide = ECO(torch.nn.Linear(4, 4).double(), energy)
    starts = randn(generator, 3, 4)
    path = save_evolution(
        str(tmp_path), "wide", wide, dtype=torch.float64, starts=starts, steps=5, data_norm=2.0
    )
    assert wide.training
    assert all(f.outcome is Outcome.HOLDS for f in check_claims(certify_evolution(path, command="test")))


def number(claim: dict, name: str, value) -> None:
    """Replace a number and everything that follows from it but the proof."""
    claim[name] = encode(value)
    refit(claim)


def refit(claim: dict) -> None:
    claim["fingerprint"] = bounds.fingerprint(claim)
    found = bounds.evaluate(claim, {"task": {"name": "diagonal"}})
    claim["needed"] = encode(found.needed)
    claim["statement"] = bounds.statement(claim, {"task": {"name": "diagonal"}})


def entry(claim: dict, name: str, place: int, value: float) -> None:
    values = decode(claim["data"][name], name)
    values[place] = value
    claim["data"][name] = encode(values)
    refit(claim)


FALSE = {  # whoever makes these also makes every stated number and the words fit
    "weight negative": lambda c: entry(c, "weights", 5, -1e-3),
    "weight zero": lambda c: entry(c, "weights", 0, 0.0),
    "alpha above 1": lambda c: number(c, "alpha", 1.0000000000000002),
    "alpha zero": lambda c: number(c, "alpha", 0.0),
    "level zero": lambda c: number(c, "level", 0.0),
    "level negative": lambda c: number(c, "level", -1.0),
    "no room": lambda c: number(c, "safety", 0.0),
    "room below rounding": lambda c: number(c, "safety", 1e-15),
    "room negative": lambda c: number(c, "safety", -1e-3),
    "center far away": lambda c: entry(c, "center", 2, 1e8),
    "level tiny": lambda c: number(c, "level", 1e-20),
    "float32 states with the room of float64": lambda c: (c.update(state_dtype="float32"), refit(c)),
}


@pytest.mark.once  # samples of what the same functions refuse
@pytest.mark.parametrize("name", FALSE)
def test_false_claims_are_rejected(tmp_path: Path, generator: torch.Generator, name: str) -> None:
    original = certificate(tmp_path, "diagonal", generator)
    finding = check_claims(forged(original, FALSE[name]))[0]
    assert finding.outcome is not Outcome.HOLDS


def test_floor_of_a_dense_matrix_is_proved(tmp_path: Path, generator: torch.Generator) -> None:
    """A larger floor would make rounding look smaller than it is."""
    original = certificate(tmp_path, "dense", generator)
    floor = decode(original["claims"][0]["data"]["floor"], "floor")[0]
    finding = check_claims(forged(original, lambda c: entry(c, "floor", 0, 1.02 * floor)))[0]
    assert finding.outcome is Outcome.COUNTEREXAMPLE
    assert "not positive semidefinite" in finding.text


UNCOVERED = [  # a change that the claim does not follow
    lambda c: c.update(needed=encode(1e-20)),
    lambda c: c.update(fingerprint="0" * 64),
    lambda c: c.update(statement="All is well."),
    lambda c: c.update(assumptions=[]),
    lambda c: c.update(verdict="proved"),
    lambda c: c.update(form="dense"),
    lambda c: c.update(form="fourier"),
    lambda c: c.update(form="round"),
    lambda c: c.update(shape=[11]),
    lambda c: c.update(shape=[3, 4]),
    lambda c: c.update(rank=1),
    lambda c: c.update(state_dtype="float16"),
    lambda c: c["data"].pop("center"),
    lambda c: c["data"].update(factor=encode([1.0])),
    lambda c: c["data"].update(weights=encode([float("inf")] * 12)),
]


@pytest.mark.once  # samples of what the same functions refuse
@pytest.mark.parametrize("change", UNCOVERED)
def test_uncovered_alterations_are_rejected(tmp_path: Path, generator: torch.Generator, change) -> None:
    assert (
        check_claims(forged(certificate(tmp_path, "diagonal", generator), change))[0].outcome
        is not Outcome.HOLDS
    )


@pytest.mark.once  # samples of the same functions
def test_any_digit_of_the_numbers_is_covered(tmp_path: Path, generator: torch.Generator) -> None:
    """One hexadecimal digit of Q, center, level, alpha or safety, the digest computed again."""
    rng = random.Random(0)
    for form in ENERGIES:
        original = certificate(tmp_path, form, generator)
        for _ in range(25):
            claim = original["claims"][0]
            holder, key = rng.choice([
                *((claim, k) for k in ("alpha", "level", "safety")), *((claim["data"], k) for k in bounds.DATA),
            ])  # fmt: skip
            places = [i for i, c in enumerate(holder[key]) if c.isdigit()]
            if not places:
                continue
            place, old = rng.choice(places), holder[key]
            new = old[:place] + str((int(old[place]) + rng.randint(1, 9)) % 10) + old[place + 1 :]
            holder[key] = new
            original["digest"] = digest(original)
            finding = check_claims(original)[0]
            holder[key] = old
            assert finding.outcome is not Outcome.HOLDS, (form, key, place)


RUNS = [
    lambda c: c.update(exceeded=1),
    lambda c: c.update(unfinished=1),
    lambda c: c.update(bound=encode(0.01)),
    lambda c: c.update(worst=encode(0.5)),
    lambda c: c.update(confidence=encode(0.5)),
    lambda c: c.update(steps=10**6),
    lambda c: c.update(runs=9),
    lambda c: c.update(starts_sha256="0"),
    lambda c: c["data"].update(ratio=encode([1.5] * 10)),
    lambda c: c["data"].update(growth=encode([float("inf")] * 10)),
    lambda c: c["data"].update(active=encode([1.5] * 10)),
]


@pytest.mark.once  # samples of what the same functions refuse
@pytest.mark.parametrize("change", RUNS)
def test_forged_runs_are_rejected(tmp_path: Path, generator: torch.Generator, change) -> None:
    assert (
        check_claims(forged(certificate(tmp_path, "diagonal", generator), change, 1))[1].outcome
        is not Outcome.HOLDS
    )


# --- the mathematics, against exact arithmetic ------------------------------------------------------------------


@torch.no_grad()
def exact_energy(model: ECO, x: torch.Tensor) -> Fraction:
    """`V(x)` in rational arithmetic, from the numbers of the model."""
    set = model.energy.sublevel(model.energy.level.double())
    d = [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(x, set.center, strict=True)]
    if isinstance(model.energy, DenseEnergy):
        P = [[Fraction(float(v)) for v in row] for row in set.P]
        return sum(d[i] * P[i][j] * d[j] for i in range(len(d)) for j in range(len(d)))
    total = sum(Fraction(float(q)) * v * v for q, v in zip(set.weights, d, strict=True))
    for column in set.factor.mT:
        total += sum(Fraction(float(f)) * v for f, v in zip(column, d, strict=True)) ** 2
    return total


@pytest.mark.once  # samples of the same functions
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("form", ["diagonal", "low-rank", "dense"])
def test_bound_holds_in_exact_arithmetic_where_it_is_proved(form, dtype, generator) -> None:
    eco = model(form, generator).to(dtype).eval()
    alpha, level = Fraction(eco.alpha), Fraction(float(eco.energy.level.double()))
    eco.backbone = torch.nn.Identity()
    proposals = (10.0 ** torch.linspace(-1, 12, 60)).unsqueeze(-1) * randn(generator, 60, 12)
    states = randn(generator, 60, 12) * (10.0 ** torch.linspace(3, -3, 60)).unsqueeze(-1)
    for x, y in zip(states.to(dtype), proposals.to(dtype), strict=True):
        eco.backbone.forward = lambda _, y=y: y
        found = eco.solve(x)
        assert bool(found.ok)
        assert exact_energy(eco, found.value) <= alpha * max(exact_energy(eco, x), level)


def test_needed_room_is_no_gross_overestimate(generator: torch.Generator) -> None:
    """Rounding does take a share of the size that is stated (float32, a center far away)."""
    weights, center = torch.ones(4), torch.full((4,), 3.0)
    eco = ECO(
        torch.nn.Identity(), DiagonalEnergy(weights, center=center, level=1.0), alpha=1.0, safety=0.0
    ).eval()
    y = center + 10.0 * torch.randn(3000, 4, generator=generator)
    eco.backbone.forward = lambda _: y
    excess = float(eco.solve(center.expand_as(y)).violation.max())
    claim = {
        "form": "diagonal", "shape": [4], "rank": 0, "state_dtype": "float32",
        "alpha": encode(1.0), "level": encode(1.0), "safety": encode(0.0),
        "data": {"weights": encode([1.0] * 4), "center": encode([3.0] * 4), "factor": "", "floor": encode(0.0)},
    }  # fmt: skip
    needed = bounds.evaluate(claim, {}).needed
    assert needed / 4 < excess <= needed


def test_published_room_is_enough_up_to_4096_components() -> None:
    for state, room in (("float64", 1e-11), ("float32", 1e-6)):
        n = 4096
        rng = np.random.default_rng(0)
        claim = {
            "form": "diagonal", "shape": [n], "rank": 0, "state_dtype": state,
            "alpha": encode(0.99), "level": encode(1.2), "safety": encode(room),
            "data": {
                "weights": encode((rng.uniform(0.1, 3.0, n) / n).tolist()),
                "center": encode(rng.normal(size=n).tolist()),
                "factor": "",
                "floor": encode(0.0),
            },
        }  # fmt: skip
        found = bounds.evaluate(claim, {})
        assert found.verdict == "holds"
        assert found.needed < room
