"""The command that checks the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import AsJson
from runner.errors import EngineError

if TYPE_CHECKING:
    from runner.maintenance.doctor.findings import Report

app = typer.Typer()


@app.command()
def doctor(
    *,
    engine: Annotated[
        str,
        typer.Option(envvar="RUNNER_ENGINE", help="The engine that must be ready: auto, docker or local."),
    ] = "auto",
    base_image: Annotated[
        str | None, typer.Option(envvar="RUNNER_BASE_IMAGE", help="The base image to look for.")
    ] = None,
    models: Annotated[
        str, typer.Option(envvar="RUNNER_MODELS", help="The source of tensorflow/models to check.")
    ] = "auto",
    python: Annotated[
        str | None,
        typer.Option(envvar="RUNNER_PYTHON", help="The CPython 3.7 of the local engine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report whether this machine is ready and, if not, what to do first.

    Exit code 0: it is ready. Exit code 3: it is not.
    """
    from runner.engines.choose import check_name
    from runner.maintenance.doctor.findings import Question
    from runner.maintenance.doctor.report import examine
    from runner.recipes.recipe import load_recipe

    check_name(engine)
    question = Question(engine=engine, base_image=base_image, models=models, python=python)
    report = examine(question, load_recipe())
    _print(report, as_json=as_json)
    raise typer.Exit(0 if report.first_to_do is None else EngineError.exit_code)


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        console.result_json(report, ready=report.first_to_do is None)
        return
    for finding in report.findings:
        console.result(str(finding))
    console.result(report.verdict)
