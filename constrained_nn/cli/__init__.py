"""The command line: one module a command, none of which loads torch before it runs.

The module `constrained_nn.cli.NAME` has the function `command`, which is the command NAME; so have
the modules of `constrained_nn.bench` for `bench NAME`. A new command is a new file and its name
below.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import typer

from constrained_nn.cli.shell import SUMMARY, UNDECIDED, Command, Shell, one_line

COMMANDS = (
    "demo", "train", "simulate", "compare", "describe", "certify", "check", "report", "reproduce", "study", "list",
)  # fmt: skip
BENCHES = ("rollout", "envs", "projection", "riccati", "nonlinear", "lmi", "energy")


def build() -> typer.Typer:
    """The typer application with every command that is installed."""
    app = typer.Typer(
        name="constrained-nn",
        cls=Shell,
        help="Train controllers that cannot break their constraints, simulate them, and check the "
        f"evidence. {SUMMARY}",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in COMMANDS:
        module = f"constrained_nn.cli.{name}"
        if find_spec(module) is not None:
            app.command(name, cls=Command)(import_module(module).command)
    bench = typer.Typer(help="Measure speed, beside whatever rivals are installed.", no_args_is_help=True)
    for name in BENCHES:
        module = f"constrained_nn.bench.{name}"
        if find_spec(module) is not None:
            bench.command(name, cls=Command)(import_module(module).command)
    app.add_typer(bench, name="bench")
    app.callback()(_root)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from constrained_nn import __version__

        typer.echo(__version__)
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and end.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


def main() -> None:
    """Entry point; the exit codes are those of `constrained_nn.cli.shell.codes`."""
    try:
        app = build()
    except Exception as error:  # an installation that is not whole
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(UNDECIDED)
    app()
