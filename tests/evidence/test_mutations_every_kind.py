"""One forger for every kind of claim: digest and words put right; a judge of other code says what became false."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta

from constrained_nn.errors import FileFormatError
from constrained_nn.evidence import (
    certify_decisions,
    certify_model,
    certify_outputs,
    save_decisions,
    save_network,
)
from constrained_nn.evidence.claims import certify_barrier
from constrained_nn.evidence.tracing import evaluate
from constrained_nn.experiments.tables.lmi import problems as systems
from constrained_nn.layers import LMINet
from constrained_nn.sets import Box
from constrained_nn.verify import Outcome, check, decode, decode_one, digest, encode
from constrained_nn.verify.arithmetic import parse
from constrained_nn.verify.checker import claim_module  # for the forger alone
from constrained_nn.verify.claims.model_decrease import fingerprint
from control_envs.tasks import DoubleIntegratorTask
from tests.evidence import test_mutations_lyapunov as lyapunov
from tests.evidence.loops import clipped_mass
from tests.evidence.mutations import alter
from tests.evidence.subjects import TASK, Filtered, make, subject
from tests.evidence.test_energy_certificate import certificate as energy
from tests.evidence.test_lyapunov import certified
from tests.evidence.test_model_decrease import coils, saved
from tests.evidence.test_mutations import rows_are_true, sample_is_true
from tests.evidence.test_mutations_barrier import START, Oracle
from tests.evidence.test_outputs import LOWER, UPPER, network

Judge = Callable[[dict[str, Any], dict[str, Any]], str | None]


# --- the judges: why a claim is false, or None ---


def of_rows(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    return None if rows_are_true(certificate, claim) else "a row or the cover fails in exact arithmetic"


def of_runs(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    return None if sample_is_true(certificate, claim) else "the counts or bounds are not those of the runs"


def of_matrices(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    """Eigenvalues of `constant + left V right + (...)ᵀ + Σ zⱼ slopesⱼ`, in floating point."""
    count, (p, k, s), data = claim["elements"], claim["variables"], claim["data"]
    S = np.array(decode(data["S"], "S")).reshape(count, p, p)
    if (S.swapaxes(1, 2) != S).any():
        return "S is not symmetric"
    V = np.concatenate([S, np.array(decode(data["Y"], "Y")).reshape(count, k, p)], 1)
    z = np.array(decode(data["z"], "z")).reshape(count, s)
    for n, block in zip(claim["orders"], data["blocks"], strict=True):
        constant, left, right, slopes = (
            np.array(decode(block[name], name)).reshape(-1 if 0 not in shape else 1, *shape)
            for name, shape in (
                ("constant", (n, n)), ("left", (n, p + k)), ("right", (p, n)), ("slopes", (s, n, n)),
            )
        )  # fmt: skip
        half = left @ V @ right
        F = (
            constant
            + half
            + half.swapaxes(1, 2)
            + np.einsum("ej,ejab->eab", z, slopes + np.zeros((*z.shape, n, n)))
        )
        if (np.linalg.eigvalsh(0.5 * (F + F.swapaxes(1, 2))) < -1e-9 * (1.0 + np.abs(F).max())).any():
            return "a block is not positive semidefinite"
    return None


def whole(cover: str) -> str | None:
    """A cover is one tree, and no box of it is open."""
    missing = 1
    for letter in cover:
        if missing == 0:
            return "the cover goes on after its end"
        missing += 1 if letter.isdigit() else -1
    return "boxes are open" if missing or "?" in cover else None


def of_decrease(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    return whole(claim["data"]["cover"]) or lyapunov.refutes(claim)


def of_barrier(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    starts = whole(claim["data"]["start"]) if claim["start"] is not None else None
    return whole(claim["data"]["cover"]) or starts or Oracle(claim).refutes()


def of_outputs(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    data = claim["data"]
    lower, upper, bound = (np.array(decode(data[k], k)) for k in ("lower", "upper", "bound"))
    x = np.random.default_rng(0).uniform(lower, upper, (20_000, len(lower)))
    excess = (
        evaluate(parse(data["network"], "n"), x) @ np.array(decode(data["A"], "A")).reshape(len(bound), -1).T
        - bound
    )
    if not excess.max() <= decode_one(claim["worst"], "worst") or decode_one(claim["worst"], "worst") > 0:
        return "an output is outside"
    return whole(data["cover"])


def of_energy(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    alpha, level, safety = (decode_one(claim[k], k) for k in ("alpha", "level", "safety"))
    if not (0 < alpha <= 1 and level > 0 and 0 < safety < 1):
        return "nothing is bounded"
    if min(decode(claim["data"]["weights"], "weights")) <= 0:
        return "the energy is not positive definite"
    return "no room for the rounding of one operation" if safety < 2.0**-53 else None


def of_energy_runs(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    ratio, growth = (np.array(decode(claim["data"][k], k, infinite=True)) for k in ("ratio", "growth"))
    if len(ratio) != claim["runs"] or len(growth) != claim["runs"] or not max(ratio.max(), growth.max()) <= 1:
        return "a run exceeds its bound"
    if claim["exceeded"] or claim["unfinished"] or decode_one(claim["worst"], "worst") < ratio.max():
        return "the counts are not those of the runs"
    least = beta.ppf(decode_one(claim["confidence"], "c"), 1, claim["runs"])
    return "the bound is too small" if decode_one(claim["bound"], "b") < least * (1 - 1e-11) else None


# --- the genuine certificates ---


def behind_rows(folder: Path) -> dict[str, Any]:
    return make(subject(Filtered()), starts=TASK.published_starts()["test"][:2], runs=40)


def decisions(folder: Path) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    set = systems.controller(*systems.joint_systems("train", 4, 3))
    y = LMINet().solve(torch.randn(4, 5, generator=generator, dtype=torch.float64), set).value
    return certify_decisions(save_decisions(folder, "four", set, y), command="test")


def outputs(folder: Path) -> dict[str, Any]:
    set = Box(torch.full((2,), -1.5).double(), torch.full((2,), 1.5).double())
    return certify_outputs(
        save_network(folder, "n", network(), set, lower=LOWER, upper=UPPER), command="test"
    )


def evolution(folder: Path) -> dict[str, Any]:
    return energy(folder, "diagonal", torch.Generator().manual_seed(0))


def of_model(claim: dict[str, Any], certificate: dict[str, Any]) -> str | None:
    """`V` and `f̂` at samples of the box and at the recorded states; the gradient by central differences."""
    data = claim["data"]
    lower, upper, center, hole = (np.array(decode(data[k], k)) for k in ("lower", "upper", "center", "hole"))
    rate, floor, rtol, excess, distance = (
        decode_one(claim[k], k) for k in ("rate", "floor", "rtol", "excess", "distance")
    )
    value, raw, n = parse(data["certificate"], "V"), parse(data["raw"], "f"), len(lower)

    def V(x: np.ndarray) -> np.ndarray:
        return evaluate(value, x)[..., 0]

    def in_hole(x: np.ndarray) -> np.ndarray:
        return (np.abs(x - center) <= hole).all(-1)

    x = np.random.default_rng(0).uniform(lower, upper, (20_000, n))
    far = x[~in_hole(x)]
    if (V(far) < floor * ((far - center) ** 2).sum(-1) - 1e-9).any() or not np.isfinite(
        evaluate(raw, far)
    ).all():
        return "V is below its floor, or the model is not defined"
    if V(far).min() < min(V(center[None])[0], V(x[in_hole(x)]).min(initial=np.inf)):
        return "V is not least in the hole"
    x, v = (np.array(decode(data[k], k)).reshape(claim["states"], n) for k in ("x", "velocity"))
    if in_hole(x).any() or ((x < lower) | (x > upper)).any():
        return "a state is not in the domain"
    h = 1e-6 * np.eye(n)
    gradient = np.stack([(V(x + step) - V(x - step)) / 2e-6 for step in h], -1)
    scale = np.abs(gradient * v).sum(-1) + np.abs(rate * V(x))
    row = ((gradient * v).sum(-1) + rate * V(x)) / scale
    f = evaluate(raw, x)
    s = np.maximum((gradient * f).sum(-1) + rate * V(x), 0.0) / (gradient**2).sum(-1)
    apart = np.linalg.norm(v - (f - gradient * s[:, None]), axis=-1) / np.linalg.norm(f, axis=-1).max()
    if row.max() > min(rtol, excess) + 1e-6 or apart.max() > min(rtol, distance) + 1e-6:
        return "a velocity breaks its row, or is not the model's"
    return whole(data["cover"])


# kind -> (certificate, judge)
KINDS: dict[str, tuple[Callable[[Path], dict[str, Any]], Judge]] = {
    "rows": (behind_rows, of_rows),
    "closed-loop": (behind_rows, of_runs),
    "lmi": (decisions, of_matrices),
    "lyapunov-decrease": (lambda folder: certified(*clipped_mass()), of_decrease),
    "barrier-invariance": (
        lambda folder: certify_barrier(DoubleIntegratorTask(), command="test", start=START),
        of_barrier,
    ),
    "output-set": (outputs, of_outputs),
    "model-decrease": (lambda folder: certify_model(saved(folder, coils()), command="test"), of_model),
    "energy-bound": (evolution, of_energy),
    "energy-runs": (evolution, of_energy_runs),
}


def forge(genuine: dict[str, Any], kind: str, rng: random.Random) -> dict[str, Any]:
    """One alteration of one claim; its words are those of the altered numbers, the digest fits."""
    other = json.loads(json.dumps(genuine))
    (place,) = [i for i, claim in enumerate(other["claims"]) if claim["kind"] == kind]
    claim = alter(other["claims"][place], rng)
    for name in [k for k in ("margin", "level", "bound", "worst") if isinstance(claim.get(k), str)]:
        if rng.random() < 0.1:  # a margin enlarged, a bound's sign turned
            claim[name] = encode(decode_one(claim[name], name) * rng.choice([-1.0, 0.5, 2.0, 100.0]))
    other["claims"] = [claim]
    with contextlib.suppress(FileFormatError, ValueError, OverflowError, AttributeError, KeyError, TypeError):
        module = claim_module(claim, "claim")
        found = module.evaluate(claim, other)
        if "boxes" in claim:
            claim["boxes"] = found.boxes
        if "states_sha256" in claim:
            claim["states_sha256"] = fingerprint(claim["data"])
        claim["statement"] = module.statement(claim, other)
    other["digest"] = digest(other)
    return other


def run(count: int, folder: Path) -> dict[str, Counter[str]]:
    """`count` alterations of every kind: how many are false, rejected, and accepted."""
    counts: dict[str, Counter[str]] = {}
    for kind, (genuine, judge) in KINDS.items():
        (folder / kind).mkdir()
        original, rng = genuine(folder / kind), random.Random(kind)
        (claim,) = [c for c in original["claims"] if c["kind"] == kind]
        assert judge(claim, original) is None, kind
        counts[kind] = Counter(false=0, rejected=0, accepted=0)
        for number in range(count):
            other = forge(original, kind, rng)
            file = folder / "altered.json"
            file.write_text(json.dumps(other))
            try:
                holds = check(file)[0].outcome is Outcome.HOLDS
            except FileFormatError:
                holds = False
            try:
                with np.errstate(all="ignore"):
                    why = judge(other["claims"][0], other)
            except (FileFormatError, ValueError, ArithmeticError, LookupError, TypeError):
                why = "damaged"
            assert not (holds and why), f"{kind}, alteration {number}: {why}, and the checker accepts it"
            counts[kind].update({"false": why is not None, "rejected": not holds, "accepted": holds})
    return counts


@pytest.mark.untyped
def test_sample_of_alterations_of_every_kind(tmp_path: Path) -> None:
    counts = run(4, tmp_path)
    assert sum(c["false"] for c in counts.values()) >= 8
    assert all(c.total() >= 4 for c in counts.values())


@pytest.mark.slow
def test_three_hundred_alterations_of_each_kind(tmp_path: Path) -> None:
    counts = run(300, tmp_path)
    for kind, found in counts.items():
        print(f"{kind}: 300 altered, {dict(found)}")
    assert sum(c["false"] for c in counts.values()) >= 800
    assert all(c["false"] >= 3 for c in counts.values())
