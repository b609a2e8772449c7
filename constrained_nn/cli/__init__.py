"""The command line: one module a command, none of which loads torch before it runs."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import typer

COMMANDS = (
    "demo", "train", "simulate", "compare", "certify", "check", "report", "reproduce", "study", "list",
)  # fmt: skip
BENCHES = ("rollout", "envs", "projection", "riccati", "nonlinear", "lmi", "energy")


def build() -> typer.Typer:
    """The typer application with every command that is installed."""
    app = typer.Typer(
        name="constrained-nn",
        help="Train controllers that cannot break their constraints, simulate them, and check the evidence.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in COMMANDS:
        module = f"constrained_nn.cli.{name}"
        if find_spec(module) is not None:
            app.command(name)(import_module(module).command)
    bench = typer.Typer(help="Measure speed, beside whatever rivals are installed.", no_args_is_help=True)
    for name in BENCHES:
        module = f"constrained_nn.bench.{name}"
        if find_spec(module) is not None:
            bench.command(name)(import_module(module).command)
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
    """Entry point: one clear line and exit code 2 for bad input, 130 for Ctrl-C, never a traceback."""
    try:
        build()()
    except KeyboardInterrupt:
        typer.echo("error: interrupted.", err=True)
        sys.exit(130)
    except (ValueError, TypeError, LookupError, OSError, ArithmeticError) as error:
        typer.echo(f"error: {_one_line(error)}", err=True)
        sys.exit(2)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. What was finished is kept; free space or choose another folder."
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
