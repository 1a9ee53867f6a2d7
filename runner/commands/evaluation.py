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
    """How the files are run."""

    threads: Annotated[int, typer.Option(min=1, help="Threads of each LiteRT process.")] = 1
    xnnpack: Annotated[
        bool, typer.Option("--xnnpack/--no-xnnpack", help="Use LiteRT's XNNPACK delegate, as by default.")
    ] = True
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="LiteRT processes at once. Default: as cores allow; 1 for a calm latency."),
    ] = None
    timeout_s: Annotated[float, typer.Option(min=1.0, help="How long one picture may take.")] = 60.0
    force: Annotated[
        bool, typer.Option("--force", help="Run pictures again that an earlier call has run.")
    ] = False

    @property
    def settings(self) -> RunSettings:
        """The same as a value of the package."""
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
    images: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the pictures.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N pictures of the annotations.")
    ] = None,
    detections: Annotated[
        OptionalPath,
        typer.Option(metavar="DIR", help="Write each file's detections there, in COCO's format."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace detections that are already there.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="Compare with what was published for this recipe."),
    ] = None,
    options: EvaluationOptions,
    as_json: AsJson = False,
) -> None:
    """Compute the accuracy of detectors on pictures with known boxes.

    Two numbers, which differ on the same detections:

    COCO AP: COCO's average precision: the mean over the classes that the set has boxes of and over the IoU
    thresholds 0.50, 0.55 to 0.95, of the precision at 101 recall points; at most 100 detections a picture;
    a detection of a crowd is neither right nor wrong. Computed by faster-coco-eval.

    MLPerf mAP: what MLPerf Mobile's app does, step by step. Decode the picture to RGB. Resize it to the input
    of the file: bilinear, in float32, the aspect ratio not kept, corners not aligned, no half-pixel centres.
    float32 input: (pixel - 127.5) / 127.5. uint8 input: the pixels, truncated. Take the first int(count)
    boxes; the class is int(class) + 1. For each class and each IoU threshold 0.50, 0.55 to 0.95: in the order
    of the scores, each detection takes, of the boxes of its picture that are left, the one with the best
    IoU, if that reaches the threshold. Average the best precision at the recalls 0, 0.01 to 1. No rule for
    crowds, areas or the number of detections. A class that is detected and not in the set counts 0; one that
    is neither is left out. All in float32.

    Both numbers are of the same detections. Category ids are class numbers. With several files, the
    difference from the first is printed. An interrupted call goes on where it stopped. The latency is the
    time of LiteRT's `invoke` for a picture on this machine, which is not a phone.
    """
    from runner.evaluation.annotations import PictureSet
    from runner.evaluation.detector import open_detector
    from runner.evaluation.evaluate import difference
    from runner.evaluation.evaluate import evaluate as evaluate_file
    from runner.evaluation.origin import compared_with_published, find_origin
    from runner.evaluation.results import result_targets, write_results

    detectors = [open_detector(file) for file in files]
    origins = [find_origin(detector, recipe) for detector in detectors]
    pictures = PictureSet(annotations=annotations, images=images, limit=limit)
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
            console.note(f"   {result.kept_count} of {len(tested.images)} pictures had been run before")
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
    """The result for a file; ``difference`` is from the first file."""

    result: Evaluation
    difference: Difference | None
    published: tuple[Comparison, ...]

    @property
    def plain(self) -> dict[str, object]:
        result = {it.name: getattr(self.result, it.name) for it in fields(self.result) if it.repr}
        return {**result, "difference": self.difference, "published": self.published}


def _note_set(annotations: Path, tested: Annotations) -> None:
    what = f"{annotations}: {len(tested.images)} pictures, {len(tested.annotations)} boxes"
    if tested.is_like_val2017:
        console.note(f"{what}, as many as COCO val2017 has")
    else:
        console.note(f"{what}; this is not COCO val2017: compare no number with published ones")


def _note_run(detector: Detector, settings: RunSettings) -> None:
    console.note(f"{detector.path}: pictures: {detector.input.preprocessing}")
    if settings.workers > 1:
        console.note(f"   {settings.workers} processes at once: the latency is that of a busy machine")


def _lines(found: list[_Row]) -> Iterator[str]:
    widest = max(len("difference"), *(len(str(row.result.file)) for row in found))
    yield f"{'file':{widest}}  COCO AP    AP50    AP75  MLPerf mAP  median ms   p90 ms  load ms"
    for row in found:
        it, latency = row.result, row.result.latency
        scores = f"{it.coco.ap:7.4f} {it.coco.ap_50:7.4f} {it.coco.ap_75:7.4f}  {it.mlperf_map:10.4f}"
        times = f"{latency.median_ms:9.2f} {latency.p90_ms:8.2f} {latency.load_ms:8.1f}"
        yield f"{it.file!s:{widest}}  {scores}  {times}"
        if row.difference is not None:
            by = row.difference
            more = f"{by.coco.ap:+7.4f} {by.coco.ap_50:+7.4f} {by.coco.ap_75:+7.4f}  {by.mlperf_map:+10.4f}"
            yield f"{'difference':{widest}}  {more}  from the first file"
    latency = found[0].result.latency
    yield (
        f"latency: LiteRT, threads: {latency.threads}, XNNPACK {'on' if latency.xnnpack else 'off'}, "
        f"processes at once: {latency.workers}; {latency.machine}"
    )
    for row in found:
        for each in row.published:
            yield from _published_lines(row.result.file, each)


def _published_lines(file: Path, it: Comparison) -> Iterator[str]:
    yield f"{file}: {it.recipe} {it.variant} ({it.because})"
    yield f"  published: {it.metric} {it.value} on {it.dataset}; source: {it.source}"
    differences = f"COCO AP {it.coco_difference:+.4f}, MLPerf mAP {it.mlperf_difference:+.4f} from it"
    yield f"  here: {differences}" + ("" if it.is_same_set else "; another set, so not comparable")
