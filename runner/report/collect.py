"""Collect what a page shows: run files and frozen graphs on images, check them, read logs and records."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner import console
from runner.evaluation.detector import Detector, ImageInput, found_boxes
from runner.evaluation.labels import labels_of, read_labels
from runner.evidence.check.compare import quantization_of
from runner.evidence.check.files import Inputs, open_pairs
from runner.evidence.check.run import FLOAT_MEAN_AND_STD, judge, run_graph
from runner.host.version import __version__
from runner.litert.worker import litert_worker
from runner.report.about import about_file
from runner.report.data import (
    Detection,
    MatchRow,
    Precision,
    RawRow,
    RawRows,
    Report,
    ShownImage,
    ShownRun,
)
from runner.report.detections import match_runs, running_alone
from runner.report.images import as_seen, as_webp, generated_images, user_images
from runner.report.layers import (
    RELATIVE,
    STEPS,
    compare_layers,
    compare_ranges,
    layer_images,
    layer_tensors,
)
from runner.report.toco_log import read_warnings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from runner.engines.base import Session
    from runner.evaluation.annotations import ImageSet
    from runner.evaluation.detector import FoundBox
    from runner.evaluation.labels import Labels
    from runner.evidence.check.files import Pair
    from runner.evidence.check.run import CheckReport, CheckRequest, GraphRun
    from runner.report.images import Source
    from runner.report.subject import Subject
    from runner.scripts.provider import ToolchainProvider
    from runner.scripts.run import ScriptOptions
    from runner.tflite.model import Tensor

SHAPES: Final = "shapes"
"""The recipe whose model was trained on images like the generated ones."""
RAW_ROWS: Final = 20
FED: Final = {
    "float32": "A float file is fed (pixel - 127.5) / 127.5, as the detection API's SSD models are trained.",
    "uint8": "A quantized file is fed the pixels as they are.",
}


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What to show on a page; without ``images``, generated images are used."""

    subjects: tuple[Subject, ...]
    images: tuple[Path, ...] = ()
    labels: Path | None = None
    score_threshold: float = 0.3
    evaluation: ImageSet | None = None


@dataclass(frozen=True, kw_only=True)
class _Ran:
    """The results of running a file and its frozen graph on the images; ``graph`` is None if it is unknown.

    Arrays have one row per image. ``boxes`` and ``classes`` are the inputs of the file's detection operator,
    in real values.
    """

    subject: Subject
    pixels: tuple[NDArray[np.uint8], ...]
    detections: tuple[tuple[FoundBox, ...], ...]
    boxes: NDArray[np.float64]
    classes: NDArray[np.float64]
    layers: dict[int, NDArray[Any]]
    graph: _RanGraph | None


@dataclass(frozen=True, kw_only=True)
class _RanGraph:
    run: GraphRun
    report: CheckReport
    detections: tuple[tuple[FoundBox, ...], ...]


def collect(request: ReportRequest, provider: ToolchainProvider) -> Report:
    """Collect what a page shows; the toolchain is started only if a frozen graph is known.

    Raises:
        UsageError: an image or the labels cannot be read.
        EngineError, BuildError: the toolchain is not available.
        ScriptError: the step that runs a graph failed.
        IntegrityError: LiteRT cannot run a file, or a file is not what its provenance says.
    """
    sources = user_images(request.images) if request.images else generated_images()
    labels = _labels(request)
    options = provider.options()
    with tempfile.TemporaryDirectory(prefix="report-") as scratch:
        ran = tuple(_run_all(request, sources, provider, options, Path(scratch)))
    return Report(
        title=_title(request.subjects),
        program=f"mobiledet-runner {__version__}",
        files=tuple(
            about_file(
                it.subject,
                check=None if it.graph is None else it.graph.report,
                precision=_precision(it),
                evaluation=request.evaluation,
            )
            for it in ran
        ),
        images=tuple(
            _image(number, source, ran, labels, request.score_threshold)
            for number, source in enumerate(sources)
        ),
        are_images_generated=not request.images,
        preprocessing=_preprocessing(request.subjects),
        labels=labels.source,
        score_threshold=request.score_threshold,
        evaluated_on=None if request.evaluation is None else str(request.evaluation.annotations),
    )


def _title(subjects: Sequence[Subject]) -> str:
    titles = dict.fromkeys(it.recipe.title for it in subjects if it.recipe is not None and it.recipe.data_dir)
    return next(iter(titles)) if len(titles) == 1 else ", ".join(it.path.name for it in subjects)


def _labels(request: ReportRequest) -> Labels:
    """Return the names of the classes: the user's, the recipe's, or COCO's."""
    first = request.subjects[0]
    if request.labels is not None:
        return read_labels(request.labels, first.class_count)
    _, height, width, _ = first.input.shape
    takes = ImageInput(height=height, width=width, is_float=first.input.dtype == "float32")
    detector = Detector(path=first.path, input=takes, class_count=first.class_count)
    has_labels = first.recipe is not None and len(first.recipe.labels) == first.class_count
    return labels_of(detector, first.recipe.reference if first.recipe is not None and has_labels else None)


