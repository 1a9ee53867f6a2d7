"""The command that computes the accuracy and the latency of detectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import AsJson, OptionalPath, takes_options

if TYPE_CHECKING:
    from runner.evaluation.annotations import Annotations
    from runner.evaluation.detector import Detector
    from runner.evaluation.evaluate import Difference, Evaluation
    from runner.evaluation.origin import Comparison
    from runner.evaluation.set_run import RunSettings

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How to run the files."""

    threads: Annotated[int, typer.Option(min=1, help="Number of threads per LiteRT process.")] = 1
    xnnpack: Annotated[
        bool, typer.Option("--xnnpack/--no-xnnpack", help="Whether to use LiteRT's XNNPACK delegate.")
    ] = True
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of parallel LiteRT processes; use 1 to measure the latency. Default: as many as the "
            "cores allow.",
        ),
    ] = None
    timeout_s: Annotated[float, typer.Option(min=1.0, help="Time limit per image, in seconds.")] = 60.0
    force: Annotated[
        bool, typer.Option("--force", help="Run all images, even those that an earlier call has run.")
    ] = False

    @property
    def settings(self) -> RunSettings:
        """These options as the settings of a run."""
        from runner.evaluation.set_run import RunSettings
        from runner.host.capacity import usable_cores

        return RunSettings(
            threads=self.threads,
            xnnpack=self.xnnpack,
            workers=self.workers or max(1, usable_cores() // self.threads),
            timeout_s=self.timeout_s,
            is_forced=self.force,
        )


@app.command()
@takes_options
def evaluate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files with the detection operator.")
    ],
    *,
    annotations: Annotated[Path, typer.Option(metavar="JSON", help="The boxes, in COCO's format.")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the images.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only the first N images in the annotations.")
    ] = None,
    detections: Annotated[
        OptionalPath,
        typer.Option(metavar="DIR", help="Write each file's detections to DIR, in COCO's format."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files with detections.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="Compare with the published accuracy of this recipe."),
    ] = None,
    options: EvaluationOptions,
    as_json: AsJson = False,
) -> None:
    """Compute the accuracy of detectors on images with known boxes.

    Two numbers are computed from the same detections; they differ:

    COCO AP is COCO's average precision, computed by faster-coco-eval. It is the mean of the precision at 101
    recall points, over all classes that have boxes in the set, and over the IoU thresholds 0.50, 0.55, ...,
    0.95. Only the 100 best detections of each image are used. A detection of a crowd is ignored.

    MLPerf mAP follows MLPerf Mobile's app, step by step, in float32. Decode the image to RGB. Resize it to
    the input size: bilinear, without aligned corners or half-pixel centres; the aspect ratio is not kept. A
    float32 input gets (pixel - 127.5) / 127.5, a uint8 input the truncated pixels. Take the first int(count)
    boxes; the class is int(class) + 1. For each class and each IoU threshold 0.50, 0.55, ..., 0.95, go
    through the detections by score, highest first. Each detection is matched to the unmatched box in its
    image with the best IoU, if this IoU reaches the threshold. Average the best precision at the recalls 0,
    0.01, ..., 1. There is no rule for crowds, areas or the number of detections. A class with detections but
    without boxes counts as 0. A class without both is ignored.

    The category ids in the annotations must be class numbers. With several files, the differences from the
    first file are printed. An interrupted call continues where it stopped. The latency is the time of
    LiteRT's `invoke` for an image on this machine, which is not a phone.
    """
    from runner.evaluation.annotations import ImageSet
    from runner.evaluation.detector import open_detector
    from runner.evaluation.evaluate import difference
    from runner.evaluation.evaluate import evaluate as evaluate_file
    from runner.evaluation.origin import compared_with_published, find_origin
    from runner.evaluation.results import result_targets, write_results

    detectors = [open_detector(file) for file in files]
    origins = [find_origin(detector, recipe) for detector in detectors]
    pictures = ImageSet(annotations=annotations, images=images, limit=limit)
    tested = pictures.read()
    for detector in detectors:
        pictures.check_classes(tested.categories, detector.class_count)
    targets = {} if detections is None else result_targets(detections, files, overwrite=overwrite)
    _note_set(annotations, tested)
    found: list[_Row] = []
    for detector, origin in zip(detectors, origins, strict=True):
        _note_run(detector, options.settings)
        result = evaluate_file(detector, tested, images, options.settings)
        if result.kept_count:
            console.note(f"   {result.kept_count} of {len(tested.images)} images were run by an earlier call")
        if detector.path in targets:
            write_results(result.detections, targets[detector.path])
        first = found[0].result if found else None
        row = _Row(
            result=result,
            difference=None if first is None else difference(result, first),
            published=() if origin is None else tuple(compared_with_published(origin, tested, result)),
        )
        found.append(row)
    if as_json:
        counts = {"pictures": len(tested.images), "boxes": len(tested.annotations)}
        entry = {"annotations": annotations, "is_like_val2017": tested.is_like_val2017, **counts}
        console.result_json({**entry, "files": [row.plain for row in found]})
        return
    console.result("\n".join(_lines(found)))


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The result for a file; ``difference`` is its difference from the result for the first file."""

    result: Evaluation
    difference: Difference | None
    published: tuple[Comparison, ...]

    @property
    def plain(self) -> dict[str, object]:
        result = {it.name: getattr(self.result, it.name) for it in fields(self.result) if it.repr}
        return {**result, "difference": self.difference, "published": self.published}


def _note_set(annotations: Path, tested: Annotations) -> None:
    what = f"{annotations}: {len(tested.images)} images, {len(tested.annotations)} boxes"
    if tested.is_like_val2017:
        console.note(f"{what}, as many as COCO val2017 has")
    else:
        console.note(f"{what}; this is not COCO val2017, so do not compare with published numbers")


def _note_run(detector: Detector, settings: RunSettings) -> None:
    console.note(f"{detector.path}: images: {detector.input.preprocessing}")
    if settings.workers > 1:
        console.note(f"   {settings.workers} parallel processes: the latency is measured on a busy machine")


def _lines(found: list[_Row]) -> Iterator[str]:
    widest = max(len("difference"), *(len(str(row.result.file)) for row in found))
    yield f"{'file':{widest}}  COCO AP    AP50    AP75  MLPerf mAP  median ms   p90 ms  load ms"
    for row in found:
        it, latency = row.result, row.result.latency
        coco = " ".join(f"{_number(each):>7}" for each in (it.coco.ap, it.coco.ap_50, it.coco.ap_75))
        scores = f"{coco}  {_number(it.mlperf_map):>10}"
        times = f"{latency.median_ms:9.2f} {latency.p90_ms:8.2f} {latency.load_ms:8.1f}"
        yield f"{it.file!s:{widest}}  {scores}  {times}"
        if row.difference is not None:
            by = row.difference
            more = f"{by.coco.ap:+7.4f} {by.coco.ap_50:+7.4f} {by.coco.ap_75:+7.4f}  {by.mlperf_map:+10.4f}"
            yield f"{'difference':{widest}}  {more}  from the first file"
    latency = found[0].result.latency
    yield (
        f"latency: LiteRT, threads: {latency.threads}, XNNPACK {'on' if latency.xnnpack else 'off'}, "
        f"parallel processes: {latency.workers}; {latency.machine}"
    )
    for row in found:
        for each in row.published:
            yield from _published_lines(row.result.file, each)


def _number(precision: float) -> str:
    """Return a precision as text, or "none" if it is -1 or NaN because the set has no boxes."""
    return f"{precision:.4f}" if precision >= 0 else "none"


def _published_lines(file: Path, it: Comparison) -> Iterator[str]:
    yield f"{file}: {it.recipe} {it.variant} ({it.because})"
    yield f"  published: {it.metric} {it.value} on {it.dataset}; source: {it.source}"
    differences = f"COCO AP {it.coco_difference:+.4f}, MLPerf mAP {it.mlperf_difference:+.4f}"
    yield f"  difference here: {differences}" + (
        "" if it.is_same_set else "; not comparable, because the set differs"
    )
