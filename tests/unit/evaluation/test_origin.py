"""The recipe of a file, and its published accuracy."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.evaluation import origin
from runner.evaluation.annotations import VAL2017, Annotation, Annotations, Category, Image
from runner.evaluation.coco import CocoStatistics
from runner.evaluation.detector import open_detector
from runner.evaluation.evaluate import Evaluation, Latency
from runner.evaluation.origin import Origin, compared_with_published, find_origin
from runner.recipes.recipe import load_recipe
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

FP32 = TINY_DETECTOR / "fp32.run0.tflite"
RECIPE = """
title = "it"

[variants.fp32]
inference_type = "FLOAT"

[variants.fp32.published]
sha256 = "{sha256}"
"""


def test_it_is_the_one_that_the_provenance_beside_the_file_names(delivered: Path) -> None:
    (file,) = (it for it in delivered.glob("*.tflite") if not it.name.endswith(".raw.tflite"))
    found = find_origin(open_detector(file), None)
    assert found is not None
    assert (found.recipe, found.variant.name) == (load_recipe(), "fp32")
    assert found.because == f"{delivered / 'provenance.json'} names this recipe"
    file.write_bytes(file.read_bytes() + b"\0")  # no longer the file that the provenance is of
    assert find_origin(open_detector(file), None) is None


def test_it_is_the_one_whose_published_digest_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    sha256 = hashlib.sha256(FP32.read_bytes()).hexdigest()
    (folder / "recipe.toml").write_text(RECIPE.format(sha256=sha256), "utf-8")
    monkeypatch.setattr(origin, "recipe_names", lambda: (str(folder),))
    found = find_origin(open_detector(FP32), None)
    assert found is not None
    assert (found.recipe.name, found.because) == ("published", "it is the published file")
    assert find_origin(open_detector(TINY_DETECTOR / "fp32.run1.tflite"), None) is None


def like_val2017() -> Annotations:
    images, boxes, categories = VAL2017
    return Annotations(
        images=tuple(Image(id=it, file_name="a.jpg", width=9, height=9) for it in range(images)),
        annotations=tuple(
            Annotation(id=it, image_id=0, category_id=1, bbox=(0, 0, 1, 1)) for it in range(boxes)
        ),
        categories=tuple(Category(id=it, name="it") for it in range(categories)),
    )


@pytest.mark.parametrize(("variant", "value"), [("fp32", 0.285), ("uint8", 0.278)])
def test_mobiledets_numbers_are_compared_on_a_set_like_val2017(variant: str, value: float) -> None:
    statistics = dict.fromkeys(CocoStatistics.__annotations__, 0.0)
    result = Evaluation(
        file=FP32,
        coco=replace(CocoStatistics(**statistics), ap=0.25),
        mlperf_map=0.3,
        latency=Latency(
            median_ms=1, p90_ms=1, load_ms=1, threads=1, xnnpack=True, workers=1, machine="one core"
        ),
        detection_count=0,
        kept_count=0,
        detections=(),
    )
    found = Origin(recipe=load_recipe(), variant=load_recipe().variants[variant], because="")
    on_val2017, on_minival = compared_with_published(found, like_val2017(), result)
    assert (on_val2017.value, on_val2017.is_same_set) == (value, True)
    assert "the evaluator is not named" in on_val2017.source
    assert on_val2017.coco_difference == 0.25 - value
    assert on_val2017.mlperf_difference == 0.3 - value
    assert on_minival.is_same_set is False
    first, _ = compared_with_published(found, like_val2017().first(10), result)
    assert first.is_same_set is False
