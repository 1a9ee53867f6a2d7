"""Pictures of all kinds are opened as RGB; what is no picture is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from runner.errors import UsageError
from runner.evaluation.pictures import open_picture

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
        ("I;16", 128 * 257, "png", (128, 128, 128)),
    ],
)
def test_every_kind_becomes_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], suffix: str, expected: tuple[int, int, int]
) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.new(mode, (3, 2), colour).save(path)
    pixels = open_picture(path)
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    assert {tuple(pixel) for row in pixels.tolist() for pixel in row} == {expected}


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), RED).convert("P").save(tmp_path / "picture.gif")
    assert open_picture(tmp_path / "picture.gif")[0, 0].tolist() == list(RED)


def test_it_is_turned_as_its_exif_data_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 2)).save(tmp_path / "picture.jpg", exif=exif)
    assert open_picture(tmp_path / "picture.jpg").shape == (3, 2, 3)
    assert open_picture(tmp_path / "picture.jpg", follow_orientation=False).shape == (2, 3, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match=rf"cut\.{suffix}"):
        open_picture(path)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UsageError, match=r"text\.jpg is not a picture"):
        open_picture(tmp_path / "text.jpg")
    with pytest.raises(UsageError, match=r"none\.jpg: .*No such file"):
        open_picture(tmp_path / "none.jpg")
