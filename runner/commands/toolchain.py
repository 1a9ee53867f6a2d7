"""Commands about the toolchain itself: build it, or run a command in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from runner import console
from runner.commands.options import (
    DEFAULT_OUT,
    AsJson,
    ModelDir,
    OneToolchainOptions,
    OutDir,
    choose_engine,
    takes_options,
)

app = typer.Typer()

SHELL: Final = ("bash", "-c", 'exec bash --rcfile "$BASH_ENV"')
"""Starts a bash that reads the toolchain's definitions in $BASH_ENV; an interactive bash ignores BASH_ENV."""


@app.command()
@takes_options
def image(*, toolchain: OneToolchainOptions, as_json: AsJson = False) -> None:
    """Build the toolchain if it does not exist and print its id."""
    prepared = choose_engine(toolchain).prepare()
    if as_json:
        console.result_json(prepared)
    else:
        console.result(prepared.id)


@app.command("exec", context_settings={"allow_interspersed_args": False})
@takes_options
def execute(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments; put `--` before it.")],
    *,
    model_dir: ModelDir = None,
    out: OutDir = DEFAULT_OUT,
    toolchain: OneToolchainOptions,
) -> None:
    """Run any command in the toolchain.

    The model directory and the output directory have the same paths as outside. TF_MODEL_DIR and
    TFLITE_MODEL_DIR are set to these paths, so that published command lines run unchanged. The exit code is
    that of the command.
    """
    _attach(tuple(command), model_dir, out, toolchain)


@app.command()
@takes_options
def shell(*, model_dir: ModelDir = None, out: OutDir = DEFAULT_OUT, toolchain: OneToolchainOptions) -> None:
    """Open a shell in the toolchain.

    To run a script in the shell: `shell < recipe.sh`.
    """
    _attach(SHELL, model_dir, out, toolchain)


def _attach(argv: tuple[str, ...], model_dir: Path | None, out: Path, toolchain: OneToolchainOptions) -> None:
    from runner.engines.exec import attach

    raise typer.Exit(attach(choose_engine(toolchain), argv, model_dir=model_dir, out_dir=out))
