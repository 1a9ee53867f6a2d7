"""MLPerf Mobile's mean average precision: cases computed by hand."""

from __future__ import annotations

import math

import pytest

from runner.evaluation.mlperf import ScoredBox, mean_average_precision

WHOLE = (0.0, 0.0, 1.0, 1.0)
FAR = (2.0, 2.0, 3.0, 3.0)


def box(
    corners: tuple[float, float, float, float], score: float = 0.0, *, category: int = 1, image: int = 0
) -> ScoredBox:
    return ScoredBox(image=image, category=category, corners=corners, score=score)


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        ([box(WHOLE)], [box(WHOLE, 0.9)], 1.0),
        ([box(WHOLE)], [], 0.0),
        # Precision 1/2 at every recall: the wrong one comes first.
        ([box(WHOLE)], [box(FAR, 0.9), box(WHOLE, 0.5)], 0.5),
        # The second finding of one box is wrong, but recall is complete before it.
        ([box(WHOLE)], [box(WHOLE, 0.9), box(WHOLE, 0.5)], 1.0),
        # Half of the boxes found: the 51 recall points from 0 to 0.5.
        ([box(WHOLE), box(WHOLE, image=1)], [box(WHOLE, 0.9)], 51 / 101),
        # A class that only the detector knows counts 0.
        ([box(WHOLE)], [box(WHOLE, 0.9), box(WHOLE, 0.9, category=2)], 0.5),
        # In another picture, the same box is another one.
        ([box(WHOLE)], [box(WHOLE, 0.9, image=1)], 0.0),
    ],
    ids=["right", "nothing", "wrong first", "twice", "half", "unknown class", "other picture"],
)
def test_cases_by_hand(truth: list[ScoredBox], found: list[ScoredBox], expected: float) -> None:
    assert mean_average_precision(truth, found) == pytest.approx(expected, rel=1e-6)


def test_a_box_counts_up_to_its_overlap() -> None:
    found = [box((0.0, 0.0, 0.62, 1.0), 0.9)]
    assert mean_average_precision([box(WHOLE)], found) == pytest.approx(3 / 10)


def test_without_boxes_and_detections_there_is_no_number() -> None:
    assert math.isnan(mean_average_precision([], []))