def _preprocessing(subjects: Sequence[Subject]) -> str:
    """Describe in sentences how an image becomes the input of the files."""
    sizes = dict.fromkeys(it.input.shape[1:3] for it in subjects)
    size = " or ".join(f"{width} x {height}" for height, width in sizes)
    kinds = dict.fromkeys(it.input.dtype for it in subjects)
    values = " ".join(FED[kind] for kind in kinds)
    return f"Each image is resized to {size} pixels; its aspect ratio is not kept. {values}"


# --- running ----------------------------------------------------------------------------------------------


def _run_all(
    request: ReportRequest,
    sources: Sequence[Source],
    provider: ToolchainProvider,
    options: ScriptOptions,
    scratch: Path,
) -> Iterator[_Ran]:
    """Run all files, and those of their frozen graphs that are known."""
    graphs: dict[str, _RanGraph] = {}
    sizes = {it.input.shape for it in request.subjects if it.pair is not None}
    for size in sorted(sizes):
        subjects = [it for it in request.subjects if it.pair is not None and it.input.shape == size]
        pairs = tuple(_as_trained(it, it.pair) for it in subjects if it.pair is not None)
        inputs = Inputs(images=_write_inputs(size, sources, scratch))
        with open_pairs(provider.engine(), pairs, inputs, options) as (session, requests):
            for subject, checked in zip(subjects, requests, strict=True):
                is_shapes = subject.recipe is not None and subject.recipe.name == SHAPES
                whole = replace(
                    checked,
                    layers=layer_images(subject.graph, len(sources)),
                    has_typical_images=bool(request.images) or is_shapes,
                )
                graphs[subject.name] = _run_graph(session, whole, subject)
    for subject in request.subjects:
        yield _run_file(subject, sources, graphs.get(subject.name), options.timeout_s)


def _as_trained(subject: Subject, pair: Pair) -> Pair:
    """Return a pair whose frozen graph gets pixels as -1 to 1, as in training, even if the file does not.

    If the file's own mean and std are wrong, those of a float file are used instead.
    """
    if subject.pixels is None or subject.pixels.is_expected:
        return pair
    mean, std = FLOAT_MEAN_AND_STD
    return replace(pair, variant=replace(pair.variant, mean_value=mean, std_value=std))


def _write_inputs(shape: tuple[int, ...], sources: Sequence[Source], scratch: Path) -> tuple[Path, ...]:
    """Write the images in the size of an input, so that they are not resized again."""
    from PIL import Image

    _, height, width, _ = shape
    folder = scratch / f"{width}x{height}"
    folder.mkdir(exist_ok=True)
    files = []
    for number, source in enumerate(sources):
        files.append(folder / f"{number}.png")
        Image.fromarray(source.resized(height, width)).save(files[-1])
    return tuple(files)


def _run_graph(session: Session, request: CheckRequest, subject: Subject) -> _RanGraph:
    with console.step("run the frozen graph on the images", of=subject.name):
        run = run_graph(session, request)
    report = judge(request, run)
    boxes, classes = run.graph_outputs
    with running_alone(
        subject.model.content,
        run.graph.anchors,
        work_dir=request.work_dir,
        timeout_s=request.options.timeout_s,
    ) as alone:
        detections = tuple(alone.detect(*outputs) for outputs in zip(boxes, classes, strict=True))
    return _RanGraph(run=run, report=report, detections=detections)


def _run_file(subject: Subject, sources: Sequence[Source], graph: _RanGraph | None, timeout_s: float) -> _Ran:
    _, height, width, _ = subject.input.shape
    pixels = tuple(source.resized(height, width) for source in sources)
    feeds = np.stack(pixels)
    if subject.input.dtype == "float32":
        mean, std = FLOAT_MEAN_AND_STD
        feeds = ((feeds - mean) / std).astype(np.float32)
    outputs = (*subject.graph.outputs, *subject.detection.inputs[:2])

    with console.step("run the file on the images", of=subject.name):
        with litert_worker(subject.path, tensors=outputs, timeout_s=timeout_s) as worker:
            rows = [worker.run(feed[np.newaxis]).outputs for feed in feeds]
        layers = {}
        if graph is not None and graph.run.layers:
            layers = _layers(subject, graph, feeds[: layer_images(subject.graph, len(feeds))], timeout_s)
    raw_boxes, raw_classes = (np.concatenate([row[number] for row in rows]) for number in (4, 5))
    raw = [subject.graph.tensors[index] for index in subject.detection.inputs[:2]]
    return _Ran(
        subject=subject,
        pixels=pixels,
        detections=tuple(found_boxes(row[:4]) for row in rows),
        boxes=_reals(raw_boxes, raw[0]),
        classes=_reals(raw_classes, raw[1]),
        layers=layers,
        graph=graph,
    )


