"""The command that downloads the published checkpoints or the published .tflite files."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import AsJson, OptionalPath, RecipeName
from runner.host.cache_dir import CACHE_DIR_VARIABLE
from runner.recipes.recipe import DEFAULT_RECIPE

if TYPE_CHECKING:
    from runner.checkpoint.compare import CheckpointVerdict
    from runner.recipes.recipe import Recipe

app = typer.Typer()


@app.command()
def fetch(
    *,
    recipe: RecipeName = DEFAULT_RECIPE,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="A mirror of the archive, or a local copy, packed or unpacked. With --published: the "
            "address or folder that contains the two files.",
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Download the published .tflite files instead of the checkpoints."),
    ] = False,
    out: Annotated[
        OptionalPath,
        typer.Option(help="Where to write the result. Default: the cache, where other commands find it."),
    ] = None,
    cache_dir: Annotated[
        OptionalPath, typer.Option(envvar=CACHE_DIR_VARIABLE, help="Where the cache is.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download the published checkpoints, or the published .tflite files.

    Every tensor of a checkpoint is compared with the published one. The folder of the checkpoints is printed.

    `fp32`, `uint8` and `build-all` do this automatically if --model-dir is not given. The next run resumes an
    interrupted download.
    """
    from runner.recipes.recipe import load_recipe

    if cache_dir is not None:
        os.environ[CACHE_DIR_VARIABLE] = str(cache_dir)
    parent = out.expanduser().absolute() if out is not None else None
    if published:
        _fetch_published(load_recipe(recipe), url, parent, as_json=as_json)
    else:
        _fetch_model(load_recipe(recipe), url, parent, as_json=as_json)


def _fetch_model(recipe: Recipe, url: str | None, parent: Path | None, *, as_json: bool) -> None:
    from runner.checkpoint.fetch import fetch_model

    model = fetch_model(recipe, source=url, parent=parent)
    if as_json:
        variants = {name: _tensors(verdict) for name, verdict in model.verdicts.items()}
        console.result_json(model, variants=variants)
    else:
        console.result(str(model.model_dir))


def _tensors(verdict: CheckpointVerdict) -> dict[str, object]:
    return {
        "verdict": verdict.sentence,
        "matching_tensors": verdict.matching,
        "extra_tensors": len(verdict.extra),
        "tensors_sha256": verdict.digest,
    }


def _fetch_published(recipe: Recipe, url: str | None, parent: Path | None, *, as_json: bool) -> None:
    from runner.download.published import fetch_published

    files = fetch_published(recipe, source=url, parent=parent)
    if as_json:
        console.result_json([{"variant": it.variant, "path": it.path, **asdict(it.digests)} for it in files])
    else:
        for file in files:
            console.result(str(file.path))
