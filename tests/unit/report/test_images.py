"""How an image is shown: as the model sees it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from runner.report.data import PixelRange
from runner.report.images import SMALLEST_SIDE, as_seen, as_webp, generated_images

PIXELS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)


def test_the_right_range_shows_the_image_itself() -> None:
    expected = PixelRange(low=-1.0, high=0.9921875, is_expected=True)
    assert as_seen(PIXELS, expected) is PIXELS
    assert as_seen(PIXELS, None) is PIXELS


def test_an_input_from_0_to_1_shows_black_as_grey() -> None:
    seen = as_seen(PIXELS, PixelRange(low=0.0, high=1.0, is_expected=False))
    assert (int(seen.min()), int(seen.max())) == (128, 255)


def test_what_lies_beyond_white_is_white() -> None:
    seen = as_seen(PIXELS, PixelRange(low=0.0, high=255.0, is_expected=False))
    assert (int(seen.min()), int(np.median(seen)), int(seen.max())) == (128, 255, 255)


def test_small_images_are_enlarged_by_a_whole_number() -> None:
    with Image.open(io.BytesIO(as_webp(PIXELS))) as image:
        assert image.format == "WEBP"
        assert image.size == (SMALLEST_SIDE, SMALLEST_SIDE)


def test_generated_images_say_what_they_show() -> None:
    (first, *rest) = generated_images()
    assert len(rest) == 2
    assert first.contents == "3 circles, 1 square"
    assert first.pixels.shape == (128, 128, 3)
