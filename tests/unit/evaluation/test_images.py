"""Images of all kinds are opened as RGB; other files are reported."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from runner.errors import UsageError
from runner.evaluation.images import open_image

if TYPE_CHECKING:
    from pathlib import Path

RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", RED, "png", RED),
        ("L", 128, "png", (128, 128, 128)),
        ("1", 1, "png", (255, 255, 255)),
        ("LA", (0, 0), "png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), "png", RED),
        ("RGBA", (255, 0, 0, 0), "png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "tiff", RED),
        ("CMYK", (0, 255, 255, 0), "jpg", RED),  # with Adobe's marker, so its values are inverted
        ("YCbCr", (76, 85, 255), "jpg", (254, 0, 0)),
        ("I;16", 128 * 257, "png", (128, 128, 128)),
    ],
)
def test_every_kind_becomes_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], suffix: str, expected: tuple[int, int, int]
) -> None:
    path = tmp_path / f"image.{suffix}"
    how: dict[str, Any] = {"quality": 100} if suffix == "jpg" else {}
    Image.new(mode, (3, 2), colour).save(path, **how)
    pixels = open_image(path)
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    assert {tuple(pixel) for row in pixels.tolist() for pixel in row} == {expected}


def png_of_16_bits(colour_type: int, *values: int) -> bytes:
    """Write a PNG of 3 x 2 equal pixels; Pillow cannot write colours of 16 bits."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    row = b"\0" + struct.pack(f">{len(values)}H", *values) * 3
    header = struct.pack(">IIBBBBB", 3, 2, 16, colour_type, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("colour_type", "values", "expected"),
    [
        (0, (128 * 257,), (128, 128, 128)),
        (2, (255 * 257, 128 * 257, 0), (255, 128, 0)),
        (4, (0, 0), (255, 255, 255)),  # grey with alpha: transparent
        (6, (255 * 257, 0, 0, 65535), RED),
    ],
)
def test_16_bits_become_8(
    tmp_path: Path, colour_type: int, values: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(colour_type, *values))
    pixels = open_image(tmp_path / "deep.png")
    assert {tuple(pixel) for row in pixels.tolist() for pixel in row} == {expected}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_shows_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    """The stored image is the upright one, transformed by the inverse of the EXIF orientation."""
    upright = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "it.png", exif=exif)
    assert np.array_equal(open_image(tmp_path / "it.png"), upright)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), RED).convert("P").save(tmp_path / "image.gif")
    assert open_image(tmp_path / "image.gif")[0, 0].tolist() == list(RED)


def test_it_is_turned_as_its_exif_data_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 2)).save(tmp_path / "image.jpg", exif=exif)
    assert open_image(tmp_path / "image.jpg").shape == (3, 2, 3)
    assert open_image(tmp_path / "image.jpg", follow_orientation=False).shape == (2, 3, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match=rf"cut\.{suffix}"):
        open_image(path)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UsageError, match=r"text\.jpg is not an image"):
        open_image(tmp_path / "text.jpg")
    with pytest.raises(UsageError, match=r"none\.jpg: .*No such file"):
        open_image(tmp_path / "none.jpg")
