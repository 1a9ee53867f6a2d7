"""The accuracy of a job's result is that of `evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.batch.outcome import Outcome, State
from runner.batch.run_job import add_accuracy
from runner.errors import UsageError
from runner.evaluation.annotations import ImageSet
from runner.evaluation.detector import open_detector
from runner.evaluation.evaluate import evaluate
from runner.evaluation.set_run import RunSettings
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.drawn_set import drawn_set  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

GOOD = Outcome(name="a", state=State.KEPT, file=str(TINY_DETECTOR / "fp32.run0.tflite"), sha256="5" * 64)


def test_each_column_has_its_number(drawn_set: Path) -> None:  # noqa: F811 - the fixture
    image_set = ImageSet(annotations=drawn_set / "set.json", images=drawn_set)
    outcome = add_accuracy(GOOD, image_set)
    detector = open_detector(TINY_DETECTOR / "fp32.run0.tflite")
    result = evaluate(detector, image_set.read(), drawn_set, RunSettings())
    numbers = (outcome.coco_ap, outcome.coco_ap_50, outcome.mlperf_map, outcome.median_ms)
    assert numbers == (result.coco.ap, result.coco.ap_50, result.mlperf_map, result.latency.median_ms)
    assert len(set(numbers)) == 4
    assert (outcome.state, outcome.file, outcome.sha256) == (GOOD.state, GOOD.file, GOOD.sha256)


def test_without_images_or_a_result_nothing_is_added(tmp_path: Path) -> None:
    assert add_accuracy(GOOD, None) == GOOD
    nothing = ImageSet(annotations=tmp_path / "none.json", images=tmp_path)
    failed = Outcome(name="a", state=State.FAILED, exit_code=5)
    assert add_accuracy(failed, nothing) == failed
    with pytest.raises(UsageError, match="cannot read the annotations"):
        add_accuracy(GOOD, nothing)
