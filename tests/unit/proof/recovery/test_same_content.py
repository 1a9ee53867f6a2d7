"""What counts as the same content, and how the rest is put into words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.proof.recovery.same_content import LATER_OPTIONS, is_same_content, reasons
from runner.tflite.diff import diff_models
from runner.tflite.model import read_model
from tests.altered import (
    with_other_layout,
    with_other_metadata,
    with_other_options,
    with_other_scale,
    with_other_weight,
    with_other_zero_point,
    with_renamed_tensor,
    without_options,
    without_recorded_ranges,
)
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

MADE = (TINY_DETECTOR / "uint8.run0.tflite").read_bytes()
ACTIVATION = "Relu6"


def judged(given: bytes) -> tuple[bool, str]:
    model = read_model(given)
    found = diff_models(read_model(MADE), model)
    return is_same_content(found), "\n".join(reasons(found, model))


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (with_other_layout, "its layout in the file differs"),
        (with_other_metadata, "min_runtime_version: 1.5.0 made here, 9.9.9 in the file"),
        (lambda content: without_options(content, LATER_OPTIONS), "use_regular_nms: the file lacks it"),
        (lambda content: with_renamed_tensor(content, "boxes/shape", "shape_1"), "name boxes/shape"),
        (without_recorded_ranges, "range Relu6: maxima"),
    ],
)
def test_what_does_not_change_what_a_file_computes_is_the_same_content(
    alter: Callable[[bytes], bytes], reason: str
) -> None:
    is_same, text = judged(alter(MADE))
    assert is_same
    assert reason in text


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda content: with_other_scale(content, ACTIVATION), f"scale {ACTIVATION}"),
        (lambda content: with_other_zero_point(content, ACTIVATION), f"zero point {ACTIVATION}"),
        (lambda content: with_other_weight(content, CONV_WEIGHTS), f"weights of {CONV_WEIGHTS}: 1 of 108"),
        (
            lambda content: with_other_options(content, {"nms_score_threshold": 0.25}),
            "option TFLite_Detection_PostProcess.nms_score_threshold",
        ),
        (lambda content: without_options(content, frozenset({"h_scale"})), "h_scale: 5.0 made here, None"),
    ],
)
def test_a_fault_is_no_same_content_and_is_named(alter: Callable[[bytes], bytes], reason: str) -> None:
    is_same, text = judged(alter(MADE))
    assert not is_same
    assert reason in text


def test_weights_with_256_integers_are_explained() -> None:
    """One step away, and the integer 0: as in files from a TensorFlow whose weights used it."""
    data = next(it.data for it in read_model(MADE).graphs[0].tensors if it.name == CONV_WEIGHTS)
    start = MADE.index(data)
    lowest = data.index(1)
    given = MADE[: start + lowest] + bytes([0]) + MADE[start + lowest + 1 :]
    _, text = judged(given)
    assert "weights of 1 convolutions use 256 integers" in text
