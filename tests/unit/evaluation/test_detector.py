"""Which files are detectors, and how images are preprocessed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.errors import UsageError
from runner.evaluation.detector import ImageInput, open_detector
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

FP32, UINT8 = TINY_DETECTOR / "fp32.run0.tflite", TINY_DETECTOR / "uint8.run0.tflite"
SHAPE = struct.pack("<5i", 4, 1, 8, 8, 3)


def test_both_kinds_of_input_are_recognised() -> None:
    assert open_detector(FP32).input == ImageInput(height=8, width=8, is_float=True)
    assert open_detector(UINT8).input == ImageInput(height=8, width=8, is_float=False)
    assert open_detector(UINT8).class_count == 2


def test_float_input_is_from_minus_one_to_one_and_uint8_has_the_pixels() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, 3:] = 255
    feed = ImageInput(height=2, width=2, is_float=True).feed(pixels)
    assert feed.shape == (1, 2, 2, 3)
    assert feed.dtype == np.float32
    assert feed[0, :, :, 0].tolist() == [[-1, 1], [-1, 1]]
    feed = ImageInput(height=2, width=2, is_float=False).feed(pixels)
    assert feed.dtype == np.uint8
    assert feed[0, :, :, 0].tolist() == [[0, 255], [0, 255]]


def test_interpolated_pixels_are_truncated_as_in_mlperf_mobile() -> None:
    pixels = np.array([[[0] * 3, [3] * 3]], np.uint8)
    feed = ImageInput(height=1, width=4, is_float=False).feed(pixels)
    assert feed[0, 0, :, 0].tolist() == [0, 1, 3, 3]


def test_a_file_without_the_operator_is_refused_with_its_outputs() -> None:
    with pytest.raises(UsageError, match=r"does not end in .*: boxes \(float32 \[1, 4, 4\]\), classes"):
        open_detector(TINY_DETECTOR / "no_post_processing.tflite")


@pytest.mark.parametrize(
    ("source", "old", "new", "message"),
    [
        (FP32, SHAPE, struct.pack("<5i", 4, 1, 8, 8, 1), r"one RGB image .* \(float32 \[1, 8, 8, 1\]\)"),
        (FP32, SHAPE, struct.pack("<5i", 4, 2, 8, 8, 3), r"one RGB image .* \(float32 \[2, 8, 8, 3\]\)"),
        (
            *(UINT8, struct.pack("<If", 1, 0.0078125), struct.pack("<If", 1, 1.0)),
            r"is not quantized like pixels: normalized_input_image_tensor .*, scale 1, zero point 128\)",
        ),
        (
            *(UINT8, struct.pack("<Iq", 1, 128), struct.pack("<Iq", 1, 120)),
            r"is not quantized like pixels: .* zero point 120\)",
        ),
        (FP32, b"num_classes", b"num_klasses", "do not state num_classes"),
    ],
)
def test_another_kind_of_input_is_refused_with_what_it_is(
    tmp_path: Path, source: Path, old: bytes, new: bytes, message: str
) -> None:
    other = tmp_path / "other.tflite"
    content = source.read_bytes()
    assert old in content
    other.write_bytes(content.replace(old, new))
    with pytest.raises(UsageError, match=message) as caught:
        open_detector(other)
    assert str(other) in caught.value.message
