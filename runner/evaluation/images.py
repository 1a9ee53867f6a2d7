"""Open images of all formats as RGB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from runner.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image


def open_image(path: Path, *, follow_orientation: bool = True) -> NDArray[np.uint8]:
    """Return the pixels of an image as RGB, (height, width, 3).

    Transparent parts become white. With ``follow_orientation``, the image is rotated according to its EXIF
    data.

    Raises:
        UsageError: there is no such file, or it is not a complete image.
    """
    return decode_image(read_image(path), path, follow_orientation=follow_orientation)


def read_image(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as problem:
        raise UsageError(f"cannot read the image {path}: {problem.strerror}") from problem


def decode_image(content: bytes, path: Path, *, follow_orientation: bool) -> NDArray[np.uint8]:
    """Return the pixels as `open_image` does; ``path`` is for the error message.

    Raises:
        UsageError: this is not a complete image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            turned = ImageOps.exif_transpose(picture) if follow_orientation else picture
            return np.asarray(_as_rgb(turned))
    except UnidentifiedImageError as problem:
        raise UsageError(
            f"{path} is not an image", tip="use a JPEG, a PNG, or any other format that Pillow can read"
        ) from problem
    except Image.DecompressionBombError as problem:
        raise UsageError(f"the image {path} is too large: {problem}") from problem
    except (OSError, SyntaxError, ValueError) as problem:  # SyntaxError is what Pillow raises for broken PNGs
        raise UsageError(
            f"cannot read the image {path}: {problem}", tip="check that the file is complete"
        ) from problem


def _as_rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(opaque, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit grey values, which Pillow would clip at 255; 8-bit values are not changed."""
    scale = 257 if grey.size and grey.max() > np.iinfo(np.uint8).max else 1
    return np.clip(grey / scale, 0, 255).astype(np.uint8)
