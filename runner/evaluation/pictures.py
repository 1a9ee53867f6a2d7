"""Open pictures of any kind as RGB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from runner.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image


def open_picture(path: Path, *, follow_orientation: bool = True) -> NDArray[np.uint8]:
    """Return the pixels of a picture as RGB, (height, width, 3).

    Transparent parts become white. ``follow_orientation`` turns it as its EXIF data says.

    Raises:
        UsageError: there is no such file, or it is not a picture that can be read to its end.
    """
    return decode_picture(read_picture(path), path, follow_orientation=follow_orientation)


def read_picture(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as problem:
        raise UsageError(f"cannot read the picture {path}: {problem.strerror}") from problem


def decode_picture(content: bytes, path: Path, *, follow_orientation: bool) -> NDArray[np.uint8]:
    """Return the pixels as `open_picture` does; ``path`` is for the error message.

    Raises:
        UsageError: it is not a picture that can be read to its end.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            turned = ImageOps.exif_transpose(picture) if follow_orientation else picture
            return np.asarray(_as_rgb(turned))
    except UnidentifiedImageError as problem:
        raise UsageError(
            f"{path} is not a picture", tip="use a JPEG, a PNG, or any other format that Pillow can read"
        ) from problem
    except Image.DecompressionBombError as problem:
        raise UsageError(f"{path} is too large a picture: {problem}") from problem
    except (OSError, SyntaxError, ValueError) as problem:  # SyntaxError is what Pillow raises for broken PNGs
        raise UsageError(f"cannot read the picture {path}: {problem}", tip="is it complete?") from problem


def _as_rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(opaque, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit grey values, which Pillow would clip at 255; smaller values are taken as they are."""
    scale = 257 if grey.size and grey.max() > np.iinfo(np.uint8).max else 1
    return np.clip(grey / scale, 0, 255).astype(np.uint8)
