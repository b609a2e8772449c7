"""Fixtures and options of the whole suite.

`pytest` is the plain pass. `pytest --typed` runs tests with every annotation of constrained_nn checked at run time. Two
kinds of tests are left out there:

- `untyped`: those that cannot run so. The checker's wrappers cannot be traced by `torch.compile`, `torch.export` and
  `torch.func`, and they catch wrong types before our own errors do.
- `once`: those that would be the same twice: nothing that they run is type-checked (`control_envs`, documents, other
  processes), or only what the tests beside them run already (many samples of a function, one solver on many sets).

A test with code of its own, however slow, has neither mark. The typed pass says how many of the annotated functions it
has called; `--uncalled FILE` lists the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--typed", action="store_true", help="check jaxtyping annotations at run time")
    parser.addoption(
        "--uncalled", metavar="FILE", help="with --typed: list the annotated functions not called"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "untyped: traced by torch or wrong on purpose; left out of --typed")
    config.addinivalue_line("markers", "once: nothing that only it type-checks; left out of --typed")
    torch.set_num_threads(1)
    if config.getoption("--typed"):
        from importlib import import_module

        from jaxtyping import install_import_hook

        if "constrained_nn" in sys.modules:  # by the conftest.py of a subfolder that was named
            raise pytest.UsageError(
                "--typed checks only what is imported after it: pytest --typed tests -k NAME"
            )

        import tests.runtime_types  # noqa: F401  (the hook finds the checker by its name)
        from constrained_nn.cli import COMMANDS

        for command in COMMANDS:  # typer gives None for what is not named: its own business, not a shape
            import_module(f"constrained_nn.cli.{command}")
        install_import_hook("constrained_nn", "tests.runtime_types.checked")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    typed = config.getoption("--typed")
    by_hand = "slow" in config.getoption("-m")
    kept, left_out = [], []
    for item in items:
        plain_only = item.get_closest_marker("untyped") or item.get_closest_marker("once")
        excluded = (typed and plain_only) or (not by_hand and item.get_closest_marker("slow"))
        (left_out if excluded else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands over what it has called."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None and session.config.getoption("--typed"):
        from tests import runtime_types

        output["typed"] = [sorted(runtime_types.ANNOTATED), sorted(runtime_types.CALLED)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """The main process takes it."""
    if "typed" not in getattr(node, "workeroutput", {}):
        return
    from tests import runtime_types

    annotated, called = node.workeroutput["typed"]
    runtime_types.ANNOTATED.update(annotated)
    runtime_types.CALLED.update(called)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if not config.getoption("--typed"):
        return
    from tests import runtime_types

    annotated = runtime_types.ANNOTATED
    uncalled = sorted(annotated - runtime_types.CALLED)
    terminalreporter.write_line(
        f"{len(annotated) - len(uncalled)} of {len(annotated)} annotated functions were called"
    )
    if path := config.getoption("--uncalled"):
        Path(path).write_text("\n".join(uncalled) + "\n")


@pytest.fixture
def generator() -> torch.Generator:
    """A torch generator with the same seed for every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with the same seed for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    """float64 as the default dtype for one test, for modules that are built without a dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def fresh_compiler(request: pytest.FixtureRequest):
    """Compiled functions of one test do not count against the recompile limit of the next."""
    yield
    # a test that traced nothing need not load the compiler, which takes seconds
    if request.node.get_closest_marker("untyped") and "torch._dynamo" in sys.modules:
        torch.compiler.reset()
