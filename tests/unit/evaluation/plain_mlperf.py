"""MLPerf Mobile's average precision, written from its description for the tests alone.

It shares no code with the program: plain loops, no arrays, no precision-recall curve. Where the description
asks for float32, a number is rounded to it after each operation; the averages are exact fractions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Corners = tuple[float, float, float, float]
"""ymin, xmin, ymax, xmax."""


@dataclass(frozen=True)
class PlainBox:
    """A box of the ground truth, or a detection."""

    image: int
    category: int
    corners: Corners
    score: float = 0.0


def f32(number: float) -> float:
    """Round to float32."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def plain_map(truth: Sequence[PlainBox], found: Sequence[PlainBox]) -> float:
    """Average over IoU 0.50, 0.55, … 0.95 and over the classes of the ground truth or the detections."""
    classes = {box.category for box in truth} | {box.category for box in found}
    precisions = [
        class_precision(
            [box for box in truth if box.category == category],
            [box for box in found if box.category == category],
            f32(0.5 + 0.05 * step),
        )
        for step in range(10)
        for category in classes
    ]
    return float(sum(precisions) / len(precisions))


def class_precision(truth: Sequence[PlainBox], found: Sequence[PlainBox], threshold: float) -> Fraction:
    """Average over 101 recall points the best precision at this recall or a higher one."""
    if not truth:
        return Fraction(0)
    hits = matched(truth, found, threshold)
    points = []  # recall and precision after each detection
    for count in range(1, len(hits) + 1):
        right = sum(hits[:count])
        points.append((f32(right / len(truth)), f32(right / count)))
    total = Fraction(0)
    for level in range(101):
        # Recall times 100 is compared in float32: 29 of 100 boxes reach the point 0.29 or they do not.
        reached = [precision for recall, precision in points if f32(recall * 100) >= level]
        total += Fraction(max(reached, default=0.0))
    return total / 101


def matched(truth: Sequence[PlainBox], found: Sequence[PlainBox], threshold: float) -> list[bool]:
    """Match each detection, best score first, to the unmatched box with the best IoU, if that suffices."""
    taken: set[int] = set()
    hits = []
    for detection in sorted(found, key=lambda box: f32(box.score), reverse=True):
        best, best_iou = -1, -1.0
        for index, box in enumerate(truth):
            if index not in taken and box.image == detection.image:
                overlap = iou(detection.corners, box.corners)
                if overlap > best_iou:
                    best, best_iou = index, overlap
        if best >= 0 and best_iou >= threshold:
            taken.add(best)
            hits.append(True)
        else:
            hits.append(False)
    return hits


def iou(one: Corners, other: Corners) -> float:
    """Intersection over union, in float32; 0 for two boxes without area."""
    a, b = [f32(edge) for edge in one], [f32(edge) for edge in other]
    height = max(0.0, f32(min(a[2], b[2]) - max(a[0], b[0])))
    width = max(0.0, f32(min(a[3], b[3]) - max(a[1], b[1])))
    shared = f32(height * width)
    union = f32(f32(area(a) + area(b)) - shared)
    return f32(shared / union) if union > 0 else 0.0


def area(corners: Sequence[float]) -> float:
    """Return height times width, in float32."""
    height = max(0.0, f32(corners[2] - corners[0]))
    width = max(0.0, f32(corners[3] - corners[1]))
    return f32(height * width)
