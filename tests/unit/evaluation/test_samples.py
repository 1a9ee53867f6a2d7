"""Labelled images: they depend only on the seed, and the labels match the drawing."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import UsageError
from runner.evaluation.samples import write_samples
from runner.evaluation.shapes import LABELS, MOST_IOU, SIDE, Shape, draw

if TYPE_CHECKING:
    from pathlib import Path

# The pixels of the first three images of seed 2. Whoever changes what is drawn has to train again.
DRAWN = "6151b50014dcc8483817cb140a0b0649fb033708b461a3d3b529452eb7b0c7e7"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        write_samples(tmp_path / name, count=3, seed=seed)
    assert files(tmp_path / "one") == files(tmp_path / "again")
    assert files(tmp_path / "one") != files(tmp_path / "other")


def test_a_picture_does_not_depend_on_how_many_are_drawn(tmp_path: Path) -> None:
    write_samples(tmp_path / "two", count=2, seed=5)
    write_samples(tmp_path / "three", count=3, seed=5)
    pictures = {name: data for name, data in files(tmp_path / "two").items() if name.endswith(".png")}
    assert pictures.items() <= files(tmp_path / "three").items()


def test_what_is_drawn_is_what_the_recipe_was_trained_with() -> None:
    pixels = b"".join(draw(2, number).pixels.tobytes() for number in (1, 2, 3))
    assert hashlib.sha256(pixels).hexdigest() == DRAWN


def test_labels_are_in_cocos_format_and_agree_with_the_pictures(tmp_path: Path) -> None:
    write_samples(tmp_path / "made", count=20, seed=5)
    content = json.loads((tmp_path / "made/annotations.json").read_text("utf-8"))
    assert [it["name"] for it in content["categories"]] == list(LABELS)
    assert [it["id"] for it in content["categories"]] == [1, 2, 3]
    ids = [it["id"] for it in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for image in content["images"]:
        with Image.open(tmp_path / "made/images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (SIDE, SIDE)
        found = [it for it in content["annotations"] if it["image_id"] == image["id"]]
        assert 1 <= len(found) <= 4
        for it in found:
            left, top, width, height = it["bbox"]
            assert it["area"] == width * height
            assert it["iscrowd"] == 0
            assert left >= 0 and top >= 0  # noqa: PT018 - one box
            assert max(left + width, top + height) <= SIDE


def test_the_last_object_is_where_its_box_is() -> None:
    """Nothing covers it, so one colour fills the middle of its box."""
    picture = next(it for it in (draw(5, number) for number in range(1, 200)) if is_calm(it.pixels))
    shape = picture.shapes[-1]
    middle = picture.pixels[
        shape.top + shape.side // 2 : shape.top + shape.side * 3 // 4,
        shape.left + shape.side * 3 // 8 : shape.left + shape.side * 5 // 8,
    ].astype(int)
    assert np.ptp(middle.reshape(-1, 3), axis=0).max() <= 4


def is_calm(pixels: np.ndarray) -> bool:
    """Return whether the image has almost no noise."""
    return int(np.median(np.abs(np.diff(pixels.astype(int), axis=1)))) == 0


def iou(one: Shape, other: Shape) -> float:
    width = min(one.left + one.side, other.left + other.side) - max(one.left, other.left)
    height = min(one.top + one.side, other.top + other.side) - max(one.top, other.top)
    both = max(width, 0) * max(height, 0)
    return both / (one.side**2 + other.side**2 - both)


def test_objects_hide_each_other_only_in_part() -> None:
    overlaps = [iou(*pair) for number in range(1, 200) for pair in combinations(draw(9, number).shapes, 2)]
    assert 0 < max(overlaps) <= MOST_IOU


def test_every_kind_is_drawn_about_as_often() -> None:
    labels = [shape.label for number in range(1, 301) for shape in draw(9, number).shapes]
    assert min(labels.count(label) for label in LABELS) > 0.28 * len(labels)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_samples(tmp_path, count=1, seed=0)
    assert files(tmp_path) == {"mine": b"mine"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be used"):
        write_samples(tmp_path / "file" / "made", count=1, seed=0)


def test_the_command_prints_where_the_labels_are(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["samples", str(tmp_path / "made"), "--count", "2", "--json"])
    assert json.loads(done.stdout) == {
        "annotations": str(tmp_path / "made/annotations.json"),
        "images": str(tmp_path / "made/images"),
        "count": 2,
        "seed": 0,
    }
