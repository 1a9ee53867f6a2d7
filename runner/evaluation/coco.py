"""COCO's twelve statistics, computed by faster-coco-eval; the reference is pycocotools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class CocoStatistics:
    """Average precision (ap) and recall (ar); -1 if the ground truth has no boxes of the size."""

    ap: float
    ap_50: float
    ap_75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float


def coco_statistics(
    annotations: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> CocoStatistics:
    """Evaluate detections in COCO's results format; all must be in images of the ``annotations``."""
    from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped] # ships no types

    truth = COCO(_copied(annotations))
    found = truth.loadRes([dict(each) for each in detections])
    evaluation = COCOeval_faster(truth, found, "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return CocoStatistics(
        **dict(zip(CocoStatistics.__annotations__, map(float, evaluation.stats), strict=False))
    )


def _copied(annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the parts of the annotations that the library modifies."""
    return {**annotations, "annotations": [dict(each) for each in annotations["annotations"]]}
