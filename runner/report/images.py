"""The images on a page (the user's, or generated ones), and how a file sees them."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from runner.evaluation.images import open_image
from runner.evaluation.resize import resize_bilinear
from runner.evaluation.shapes import draw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from runner.report.data import PixelRange

GENERATED_SEED: Final = 7
GENERATED_COUNT: Final = 3
WEBP_QUALITY: Final = 82
SMALLEST_SIDE: Final = 256
"""A smaller image is enlarged here, because a browser would smooth it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An RGB image of shape (height, width, 3); ``contents`` describes what a generated image shows."""

    name: str
    pixels: NDArray[np.uint8]
    contents: str | None = None

    def resized(self, height: int, width: int) -> NDArray[np.uint8]:
        """Return the pixels resized to an input and truncated to integers, as `detect` feeds a uint8 file."""
        return resize_bilinear(self.pixels, height, width).astype(np.uint8)


def user_images(paths: Sequence[Path]) -> tuple[Source, ...]:
    """Open images.

    Raises:
        UsageError: one of them cannot be read as an image.
    """
    return tuple(Source(name=path.name, pixels=open_image(path)) for path in paths)


def generated_images() -> tuple[Source, ...]:
    """Draw images like those of `samples`; they are the same on every machine."""
    return tuple(_generated(number) for number in range(1, GENERATED_COUNT + 1))


def _generated(number: int) -> Source:
    image = draw(GENERATED_SEED, number)
    counts = Counter(shape.label for shape in image.shapes)
    contents = ", ".join(
        f"{count} {label}{'s' if count > 1 else ''}" for label, count in sorted(counts.items())
    )
    return Source(name=f"Generated image {number}", pixels=image.pixels, contents=contents)


def as_seen(pixels: NDArray[np.uint8], meaning: PixelRange | None) -> NDArray[np.uint8]:
    """Return how an image looks to a model that was trained with -1 for black and 1 for white.

    ``meaning`` contains the values that the input gives the pixels 0 and 255; None means -1 and 1.
    """
    if meaning is None or meaning.is_expected:
        return pixels
    reals = meaning.low + pixels.astype(np.float64) / 255 * (meaning.high - meaning.low)
    return np.clip(np.rint((reals + 1) * 127.5), 0, 255).astype(np.uint8)


def as_webp(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image as WebP; small images are enlarged by an integer factor, without smoothing."""
    from PIL import Image

    height, width, _ = pixels.shape
    times = max(1, -(-SMALLEST_SIDE // min(height, width)))
    enlarged = Image.fromarray(pixels).resize((width * times, height * times), Image.Resampling.NEAREST)
    target = io.BytesIO()
    enlarged.save(target, "WEBP", quality=WEBP_QUALITY, method=4)
    return target.getvalue()
