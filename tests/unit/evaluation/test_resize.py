"""TensorFlow 1's bilinear resize."""

from __future__ import annotations

import numpy as np

from runner.evaluation.resize import resize_bilinear


def test_an_enlarged_ramp_starts_at_its_first_pixel() -> None:
    # With half-pixel centres it would be 0, 0.5, 1.5, 2; with aligned corners 0, 2/3, 4/3, 2.
    ramp = np.array([[[0], [2]]], np.uint8)
    assert resize_bilinear(ramp, 1, 4)[0, :, 0].tolist() == [0, 1, 2, 2]


def test_a_reduced_picture_takes_the_pixels_at_whole_steps() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert np.array_equal(resize_bilinear(pixels, 2, 3), pixels[::2, ::2])


def test_the_same_size_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(resize_bilinear(pixels, 5, 7), pixels)
