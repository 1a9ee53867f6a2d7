"""`detect`: its output, its errors, and the images it draws."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import RunnerError
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

FP32, UINT8 = TINY_DETECTOR / "fp32.run0.tflite", TINY_DETECTOR / "uint8.run0.tflite"


def call(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["detect", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, RunnerError | SystemExit), (
        result.exception
    )
    return result


def refusal(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, RunnerError)
    assert result.exception.exit_code == 2
    return result.exception.message


def test_a_table_has_a_line_for_each_box(photo: Path) -> None:
    lines = call(FP32, photo).stdout.splitlines()
    assert lines[0].startswith(f"{photo} (64 x 48 pixels): ")
    count = int(lines[0].split(": ")[1].split()[0])
    assert count == len(lines) - 2 > 0
    assert lines[1].split() == ["label", "score", "left", "top", "right", "bottom", "relative"]
    assert all(line.startswith(("  class 1 0.", "  class 2 0.")) for line in lines[2:])


@pytest.mark.parametrize("file", [FP32, UINT8])
def test_json_has_pixels_that_are_the_relative_box_times_the_size(photo: Path, file: Path) -> None:
    found = json.loads(call(file, photo, "--json", "--threads=2").stdout)
    (picture,) = found["pictures"]
    assert (picture["width"], picture["height"], picture["drawing"]) == (64, 48, None)
    scores = [it["score"] for it in picture["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert 0 < len(scores) <= 10
    for it in picture["detections"]:
        assert it["label"] == f"class {it['class_id']}"
        assert it["class_id"] in {1, 2}
        assert it["pixels"]["xmax"] == pytest.approx(64 * it["box"]["xmax"])
        assert it["pixels"]["ymin"] == pytest.approx(48 * it["box"]["ymin"])
        assert it["box"]["xmin"] < it["box"]["xmax"]


def test_the_preprocessing_is_one_line_on_stderr(photo: Path) -> None:
    assert call(UINT8, photo).stderr == (
        "images: RGB, resized to 8 x 8 (bilinear, as TensorFlow 1; aspect ratio not kept), "
        "pixels, truncated to uint8\n"
    )
    assert call(FP32, photo).stderr.endswith(", (pixel - 127.5) / 127.5, float32\n")


def test_lower_scores_are_left_out(photo: Path) -> None:
    every = json.loads(call(FP32, photo, "--json").stdout)["pictures"][0]["detections"]
    threshold = every[0]["score"]
    some = call(FP32, photo, "--json", f"--score-threshold={threshold}")
    kept = json.loads(some.stdout)["pictures"][0]["detections"]
    assert kept == [it for it in every if it["score"] >= threshold]
    assert len(kept) < len(every)
    assert "0 found\n" in call(FP32, photo, "--score-threshold=1").stdout


def test_a_picture_is_turned_as_its_exif_data_says(photo: Path, tmp_path: Path) -> None:
    with Image.open(photo) as picture:
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees, clockwise
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright, turned = json.loads(call(FP32, photo, tmp_path / "turned.png", "--json").stdout)["pictures"]
    assert (turned["width"], turned["height"]) == (64, 48)
    assert turned["detections"] == upright["detections"]


def test_names_come_from_the_label_file(photo: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n", "utf-8")
    found = json.loads(call(FP32, photo, "--json", "--labels", labels).stdout)
    assert found["labels"] == str(labels)
    for it in found["pictures"][0]["detections"]:
        assert it["label"] == {1: "cat", 2: "dog"}[it["class_id"]]
    labels.write_text("cat\n", "utf-8")
    assert "labels.txt, line 2: too few labels" in refusal(FP32, photo, "--labels", labels)


def test_names_come_from_a_recipe(photo: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny" / "recipe.toml"
    recipe.parent.mkdir()
    recipe.write_text(
        'title = "it"\nlabels = ["cat", "dog"]\n[variants.fp32]\ninference_type = "FLOAT"\n', "utf-8"
    )
    found = json.loads(call(FP32, photo, "--json", "--recipe", recipe.parent).stdout)
    assert found["labels"] == "recipe tiny"
    assert {it["label"] for it in found["pictures"][0]["detections"]} <= {"cat", "dog"}
    assert "use one" in str(
        getattr(call(FP32, photo, "--recipe", recipe.parent, "--labels", recipe).exception, "tip", "")
    )


def test_a_file_that_is_no_detector_is_refused(photo: Path) -> None:
    other = TINY_DETECTOR / "no_post_processing.tflite"
    assert f"{other} does not end in the operator" in refusal(other, photo)


def test_an_unreadable_picture_is_named(photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:200])
    assert str(broken) in refusal(FP32, photo, broken)
    assert str(tmp_path / "none.jpg") in refusal(FP32, tmp_path / "none.jpg")


def test_drawing_keeps_the_size_and_changes_pixels_at_the_boxes(photo: Path, tmp_path: Path) -> None:
    jpeg = tmp_path / "other.JPG"
    Image.new("RGB", (320, 240), "white").save(jpeg)
    drawings = tmp_path / "new" / "drawings"
    found = json.loads(call(FP32, photo, jpeg, "--draw", drawings, "--json").stdout)["pictures"]
    assert [it["drawing"] for it in found] == [str(drawings / "photo.png"), str(drawings / "other.JPG")]
    assert sorted(path.name for path in drawings.iterdir()) == ["other.JPG", "photo.png"]
    with Image.open(drawings / "photo.png") as drawn, Image.open(photo) as before:
        assert (drawn.format, drawn.size) == ("PNG", (64, 48))
        assert not np.array_equal(np.asarray(drawn), np.asarray(before))
    with Image.open(drawings / "other.JPG") as drawn:
        assert drawn.format == "JPEG"
        pixels = np.asarray(drawn).astype(int)
    boxes = [it["pixels"] for it in found[1]["detections"]]
    inside = [box for box in boxes if 0 < box["xmin"] < box["xmax"] < 320 and 0 < box["ymax"] < 235]
    assert inside
    for box in inside:  # the lower edge, in an image that was white
        bottom, middle = round(box["ymax"]), round((box["xmin"] + box["xmax"]) / 2)
        assert pixels[bottom - 3 : bottom + 4, middle].min() < 160


def test_nothing_that_is_there_is_replaced(photo: Path, tmp_path: Path) -> None:
    there = tmp_path / "drawings" / "photo.png"
    there.parent.mkdir()
    there.write_bytes(b"mine")
    assert f"{there} already exists" in refusal(FP32, photo, "--draw", there.parent)
    assert there.read_bytes() == b"mine"
    assert call(FP32, photo, "--draw", there.parent, "--overwrite").exit_code == 0
    assert there.read_bytes() != b"mine"


def test_the_picture_itself_is_never_replaced(photo: Path) -> None:
    before = photo.read_bytes()
    assert "is the image itself" in refusal(FP32, photo, "--draw", photo.parent, "--overwrite")
    assert photo.read_bytes() == before


def test_two_pictures_of_one_name_are_not_drawn_to_one_file(photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "photo.png"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    assert "two of the images" in refusal(FP32, photo, other, "--draw", tmp_path / "drawings")
    assert not (tmp_path / "drawings").exists()
