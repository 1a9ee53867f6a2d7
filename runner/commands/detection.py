"""Commands about what a detector detects: draw labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner import console
from runner.commands.options import AsJson

app = typer.Typer()


@app.command()
def samples(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to make: images/ and annotations.json.")
    ],
    *,
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 100,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="What is drawn; the recipe was trained with seed 1.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw labelled pictures for the recipe `shapes`, in COCO's format.

    Circles, squares and triangles, one to four to a picture, on noisy and cluttered backgrounds. The same
    seed gives the same pictures, however many are asked for.
    """
    from runner.evaluation.samples import ANNOTATIONS, IMAGES, write_samples

    target = folder.expanduser().absolute()
    write_samples(target, count=count, seed=seed)
    annotations, images = target / ANNOTATIONS, target / IMAGES
    if as_json:
        console.result_json({"annotations": annotations, "images": images, "count": count, "seed": seed})
    else:
        console.result(str(annotations))
