"""COCO's statistics equal those of pycocotools."""

from __future__ import annotations

import contextlib
import io
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest

from runner.evaluation.coco import coco_statistics


def random_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Images without boxes, crowds, tied scores, and detections that are near a box or anywhere."""
    random = np.random.default_rng(seed)
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, 41):
        for _ in range(random.integers(0, 6)):
            box = [*random.uniform(0, 400, 2), *random.uniform(5, 200, 2)]
            category, crowd = int(random.integers(1, 5)), int(random.random() < 0.15)
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                }
            )
            for _ in range(random.integers(0, 4)):
                moved = (np.array(box) + random.normal(0, 5, 4)).clip(1).tolist()
                score = float(np.round(random.random(), 1))
                found.append({"image_id": image, "category_id": category, "bbox": moved, "score": score})
    images = [
        {"id": image, "width": 640, "height": 640, "file_name": f"{image}.jpg"} for image in range(1, 41)
    ]
    categories = [{"id": number, "name": str(number)} for number in range(1, 6)]
    return {"images": images, "categories": categories, "annotations": truth}, found


def evaluation_of_pycocotools(annotations: dict[str, Any], detections: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - it has no types
    from pycocotools.coco import COCO  # type: ignore[import-untyped] # ships no types
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped] # ships no types

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(each) for each in detections]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_they_equal_those_of_pycocotools(seed: int) -> None:
    annotations, detections = random_set(seed)
    ours = coco_statistics(annotations, detections)
    assert list(astuple(ours)) == evaluation_of_pycocotools(annotations, detections).stats.tolist()
    assert 0 < ours.ap < 1


def test_on_any_set_they_differ_by_what_pycocotools_adds_to_the_divisor() -> None:
    """It divides by the rank plus 2**-52, so a first detection that is right has a precision of 1 - 2**-52.

    faster-coco-eval has 1. In some of these sets that changes the last digit of one or two statistics.
    """
    changed = 0
    for seed in range(10):
        annotations, detections = random_set(seed)
        ours = np.array(astuple(coco_statistics(annotations, detections)))
        theirs = evaluation_of_pycocotools(annotations, detections)
        assert np.abs(ours - theirs.stats).max() <= 2**-51
        precision = theirs.eval["precision"]
        assert set(precision[(precision > 1 - 2**-40) & (precision < 1)].tolist()) <= {1 - 2**-52}
        changed += not np.array_equal(ours, theirs.stats)
    assert changed


def test_without_detections_all_are_zero() -> None:
    annotations, _ = random_set(0)
    assert coco_statistics(annotations, []).ap == 0
