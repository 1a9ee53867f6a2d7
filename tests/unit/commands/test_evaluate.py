"""`evaluate`: its numbers are those of independent programs on the detections that it writes."""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import RunnerError
from runner.evaluation.mlperf import ScoredBox, mean_average_precision
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

FP32, UINT8 = TINY_DETECTOR / "fp32.run0.tflite", TINY_DETECTOR / "uint8.run0.tflite"
WIDTH, HEIGHT = 64, 48


def call(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, RunnerError | SystemExit), (
        result.exception
    )
    return result


@pytest.fixture
def drawn_set(tmp_path: Path) -> Path:
    """Three pictures of noise; the boxes are every other detection of FP32, cut to the picture."""
    folder = tmp_path / "set"
    folder.mkdir()
    random = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in (1, 2, 3):
        pixels = random.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
    printed = call("detect", FP32, *(folder / f"{number}.png" for number in (1, 2, 3)), "--json").stdout
    for image, picture in zip(images, json.loads(printed)["pictures"], strict=True):
        for found in picture["detections"][::2]:
            edges = found["pixels"]
            left, top = max(0, edges["xmin"]), max(0, edges["ymin"])
            bbox = [left, top, min(WIDTH, edges["xmax"]) - left, min(HEIGHT, edges["ymax"]) - top]
            entry = {"image_id": image["id"], "category_id": found["class_id"], "bbox": bbox}
            boxes.append({"id": len(boxes) + 1, "iscrowd": 0, "area": bbox[2] * bbox[3], **entry})
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    content = {"info": {}, "images": images, "annotations": boxes, "categories": categories}
    (folder / "set.json").write_text(json.dumps(content), "utf-8")
    return folder


def arguments(folder: Path) -> list[str | Path]:
    return ["--annotations", folder / "set.json", "--images", folder]


def statistics_of_pycocotools(annotations: Path, detections: Path) -> list[float]:
    from pycocotools.coco import COCO  # type: ignore[import-untyped] # ships no types
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped] # ships no types

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(number) for number in evaluation.stats]


def scored(entry: dict[str, Any]) -> ScoredBox:
    left, top, width, height = entry["bbox"]
    corners = (top / HEIGHT, left / WIDTH, (top + height) / HEIGHT, (left + width) / WIDTH)
    return ScoredBox(
        image=entry["image_id"],
        category=entry["category_id"],
        corners=corners,
        score=entry.get("score", 0.0),
    )


def test_the_numbers_follow_from_the_detections_that_are_written(drawn_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "detections"
    done = call("evaluate", FP32, UINT8, *arguments(drawn_set), "--detections", out, "--json")
    found = json.loads(done.stdout)
    assert (found["pictures"], found["is_like_val2017"]) == (3, False)
    truth = json.loads((drawn_set / "set.json").read_text("utf-8"))["annotations"]
    assert [it["file"] for it in found["files"]] == [str(FP32), str(UINT8)]
    for it in found["files"]:
        written = out / it["file"].rpartition("/")[2].replace(".tflite", ".json")
        expected = statistics_of_pycocotools(drawn_set / "set.json", written)
        assert list(it["coco"].values()) == pytest.approx(expected, abs=1e-12)
        detections = json.loads(written.read_text("utf-8"))
        assert len(detections) == it["detection_count"]
        by_hand = mean_average_precision(map(scored, truth), map(scored, detections))
        assert it["mlperf_map"] == pytest.approx(by_hand, abs=1e-6)
        assert 0 < it["latency"]["median_ms"] <= it["latency"]["p90_ms"]
    assert found["files"][0]["coco"]["ap"] > 0.05
    assert found["files"][0]["mlperf_map"] > 0.05


def test_a_table_and_a_set_that_is_not_val2017(drawn_set: Path) -> None:
    done = call("evaluate", FP32, *arguments(drawn_set), "--limit", "1")
    header, row = done.stdout.splitlines()
    assert " ".join(header.split()) == "file COCO AP AP50 AP75 MLPerf mAP median ms p90 ms"
    assert row.startswith(str(FP32))
    assert "set.json: 1 pictures, " in done.stderr
    assert "this is not COCO val2017" in done.stderr


def test_a_detector_that_finds_nothing_has_zero(drawn_set: Path) -> None:
    for path in drawn_set.glob("*.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    strict = drawn_set / "strict.tflite"
    content = FP32.read_bytes()
    threshold = np.float32(0.3).tobytes()
    assert threshold in content
    strict.write_bytes(content.replace(threshold, np.float32(0.999).tobytes()))
    (it,) = json.loads(call("evaluate", strict, *arguments(drawn_set), "--json").stdout)["files"]
    assert (it["detection_count"], it["coco"]["ap"], it["mlperf_map"]) == (0, 0, 0)


def test_a_picture_is_not_turned_as_its_exif_data_says(drawn_set: Path) -> None:
    """Annotations are of the stored pixels."""
    before = json.loads(call("evaluate", FP32, *arguments(drawn_set), "--json").stdout)["files"][0]
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    with Image.open(drawn_set / "1.png") as picture:
        picture.load()
    picture.save(drawn_set / "1.png", exif=exif)
    after = json.loads(call("evaluate", FP32, *arguments(drawn_set), "--json").stdout)["files"][0]
    assert after["coco"] == before["coco"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "2.png").unlink(), "2.png"),
        (lambda folder: Image.new("RGB", (9, 9)).save(folder / "2.png"), "2.png has 9 x 9 pixels; the annot"),
    ],
)
def test_a_missing_or_wrong_picture_is_named(drawn_set: Path, change: Any, message: str) -> None:  # noqa: ANN401
    change(drawn_set)
    problem = call("evaluate", FP32, *arguments(drawn_set)).exception
    assert isinstance(problem, RunnerError)
    assert problem.exit_code == 2
    assert message in problem.message


def test_detections_that_are_there_are_not_replaced(drawn_set: Path, tmp_path: Path) -> None:
    there = tmp_path / "fp32.run0.json"
    there.write_bytes(b"mine")
    command = ["evaluate", FP32, *arguments(drawn_set), "--detections", tmp_path]
    problem = call(*command).exception
    assert isinstance(problem, RunnerError)
    assert f"{there} exists already" in problem.message
    assert there.read_bytes() == b"mine"
    assert call(*command, "--overwrite").exit_code == 0
    assert json.loads(there.read_text("utf-8"))
    twice = call("evaluate", FP32, FP32, *arguments(drawn_set), "--detections", tmp_path / "new").exception
    assert isinstance(twice, RunnerError)
    assert "same name" in twice.message
