"""Run a detector on a set of images with annotations and compute its accuracy."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from runner.evaluation.coco import CocoStatistics, coco_statistics
from runner.evaluation.mlperf import ScoredBox, mean_average_precision
from runner.evaluation.set_run import run_on_set
from runner.host.machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.evaluation.annotations import Annotations, Image
    from runner.evaluation.detector import Detector, FoundBox
    from runner.evaluation.set_run import RunSettings, SetRun


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The duration of LiteRT's ``invoke`` for an image on this machine, and how it was measured.

    ``workers`` processes ran in parallel, each with ``threads`` threads.
    """

    median_ms: float
    p90_ms: float
    load_ms: float
    threads: int
    xnnpack: bool
    workers: int
    machine: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result for a file; ``detections`` are in COCO's results format.

    ``kept_count`` is the number of images whose detections were in the cache.
    """

    file: Path
    coco: CocoStatistics
    mlperf_map: float
    latency: Latency
    detection_count: int
    kept_count: int
    detections: tuple[Mapping[str, Any], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The accuracy of a file minus the accuracy of the file ``to``."""

    to: Path
    coco: CocoStatistics
    mlperf_map: float


def evaluate(detector: Detector, truth: Annotations, folder: Path, settings: RunSettings) -> Evaluation:
    """Run a detector on all images of a set and compute its accuracy.

    Raises:
        UsageError: an image cannot be read, or does not have the annotated size.
        IntegrityError: LiteRT rejects the file, crashes on it, or does not finish in time.
    """
    run = run_on_set(detector, truth.images, folder, settings)
    found = [(image, box) for image, each in zip(truth.images, run.runs, strict=True) for box in each.boxes]
    detections = tuple(_coco_result(image, box) for image, box in found)
    return Evaluation(
        file=detector.path,
        coco=coco_statistics(_coco_set(truth), detections),
        mlperf_map=mean_average_precision(_true_boxes(truth), [_scored(*each) for each in found]),
        latency=_latency(run, settings),
        detection_count=len(found),
        kept_count=run.kept_count,
        detections=detections,
    )


def difference(result: Evaluation, to: Evaluation) -> Difference:
    """Return the accuracy in ``result`` minus the accuracy in ``to``; both must be for the same set."""
    pairs = zip(astuple(result.coco), astuple(to.coco), strict=True)
    names = CocoStatistics.__annotations__
    return Difference(
        to=to.file,
        coco=CocoStatistics(**{name: one - other for name, (one, other) in zip(names, pairs, strict=True)}),
        mlperf_map=result.mlperf_map - to.mlperf_map,
    )


def _latency(run: SetRun, settings: RunSettings) -> Latency:
    times_ms = np.array([each.seconds for each in run.runs]) * 1000
    median, p90 = np.percentile(times_ms, (50, 90)).tolist()
    return Latency(
        median_ms=median,
        p90_ms=p90,
        load_ms=run.load_s * 1000,
        threads=settings.threads,
        xnnpack=settings.xnnpack,
        workers=settings.workers,
        machine=describe_machine(),
    )


def _coco_result(image: Image, found: FoundBox) -> dict[str, Any]:
    box = found.box.scaled(image.height, image.width)
    bbox = [box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin]
    return {"image_id": image.id, "category_id": found.class_id, "bbox": bbox, "score": found.score}


def _coco_set(truth: Annotations) -> dict[str, Any]:
    entries: dict[str, Any] = msgspec.to_builtins(truth)
    for entry in entries["annotations"]:
        entry["bbox"] = list(entry["bbox"])
        if entry["area"] is None:
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    return {name: list(each) for name, each in entries.items()}


def _true_boxes(truth: Annotations) -> list[ScoredBox]:
    images = {image.id: image for image in truth.images}
    boxes = []
    for it in truth.annotations:
        image, (left, top, width, height) = images[it.image_id], it.bbox
        corners = (
            *(top / image.height, left / image.width),
            *((top + height) / image.height, (left + width) / image.width),
        )
        boxes.append(ScoredBox(image=image.id, category=it.category_id, corners=corners))
    return boxes


def _scored(image: Image, found: FoundBox) -> ScoredBox:
    box = found.box
    corners = (box.ymin, box.xmin, box.ymax, box.xmax)
    return ScoredBox(image=image.id, category=found.class_id, corners=corners, score=found.score)
