"""The command line: put the groups together, catch our errors once, end with their exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from runner import __version__, console
from runner.commands import clean, convert, doctor, evidence, fetch, one_step, own_model, tflite, toolchain
from runner.commands.groups import GroupedCommands
from runner.errors import InterruptedRunError, RunnerError

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(
    cls=GroupedCommands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in (convert, own_model, one_step, fetch, tflite, evidence, toolchain, doctor, clean):
    app.add_typer(group.app)


def main() -> NoReturn:
    """Run the command line and end the process with the exit code of what happened."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # that is how `nohup` has it
            signal.signal(number, _interrupt)
    try:
        app()
    except RunnerError as problem:
        if "--debug" in sys.argv[1:]:
            traceback.print_exc()
        console.error(problem)
        sys.exit(problem.exit_code)
    sys.exit(0)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        console.result(__version__)
        raise typer.Exit


@app.callback()
def describe(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Add the traceback to an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rebuild MLPerf Mobile's MobileDet .tflite files from their TF1 checkpoints, in a pinned toolchain.

    Start with `demo`: it makes a checkpoint that stands in for the published one and converts it.
    """
    del debug, version  # both do their work elsewhere: `main` and the callback


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - what `signal` calls
    """Unwind, so that everything that was started is ended; a second signal does not wait for that."""
    signal.signal(number, signal.SIG_DFL)
    raise InterruptedRunError(f"stopped by {signal.Signals(number).name}; nothing is left running")
