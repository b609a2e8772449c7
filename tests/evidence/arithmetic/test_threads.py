"""Flint's precision and order belong to the process: other threads change no verdict; what is cut off is unknown."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flint import arb, arb_series, ctx

from constrained_nn.verify import check_claims
from constrained_nn.verify.arithmetic import Jet, interval, order, parse, precision, rk4_error, run, solution
from constrained_nn.verify.claims.barrier import read_system
from constrained_nn.verify.enclosures import Barrier, Slack, System, examine, is_inside, is_outside
from tests.evidence.conditions.minimal import barrier, finish, program


def falling() -> System:
    """`h = x1 + 2` with `h'' = x3 - 1000 s`, which is negative soon, although the margin says that it is not."""
    plant = parse(program(4, ["take", 0, [1, 2]], ["const", "-0x1.f4p+9"], ["join", 1, 2]), "plant")
    h = parse(program(3, ["take", 0, [0]], ["const", "0x1p+1"], ["add", 1, 2]), "h")
    margin = parse(program(3, ["const", "0x0p+0 0x0p+0"]), "m")
    return System(plant, (Barrier("wall", h, margin, (1.0,)),), (0.0,), (1.0,), 0.125, 0.0)


BOX = ([0.0, 0.0, 0.1], [0.1, 0.1, 0.2], [0.0])


@contextmanager
def beside(work: Callable[[], Any], count: int = 3) -> Iterator[None]:
    """While `count` threads repeat something."""
    before, stop = sys.getswitchinterval(), threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            work()

    threads = [threading.Thread(target=repeat) for _ in range(count)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)


def test_other_threads_at_work_change_nothing() -> None:
    system, alone = falling(), examine(falling(), *BOX)
    assert alone.problem == "the curvature of 'wall'"
    with beside(lambda: is_outside(system, [0.0] * 3, [1.0] * 3)):
        for _ in range(100):
            assert examine(system, *BOX) == alone


def test_other_owners_of_flint_make_nothing_true() -> None:
    """Who sets the order without the lock costs proofs, and gives none."""
    system, orders = falling(), iter(range(10**9))

    def cut() -> None:
        ctx.cap = 1 + next(orders) % 8

    before = ctx.cap
    try:
        with beside(cut, count=1):
            assert all(examine(system, *BOX).problem is not None for _ in range(100))
    finally:
        ctx.cap = before


def test_whole_files_are_checked_in_eight_threads() -> None:
    certificate = finish(*barrier())
    (alone,) = check_claims(certificate)
    found: list[Any] = []
    with beside(lambda: found.append(check_claims(certificate)), count=7):
        for _ in range(3):
            found.append(check_claims(certificate))
    assert all(findings == [alone] for findings in found)
    assert alone.text.startswith("holds")


@pytest.mark.parametrize("setting", [lambda: precision(77), lambda: order(5)])
def test_one_thread_computes_at_a_time(setting: Callable[[], Any]) -> None:
    entered = threading.Event()

    def enter() -> None:
        with order(3), precision(100):
            entered.set()

    thread = threading.Thread(target=enter)
    with setting(), setting():  # the same thread as often as it likes
        thread.start()
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()


def test_settings_are_left_as_they_were() -> None:
    before = ctx.prec, ctx.cap
    with precision(77), order(5):
        assert (ctx.prec, ctx.cap) == (77, 5)
    assert (ctx.prec, ctx.cap) == before
    with pytest.raises(ZeroDivisionError), precision(77), order(5):
        _ = 1 // (ctx.cap - 5)
    assert (ctx.prec, ctx.cap) == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_process_at_work_can_work() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with precision(100):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    if (child := os.fork()) == 0:
        with precision(53):
            os._exit(0)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


# --- what is cut off is unknown ---


def test_coefficients_beyond_the_order_are_unknown() -> None:
    with order(3):
        cut = Jet(arb_series([arb(1), arb(2), arb(3)]), arb_series([arb(1)]))
        constant = Jet.of([arb(2)])
    with order(8):
        for jet in (cut, cut + constant, cut * constant, -cut, cut - cut, cut.inverse()):
            assert jet.coefficient(2).is_finite()
            assert not jet.coefficient(3).is_finite()
            assert not jet.slope_coefficient(3).is_finite()


@pytest.mark.parametrize(
    "code",
    [
        *([[op, 0]] for op in ("neg", "square", "sqrt", "log", "exp", "sin", "cos", "atan", "tanh")),
        [["power", 0, 3]],
        [["affine", 0, "0x0p+0", "0x1p+0"]],  # zero times what is unknown
        [["sum", 0]],
        [["const", "0x1p+0"], ["div", 1, 0]],
    ],
)
def test_no_operation_makes_known_what_was_cut_off(code: list[Any]) -> None:
    f = parse(program(1, *code), "f")
    with order(8):
        known = [arb(1), arb(1) / 2, arb(1) / 4]
        (jet,) = run(f, [Jet.begin(known, known)])
        assert all(jet.coefficient(k).is_finite() and jet.slope_coefficient(k).is_finite() for k in range(3))
        assert not any(
            jet.coefficient(k).is_finite() or jet.slope_coefficient(k).is_finite() for k in range(3, 8)
        )
        (whole,) = run(f, [Jet.of(known, known)])
        assert all(whole.coefficient(k).is_finite() for k in range(8))


def test_order_zero_knows_nothing() -> None:
    with order(0):
        nothing = Jet(arb_series([]))
    with order(4):
        (jet,) = run(parse(program(1, ["sqrt", 0]), "f"), [nothing])
        for found in (jet, nothing, nothing * nothing, nothing.inverse()):
            assert not found.coefficient(0).is_finite()


def test_solutions_are_known_to_their_order() -> None:
    plant = parse(program(2, ["take", 0, [1]]), "plant")
    with order(9):
        (x,) = solution(plant, [arb(1)], [arb(2)], 3, 0)
        assert [x.coefficient(k) for k in range(4)] == [1, 2, 0, 0]
        assert not any(x.coefficient(k).is_finite() for k in range(4, 9))


def test_remainders_need_their_order() -> None:
    plant = parse(program(2, ["take", 0, [0]]), "plant")
    x = [interval(0.5, 1.0)]
    tube = [interval(0.5, 2.0)]
    assert rk4_error(plant, x, tube, [arb(0)], 0.125)[0].is_finite()
    with order(2):  # inside, the order is raised again
        assert rk4_error(plant, x, tube, [arb(0)], 0.125)[0].is_finite()


def test_safe_states_are_found_under_any_order() -> None:
    _, claim, certificate = barrier()
    system = read_system(claim, certificate)
    for count in (1, 10):
        with order(count):
            assert is_inside(system, [-0.5], [0.5])
            assert is_outside(system, [1.5], [2.0])
            assert isinstance(examine(system, [0.0], [0.5], [0.0]), Slack)
