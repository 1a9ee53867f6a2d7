"""Mean average precision as MLPerf Mobile's app computes it.

It calls TensorFlow's TFLite evaluation stages: ``object_detection_average_precision_stage.cc`` and
``image_metrics.cc`` in tensorflow/lite/tools/evaluation/stages. All numbers are float32. Unlike COCO's
evaluation it has no rule for crowds, areas or the number of detections.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

IOU_THRESHOLDS: Final = tuple(np.float32(float(np.float32(0.5)) + step * 0.05) for step in range(10))
ZERO: Final[np.float32] = np.float32(0)
LAST_RECALL_POINT: Final = 100
"""Recall is sampled at 0/100, 1/100, … 100/100: 101 points."""


@dataclass(frozen=True, kw_only=True)
class ScoredBox:
    """A box in a picture; of the ground truth, the score has no meaning.

    ``corners`` are ymin, xmin, ymax, xmax, relative to the picture.
    """

    image: int
    category: int
    corners: tuple[float, float, float, float]
    score: float = 0.0


def mean_average_precision(truth: Iterable[ScoredBox], found: Iterable[ScoredBox]) -> float:
    """Return the mean over all classes and IoU thresholds; NaN if there are neither boxes nor detections.

    A class that is detected and absent from the ground truth counts 0; one that is in neither is left out.
    """
    truth_of, found_of = _by_category(truth), _by_category(found)
    total, count = ZERO, 0
    for threshold in IOU_THRESHOLDS:
        for category in sorted(truth_of.keys() | found_of.keys()):
            total += _average_precision(truth_of.get(category, []), found_of.get(category, []), threshold)
            count += 1
    return float(total / np.float32(count)) if count else math.nan


def _by_category(boxes: Iterable[ScoredBox]) -> dict[int, list[ScoredBox]]:
    grouped = defaultdict(list)
    for box in boxes:
        grouped[box.category].append(box)
    return grouped


def _average_precision(
    truth: Sequence[ScoredBox], found: Sequence[ScoredBox], threshold: np.float32
) -> np.float32:
    """Average the precision of one class; each detection, best first, takes the free box it overlaps most."""
    if not truth:
        return ZERO
    free: dict[int, list[NDArray[np.float32]]] = defaultdict(list)
    for box in truth:
        free[box.image].append(np.asarray(box.corners, np.float32))
    correct, curve = 0, []
    for rank, detection in enumerate(sorted(found, key=lambda box: -np.float32(box.score)), start=1):
        candidates, corners = free[detection.image], np.asarray(detection.corners, np.float32)
        overlaps = [_iou(corners, each) for each in candidates]
        if overlaps and max(overlaps) >= threshold:
            del candidates[overlaps.index(max(overlaps))]
            correct += 1
        curve.append((np.float32(correct) / np.float32(rank), np.float32(correct) / np.float32(len(truth))))
    return _area(curve)


def _area(curve: Sequence[tuple[np.float32, np.float32]]) -> np.float32:
    """Average, over the recall points, the best precision at that recall or a higher one."""
    best, total, point = ZERO, ZERO, LAST_RECALL_POINT
    for precision, recall in reversed(curve):
        while recall * np.float32(LAST_RECALL_POINT) < point:
            total += best
            point -= 1
        best = max(best, precision)
    for _ in range(point + 1):
        total += best
    mean: np.float32 = total / np.float32(LAST_RECALL_POINT + 1)
    return mean


def _iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> np.float32:
    shared = _size(np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:]))
    union = _size(one[:2], one[2:]) + _size(other[:2], other[2:]) - shared
    return shared / union if union > 0 else ZERO


def _size(low: NDArray[np.float32], high: NDArray[np.float32]) -> np.float32:
    height, width = np.maximum(ZERO, high - low)
    size: np.float32 = height * width
    return size
