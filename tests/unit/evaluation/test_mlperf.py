"""MLPerf Mobile's mean average precision, compared with hand-computed cases and a second implementation."""

from __future__ import annotations

import math
import random

import pytest

from runner.evaluation.mlperf import ScoredBox, mean_average_precision
from tests.unit.evaluation.plain_mlperf import PlainBox, plain_map

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
        # In another image, the same box is another one.
        ([box(WHOLE)], [box(WHOLE, 0.9, image=1)], 0.0),
    ],
    ids=["right", "nothing", "wrong first", "twice", "half", "unknown class", "other image"],
)
def test_cases_by_hand(truth: list[ScoredBox], found: list[ScoredBox], expected: float) -> None:
    assert mean_average_precision(truth, found) == pytest.approx(expected, rel=1e-6)


def test_a_box_counts_up_to_its_overlap() -> None:
    found = [box((0.0, 0.0, 0.62, 1.0), 0.9)]
    assert mean_average_precision([box(WHOLE)], found) == pytest.approx(3 / 10)


def test_without_boxes_and_detections_there_is_no_number() -> None:
    assert math.isnan(mean_average_precision([], []))


def test_three_classes_and_two_pictures_by_hand() -> None:
    """Every number is worked out in the comments; the IoU of each pair is exact in float32.

    Class 1 has two boxes. Best score first: a wrong detection, one of IoU 0.75 with the first box, one of
    IoU 1 with the second.

    * IoU 0.50 to 0.75, six thresholds: wrong, right, right. Precision 1/2 at recall 1/2, 2/3 at recall 1. So
      the best precision at any recall or a higher one is 2/3: AP 2/3.
    * IoU 0.80 to 0.95, four thresholds: wrong, wrong, right. Precision 1/3 at recall 1/2, the 51 points from
      0 to 0.50; nothing above: AP 51/101 * 1/3.

    Class 2 has one box and no detection: AP 0. Class 3 has a detection and no box: AP 0. Class 4 has
    neither, and is left out.
    """
    truth = [box(WHOLE, category=1, image=0), box(WHOLE, category=1, image=1), box(WHOLE, category=2)]
    found = [
        box(FAR, 0.9, category=1, image=0),
        box((0.0, 0.0, 0.75, 1.0), 0.8, category=1, image=0),
        box(WHOLE, 0.7, category=1, image=1),
        box(WHOLE, 0.6, category=3),
    ]
    class_1 = (6 * 2 / 3 + 4 * 51 / 101 / 3) / 10
    assert mean_average_precision(truth, found) == pytest.approx(class_1 / 3, rel=1e-6)


def random_set(seed: int) -> tuple[list[PlainBox], list[PlainBox]]:
    """Crowded images: boxes that overlap, several detections for a box, wrong classes, tied scores."""
    rng = random.Random(seed)
    truth, found = [], []
    for image in range(12):
        for _ in range(rng.randrange(8)):
            top, left = rng.random() * 0.7, rng.random() * 0.7
            corners = (top, left, top + 0.05 + rng.random() / 3, left + 0.05 + rng.random() / 3)
            category = rng.randrange(1, 6)
            if category != 5:  # class 5 is detected and in no image
                truth.append(PlainBox(image, category, corners))
            for _ in range(rng.randrange(4)):
                moved = tuple(edge + rng.gauss(0, 0.02) for edge in corners)
                kind = category if rng.random() < 0.8 else rng.randrange(1, 6)
                score = round(rng.random(), 2) if seed % 2 else rng.random()
                found.append(PlainBox(image, kind, (moved[0], moved[1], moved[2], moved[3]), score))
    return truth, found


def scored(plain: PlainBox) -> ScoredBox:
    return ScoredBox(image=plain.image, category=plain.category, corners=plain.corners, score=plain.score)


@pytest.mark.parametrize("seed", range(10))
def test_it_equals_an_independent_implementation(seed: int) -> None:
    """The averages there are exact; here they are sums in float32, of 101 terms at most 1 and of 50."""
    truth, found = random_set(seed)
    ours = mean_average_precision(map(scored, truth), map(scored, found))
    assert 0.05 < ours < 0.95
    assert ours == pytest.approx(plain_map(truth, found), rel=(101 + 50) * 2**-24)