def _layers(
    subject: Subject, graph: _RanGraph, feeds: NDArray[Any], timeout_s: float
) -> dict[int, NDArray[Any]]:
    """Return the values of all tensors that the graph has too, keyed by index; one row for each image."""
    tensors = tuple(layer_tensors(subject.graph, graph.run.layers))
    with litert_worker(subject.path, tensors=tensors, keep_all=True, timeout_s=timeout_s) as worker:
        rows = [worker.run(feed[np.newaxis]).outputs for feed in feeds]
    return dict(zip(tensors, map(np.concatenate, zip(*rows, strict=True)), strict=True))


def _reals(values: NDArray[Any], tensor: Tensor) -> NDArray[np.float64]:
    """Dequantize the values of a tensor; values of a float tensor are returned unchanged."""
    quantization = quantization_of(tensor)
    reals = values.astype(np.float64)
    if values.dtype == np.float32 or quantization is None:
        return reals
    return (reals - quantization[1]) * quantization[0]


# --- what was found ---------------------------------------------------------------------------------------


def _precision(ran: _Ran) -> Precision | None:
    if ran.graph is None:
        return None
    file, log = ran.subject.graph, ran.subject.toco_log
    is_quantized = ran.subject.input.dtype == "uint8"
    return Precision(
        unit=STEPS if is_quantized else RELATIVE,
        layer_images=layer_images(file, len(ran.pixels)),
        layers=compare_layers(file, ran.layers, ran.graph.run.layers),
        ranges=compare_ranges(file, ran.graph.run.graph) if is_quantized else (),
        toco=() if log is None else read_warnings(log.read_text("utf-8", "replace").splitlines()),
        has_toco_log=log is not None,
    )


def _image(
    number: int, source: Source, ran: Sequence[_Ran], labels: Labels, score_threshold: float
) -> ShownImage:
    height, width, _ = source.pixels.shape
    runs = [run for it in ran for run in _runs(number, it)]
    shown = [[box for box in run.found if box.score >= score_threshold] for run in runs]
    objects, indices = match_runs(shown)
    return ShownImage(
        name=source.name,
        width=width,
        height=height,
        contents=source.contents,
        runs=tuple(
            ShownRun(
                title=run.title,
                file=run.file,
                is_graph=run.is_graph,
                detections=tuple(
                    Detection(
                        row=index + 1,
                        label=labels.name_of(it.class_id),
                        class_id=it.class_id,
                        score=it.score,
                        box=it.box,
                    )
                    for it, index in zip(boxes, numbers, strict=True)
                ),
                hidden=len(run.found) - len(boxes),
                image=as_webp(run.pixels),
            )
            for run, boxes, numbers in zip(runs, shown, indices, strict=True)
        ),
        rows=tuple(
            MatchRow(
                row=row,
                label=labels.name_of(it.first.class_id),
                class_id=it.first.class_id,
                pixels=it.first.box.scaled(height, width),
                matches=it.matches,
            )
            for row, it in enumerate(objects, start=1)
        ),
        raw=tuple(_raw_rows(number, it, it.graph, labels) for it in ran if it.graph is not None),
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    title: str
    file: str
    is_graph: bool
    found: tuple[FoundBox, ...]
    pixels: NDArray[np.uint8]


def _runs(number: int, ran: _Ran) -> Iterator[_Run]:
    """Yield what the frozen graph and the file detect in an image."""
    name, pixels = ran.subject.name, ran.pixels[number]
    if ran.graph is not None:
        found = ran.graph.detections[number]
        yield _Run(title=f"{name} frozen graph", file=name, is_graph=True, found=found, pixels=pixels)
    seen = as_seen(pixels, ran.subject.pixels)
    yield _Run(title=f"{name} file", file=name, is_graph=False, found=ran.detections[number], pixels=seen)


def _raw_rows(number: int, ran: _Ran, graph: _RanGraph, labels: Labels) -> RawRows:
    boxes, classes = (outputs[number].astype(np.float64) for outputs in graph.run.graph_outputs)
    background = classes.shape[1] - ran.subject.class_count
    scores = classes[:, background:]
    best = scores.argmax(axis=1)
    order = np.argsort(-scores.max(axis=1), kind="stable")[:RAW_ROWS].tolist()
    found = ran.classes[number][:, background:]
    return RawRows(
        file=ran.subject.name,
        anchors=len(boxes),
        largest_score_difference=float(np.abs(found - scores).max()),
        largest_box_difference=float(np.abs(ran.boxes[number] - boxes).max()),
        rows=tuple(
            RawRow(
                anchor=anchor,
                label=labels.name_of(int(best[anchor]) + 1),
                graph_score=float(scores[anchor, best[anchor]]),
                file_score=float(found[anchor, best[anchor]]),
                graph_box=tuple(boxes[anchor].tolist()),
                file_box=tuple(ran.boxes[number][anchor].tolist()),
            )
            for anchor in order
        ),
    )
