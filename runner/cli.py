"""The command line: run a command, print its error if it fails, and exit with the error's exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from runner import console
from runner.commands.groups import GroupedCommands
from runner.errors import InterruptedRunError, RunnerError
from runner.host.disk import translate_disk_full
from runner.host.version import __version__

if TYPE_CHECKING:
    from types import FrameType

PROGRAM: Final = "mobiledet-runner"

app = typer.Typer(
    cls=GroupedCommands,
    no_args_is_help=True,
    # Shell completion works for programs, not for `python -m runner`.
    add_completion=Path(sys.argv[0]).name == PROGRAM,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> NoReturn:
    """Run the command line and exit the process with the appropriate exit code."""
    console.print_messages()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, _interrupt)
    try:
        with translate_disk_full():  # for writes that nothing else covers, such as scratch files
            app()
    except RunnerError as problem:
        if "--debug" in sys.argv[1:]:
            traceback.print_exc()
        console.error(problem)
        sys.exit(problem.exit_code)
    sys.exit(0)


def _print_version(is_asked: bool) -> None:
    """Print the version, and the toolchain digests for both sources of tensorflow/models."""
    if not is_asked:
        return
    from runner.toolchain.digest import toolchain_digest
    from runner.toolchain.pins import load_models_pin

    pin = load_models_pin()
    console.result(f"{PROGRAM} {__version__}")
    for source, commit in (("github", pin.github.commit), ("pypi", pin.pypi.commit)):
        digest = toolchain_digest(commit)
        console.result(f"toolchain {digest} (tensorflow/models {commit[:7]} from {source})")
    raise typer.Exit


@app.callback()
def describe(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Add the traceback to an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and the digest of the toolchain.",
        ),
    ] = False,
) -> None:
    """Rebuild MLPerf Mobile's MobileDet .tflite files from their TF1 checkpoints, in a pinned toolchain.

    Start with `demo`: it makes a stand-in for the published checkpoint and converts it.
    """
    del debug, version  # `main` handles --debug, the callback handles --version


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - what `signal` calls
    """Raise an error, so that every ``with`` block stops what it started. A second signal exits at once."""
    signal.signal(number, signal.SIG_DFL)
    raise InterruptedRunError(f"stopped by {signal.Signals(number).name}; nothing is left running")
