"""The command that writes a page about converted files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.convert import PAGE_NAME
from runner.commands.options import AsJson, OptionalPath, Overwrite, ToolchainOptions, takes_options
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.evaluation.annotations import ImageSet
    from runner.scripts.provider import ToolchainProvider

app = typer.Typer()


@app.command()
@takes_options
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="DIR|FILE...", help="Output folders of conversions, or .tflite files."),
    ],
    *,
    out: Annotated[
        OptionalPath,
        typer.Option(metavar="FILE", help="The page. Default: report.html; with --json: no page."),
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image to show; can be repeated. Default: generated images.")
    ] = None,
    labels: Annotated[
        OptionalPath,
        typer.Option(
            metavar="TXT|PBTXT", help="Names of the classes, as for `detect`. Default: the recipe's."
        ),
    ] = None,
    score_threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Show no detections with lower scores.")
    ] = 0.3,
    annotations: Annotated[
        OptionalPath,
        typer.Option(metavar="JSON", help="Measure accuracy and latency on this set; needs --images."),
    ] = None,
    images: Annotated[
        OptionalPath, typer.Option(metavar="DIR", help="The folder of the images of --annotations.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images of --annotations.")
    ] = None,
    graph: Annotated[
        OptionalPath, typer.Option(help="The frozen graph of a single FILE. Default: the one beside FILE.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="The recipe of the files. Default: as in the provenance."),
    ] = None,
    overwrite: Overwrite = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Write a page about converted files: what they detect, where they lose precision.

    The page is one HTML file that needs no network. It shows each image after preprocessing, with the
    detections of the .tflite file and of its frozen graph, and compares their layers on the same images. A
    file without a frozen graph needs no toolchain; the page then omits the comparison.
    """
    target = Path(PAGE_NAME) if out is None and not as_json else out
    _write(
        paths,
        target,
        toolchain.provider(),
        images=tuple(image or ()),
        labels=labels,
        score_threshold=score_threshold,
        evaluation=_evaluation_set(annotations, images, limit),
        graph=graph,
        recipe=recipe,
        overwrite=overwrite,
        as_json=as_json,
    )


def _write(
    paths: list[Path],
    target: Path | None,
    provider: ToolchainProvider,
    *,
    images: tuple[Path, ...],
    labels: Path | None,
    score_threshold: float,
    evaluation: ImageSet | None,
    graph: Path | None,
    recipe: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    from runner.report.collect import ReportRequest, collect
    from runner.report.subject import find_subjects
    from runner.report.write import require_replaceable, write_page

    if target is not None:
        require_replaceable(target, overwrite=overwrite)
    request = ReportRequest(
        subjects=find_subjects(paths, recipe=recipe, graph=graph),
        images=images,
        labels=labels,
        score_threshold=score_threshold,
        evaluation=evaluation,
    )
    collected = collect(request, provider)
    page = None if target is None else write_page(collected, target)
    if as_json:
        console.result_json(collected, page=page)
    else:
        console.result(str(page))


def _evaluation_set(annotations: Path | None, images: Path | None, limit: int | None) -> ImageSet | None:
    """Return the labelled images to measure accuracy on, or None if the options name none.

    Raises:
        UsageError: --annotations or --images is missing.
    """
    if annotations is not None and images is not None:
        from runner.evaluation.annotations import ImageSet

        return ImageSet(annotations=annotations, images=images, limit=limit)
    if (annotations, images, limit) != (None, None, None):
        raise UsageError("to measure accuracy, give both --annotations and --images")
    return None
