"""Run a detector on a set of pictures with annotations, and score what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from runner.errors import UsageError
from runner.evaluation.coco import CocoStatistics, coco_statistics
from runner.evaluation.mlperf import ScoredBox, mean_average_precision
from runner.evaluation.pictures import open_picture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from runner.evaluation.annotations import Annotations, Image
    from runner.evaluation.detector import Detector, FoundBox


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long LiteRT's ``invoke`` took for a picture, on this machine."""

    median_ms: float
    p90_ms: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result for a file; ``detections`` are in COCO's format of results."""

    file: Path
    coco: CocoStatistics
    mlperf_map: float
    latency: Latency
    detection_count: int
    detections: tuple[Mapping[str, Any], ...] = field(repr=False)


def evaluate(
    detector: Detector, truth: Annotations, folder: Path, *, threads: int, timeout_s: float
) -> Evaluation:
    """Run a detector on all pictures, without their EXIF orientation: annotations refer to stored pixels.

    Raises:
        UsageError: a picture is missing, cannot be read, or has another size than the set says.
        IntegrityError: LiteRT rejects the file, crashes on it, or does not finish in time.
    """
    found: list[tuple[Image, FoundBox]] = []
    seconds = []
    with detector.running(threads=threads, timeout_s=timeout_s) as running:
        for image in truth.images:
            run = running.detect(_pixels(image, folder))
            seconds.append(run.seconds)
            found += [(image, box) for box in run.boxes]
    detections = tuple(_coco_result(image, box) for image, box in found)
    median, p90 = np.percentile(np.array(seconds) * 1000, (50, 90)).tolist()
    return Evaluation(
        file=detector.path,
        coco=coco_statistics(_coco_set(truth), detections),
        mlperf_map=mean_average_precision(_true_boxes(truth), [_scored(*each) for each in found]),
        latency=Latency(median_ms=median, p90_ms=p90),
        detection_count=len(found),
        detections=detections,
    )


def _pixels(image: Image, folder: Path) -> NDArray[np.uint8]:
    path = folder / image.file_name
    pixels = open_picture(path, follow_orientation=False)
    height, width, _ = pixels.shape
    if (width, height) != (image.width, image.height):
        raise UsageError(
            f"{path} has {width} x {height} pixels; the annotations say {image.width} x {image.height}"
        )
    return pixels


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
