"""Mean average precision as MLPerf Mobile's app computes it.

The app calls TensorFlow's TFLite evaluation stages: ``object_detection_average_precision_stage.cc`` and
``image_metrics.cc`` in tensorflow/lite/tools/evaluation/stages. All numbers are float32. Unlike COCO's
evaluation, this one has no rules for crowds, areas or the number of detections.
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
    """A box in an image; the score of a ground truth box is not used.

    ``corners`` are ymin, xmin, ymax, xmax, relative to the image.
    """

    image: int
    category: int
    corners: tuple[float, float, float, float]
    score: float = 0.0


def mean_average_precision(truth: Iterable[ScoredBox], found: Iterable[ScoredBox]) -> float:
    """Return the mean average precision over all classes and IoU thresholds.

    The result is NaN if ``truth`` and ``found`` are both empty. A class without true boxes counts as 0.
    """
    truth_of, found_of = _by_category(truth), _by_category(found)
    classes = [
        _Class(truth_of.get(category, ()), found_of.get(category, ()))
        for category in sorted(truth_of.keys() | found_of.keys())
    ]
    total = ZERO
    for threshold in IOU_THRESHOLDS:
        for each in classes:
            total += each.average_precision(threshold)
    return float(total / np.float32(len(IOU_THRESHOLDS) * len(classes))) if classes else math.nan


def _by_category(boxes: Iterable[ScoredBox]) -> dict[int, list[ScoredBox]]:
    grouped = defaultdict(list)
    for box in boxes:
        grouped[box.category].append(box)
    return grouped


class _Class:
    """The detections of a class, best score first, each with its IoU with every true box in its image."""

    def __init__(self, truth: Sequence[ScoredBox], found: Sequence[ScoredBox]) -> None:
        self._truth_count = len(truth)
        places = defaultdict(list)
        for place, box in enumerate(truth):
            places[box.image].append(place)
        corners = {
            image: np.array([truth[place].corners for place in mine], np.float32)
            for image, mine in places.items()
        }
        self._overlaps = [
            list(zip(places[box.image], _ious(box.corners, corners[box.image]), strict=True))
            if box.image in corners
            else []
            for box in sorted(found, key=lambda box: -np.float32(box.score))
        ]

    def average_precision(self, threshold: np.float32) -> np.float32:
        """Return the average precision at an IoU threshold.

        Each detection, best score first, is matched to the true box with the largest IoU among those that
        are not matched yet.
        """
        if not self._truth_count:
            return ZERO
        taken: set[int] = set()
        curve = []
        for rank, overlaps in enumerate(self._overlaps, start=1):
            free = [(iou, place) for place, iou in overlaps if place not in taken]
            iou, place = max(free, key=lambda it: it[0], default=(ZERO, -1))
            if place >= 0 and iou >= threshold:
                taken.add(place)
            correct = np.float32(len(taken))
            curve.append((correct / np.float32(rank), correct / np.float32(self._truth_count)))
        return _area(curve)


def _area(curve: Sequence[tuple[np.float32, np.float32]]) -> np.float32:
    """Return the mean, over the recall points, of the best precision at that recall or any higher recall."""
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


def _ious(one: Sequence[float], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the intersection over union of a box with others, (count, 4); 0 if both have no area."""
    box = np.asarray(one, np.float32)
    shared = _sizes(np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:]))
    unions = _sizes(box[:2], box[2:]) + _sizes(others[:, :2], others[:, 2:]) - shared
    ious: NDArray[np.float32] = np.divide(shared, unions, out=np.zeros_like(shared), where=unions > 0)
    return ious


def _sizes(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = np.maximum(ZERO, high - low)
    sizes: NDArray[np.float32] = sides[..., 0] * sides[..., 1]
    return sizes
