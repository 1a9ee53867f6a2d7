"""Commands for images: run a detector on images, generate labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import AsJson, OptionalPath, Overwrite
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.evaluation.detector import Box, Detector
    from runner.evaluation.labels import Labels

app = typer.Typer()


@app.command()
def detect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file with the detection operator.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images, such as JPEG or PNG.")],
    *,
    labels: Annotated[
        OptionalPath,
        typer.Option(
            metavar="TXT|PBTXT",
            help="The class names: a file with one per line, class 1 first, or a label map. Default: the "
            "names in the recipe, or COCO's.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="Use the class names of this recipe. Default: the recipe in the provenance beside FILE.",
        ),
    ] = None,
    score_threshold: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Omit detections with lower scores. FILE also has its own threshold."
        ),
    ] = 0.0,
    draw: Annotated[
        OptionalPath, typer.Option(metavar="DIR", help="Write the images with boxes to DIR, as JPEG or PNG.")
    ] = None,
    overwrite: Overwrite = False,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads for LiteRT.")] = 1,
    timeout_s: Annotated[float, typer.Option(min=1.0, help="Time limit per image, in seconds.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Print what the detector FILE finds in images.

    Each image is rotated according to its EXIF data. Each box is printed in pixels and as fractions of the
    image size; it may extend beyond the image. The preprocessing is printed to stderr. A float FILE does not
    state which pixel values it expects; -1 to 1 is assumed.
    """
    from runner.evaluation.detector import open_detector
    from runner.evaluation.drawing import drawing_targets
    from runner.evaluation.labels import labels_of, read_labels

    detector = open_detector(file)
    if labels is not None and recipe is not None:
        raise UsageError("--labels and --recipe cannot be combined", tip="use one of them for the names")
    names = labels_of(detector, recipe) if labels is None else read_labels(labels, detector.class_count)
    targets = {} if draw is None else drawing_targets(draw, images, overwrite=overwrite)
    console.note(f"images: {detector.input.preprocessing}")
    run = _Run(names, score_threshold, threads, timeout_s, targets)
    found = run.pictures(detector, images)
    if as_json:
        console.result_json({"file": file, "labels": names.source, "pictures": tuple(found)})
        return
    for picture in found:
        console.result("\n".join(_lines(picture)))


@app.command()
def samples(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to create, with images/ and annotations.json.")
    ],
    *,
    count: Annotated[int, typer.Option(min=1, help="The number of images.")] = 100,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**32 - 1, help="The random seed; the recipe `shapes` was trained with seed 1."
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw labelled images for the recipe `shapes`, in COCO's format.

    Each image has one to four circles, squares or triangles on a noisy and cluttered background. The same
    seed gives the same images: a larger --count only adds images at the end.
    """
    from runner.evaluation.samples import ANNOTATIONS, IMAGES, write_samples

    target = folder.expanduser().absolute()
    write_samples(target, count=count, seed=seed)
    annotations, images = target / ANNOTATIONS, target / IMAGES
    if as_json:
        console.result_json({"annotations": annotations, "images": images, "count": count, "seed": seed})
    else:
        console.result(str(annotations))


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A detection in the output; ``box`` is relative to the image, ``pixels`` is the same box in pixels."""

    label: str
    class_id: int
    score: float
    pixels: Box
    box: Box


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """The detections in an image; ``drawing`` is the file with the boxes, if requested."""

    picture: Path
    width: int
    height: int
    detections: tuple[Detection, ...]
    drawing: Path | None


@dataclass(frozen=True)
class _Run:
    labels: Labels
    score_threshold: float
    threads: int
    timeout_s: float
    targets: dict[Path, Path]

    def pictures(self, detector: Detector, images: list[Path]) -> Iterator[ImageResult]:
        from runner.evaluation.drawing import Caption, draw
        from runner.evaluation.images import open_image

        with detector.running(threads=self.threads, timeout_s=self.timeout_s) as running:
            for image in images:
                pixels = open_image(image)
                height, width, _ = pixels.shape
                detections = tuple(
                    Detection(
                        label=self.labels.name_of(it.class_id),
                        class_id=it.class_id,
                        score=it.score,
                        pixels=it.box.scaled(height, width),
                        box=it.box,
                    )
                    for it in running.detect(pixels).boxes
                    if it.score >= self.score_threshold
                )
                target = self.targets.get(image)
                if target is not None:
                    captions = [
                        Caption(box=it.pixels, text=f"{it.label} {it.score:.2f}", class_id=it.class_id)
                        for it in detections
                    ]
                    draw(pixels, captions, target)
                yield ImageResult(
                    picture=image, width=width, height=height, detections=detections, drawing=target
                )


def _lines(found: ImageResult) -> Iterator[str]:
    yield f"{found.picture} ({found.width} x {found.height} pixels): {len(found.detections)} found"
    if not found.detections:
        return
    widest = max(5, *(len(it.label) for it in found.detections))
    edges = ("left", "top", "right", "bottom")
    yield f"  {'label':{widest}} score " + "".join(f"{it:>8}" for it in edges) + "   relative"
    for it in found.detections:
        pixels = (it.pixels.xmin, it.pixels.ymin, it.pixels.xmax, it.pixels.ymax)
        relative = (it.box.xmin, it.box.ymin, it.box.xmax, it.box.ymax)
        yield (
            f"  {it.label:{widest}} {it.score:5.3f} "
            + "".join(f"{edge:8.1f}" for edge in pixels)
            + "   "
            + " ".join(f"{edge:.4f}" for edge in relative)
        )
