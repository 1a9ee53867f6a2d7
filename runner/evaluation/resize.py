"""TensorFlow 1's bilinear resize, which MLPerf Mobile uses; Pillow's and OpenCV's give other results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize_bilinear(pixels: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Resize an image, (height, width, channels), as ``tf.image.resize_bilinear`` does by default.

    The defaults are ``align_corners=false`` and ``half_pixel_centers=false``, in float32: output pixel i gets
    the value at i * (input size / output size). The aspect ratio is not kept.
    """
    image = pixels.astype(np.float32)
    top, bottom, down = _neighbours(image.shape[0], height)
    left, right, along = _neighbours(image.shape[1], width)
    along = along[:, np.newaxis]
    upper = image[top][:, left] + (image[top][:, right] - image[top][:, left]) * along
    lower = image[bottom][:, left] + (image[bottom][:, right] - image[bottom][:, left]) * along
    return np.asarray(upper + (lower - upper) * down[:, np.newaxis, np.newaxis], np.float32)


def _neighbours(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the two input positions around each output position, and the fraction between them."""
    at = np.arange(wanted, dtype=np.float32) * (np.float32(size) / np.float32(wanted))
    first = np.floor(at).astype(np.int64)
    return first, np.minimum(first + 1, size - 1), at - first.astype(np.float32)
