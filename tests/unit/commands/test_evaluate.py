"""`evaluate`: independent programs compute the same numbers from the detections that it writes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import RunnerError
from tests.locations import TINY_DETECTOR
from tests.unit.evaluation.plain_mlperf import PlainBox, plain_map
from tests.unit.fixtures.drawn_set import HEIGHT, WIDTH

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

FP32, UINT8 = TINY_DETECTOR / "fp32.run0.tflite", TINY_DETECTOR / "uint8.run0.tflite"
LAST_DIGIT = 1e-15
"""tests/unit/evaluation/test_coco.py says where the last digit may differ from pycocotools."""


def call(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, RunnerError | SystemExit), (
        result.exception
    )
    return result


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


def plain(entry: dict[str, Any]) -> PlainBox:
    left, top, width, height = entry["bbox"]
    corners = (top / HEIGHT, left / WIDTH, (top + height) / HEIGHT, (left + width) / WIDTH)
    return PlainBox(entry["image_id"], entry["category_id"], corners, entry.get("score", 0.0))


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
        assert list(it["coco"].values()) == pytest.approx(expected, abs=LAST_DIGIT)
        detections = json.loads(written.read_text("utf-8"))
        assert len(detections) == it["detection_count"]
        expected_map = plain_map(list(map(plain, truth)), list(map(plain, detections)))
        assert it["mlperf_map"] == pytest.approx(expected_map, abs=1e-6)
        assert 0 < it["latency"]["median_ms"] <= it["latency"]["p90_ms"]
    assert found["files"][0]["coco"]["ap"] > 0.05
    assert found["files"][0]["mlperf_map"] > 0.05


def test_a_table_and_a_set_that_is_not_val2017(drawn_set: Path) -> None:
    done = call("evaluate", FP32, *arguments(drawn_set), "--limit", "1", "--workers", "1", "--no-xnnpack")
    header, row, latency = done.stdout.splitlines()
    assert " ".join(header.split()) == "file COCO AP AP50 AP75 MLPerf mAP median ms p90 ms load ms"
    assert row.startswith(str(FP32))
    assert latency.startswith("latency: LiteRT, threads: 1, XNNPACK off, parallel processes: 1; ")
    assert "set.json: 1 images, " in done.stderr
    assert "this is not COCO val2017" in done.stderr


def test_the_second_file_has_its_difference_from_the_first(drawn_set: Path) -> None:
    command = ["evaluate", UINT8, FP32, *arguments(drawn_set)]
    first, second = json.loads(call(*command, "--json").stdout)["files"]
    assert first["difference"] is None
    assert second["difference"]["to"] == str(UINT8)
    for name, value in second["difference"]["coco"].items():
        assert value == second["coco"][name] - first["coco"][name]
    assert second["difference"]["mlperf_map"] == second["mlperf_map"] - first["mlperf_map"] != 0
    _, _, _, row, _ = call(*command).stdout.splitlines()
    ap = second["coco"]["ap"] - first["coco"]["ap"]
    assert row.split()[:2] == ["difference", f"{ap:+.4f}"]


def test_the_settings_are_those_that_litert_gets(drawn_set: Path) -> None:
    command = ["evaluate", FP32, *arguments(drawn_set), "--json"]
    (plain,) = json.loads(call(*command, "--workers", "1").stdout)["files"]
    (other,) = json.loads(call(*command, "--no-xnnpack", "--threads", "2", "--workers", "3").stdout)["files"]
    assert [plain["latency"][it] for it in ("threads", "xnnpack", "workers")] == [1, True, 1]
    assert [other["latency"][it] for it in ("threads", "xnnpack", "workers")] == [2, False, 3]
    assert (plain["kept_count"], other["kept_count"]) == (0, 0)
    assert other["latency"]["load_ms"] > 0
    assert "core" in other["latency"]["machine"]


@pytest.fixture
def long_set(tmp_path: Path) -> Path:
    """Forty images of noise, which is more than one part."""
    folder = tmp_path / "long"
    folder.mkdir()
    random = np.random.default_rng(1)
    images: list[dict[str, Any]] = []
    for number in range(1, 41):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 8, "height": 8})
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8]}]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    (folder / "set.json").write_text(json.dumps(content), "utf-8")
    return folder


def test_an_interrupted_run_goes_on_where_it_stopped(long_set: Path, tmp_path: Path) -> None:
    last = long_set / "40.png"
    whole = last.read_bytes()
    last.write_bytes(whole[:50])
    command = ["evaluate", FP32, *arguments(long_set), "--workers", "1", "--json", "--detections"]
    assert isinstance(call(*command, tmp_path / "none").exception, RunnerError)
    last.write_bytes(whole)
    done = call(*command, tmp_path / "two")
    assert json.loads(done.stdout)["files"][0]["kept_count"] == 32
    assert "32 of 40 images were run by an earlier call" in done.stderr
    forced = call(*command, tmp_path / "one", "--force")
    assert json.loads(forced.stdout)["files"][0]["kept_count"] == 0
    one, two = ((tmp_path / name / "fp32.run0.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(json.loads(one)) > 40


def test_a_killed_run_leaves_whole_parts(long_set: Path, tmp_path: Path) -> None:
    """The run is killed as soon as its first part exists, perhaps in the middle of the next."""
    content = json.loads((long_set / "set.json").read_text("utf-8"))
    content["images"] *= 50
    for number, image in enumerate(content["images"], start=1):
        content["images"][number - 1] = image | {"id": number}
    (long_set / "set.json").write_text(json.dumps(content), "utf-8")
    command = ["evaluate", str(FP32), *map(str, arguments(long_set)), "--workers", "1", "--json"]
    parts = tmp_path / "cache/evaluations"
    with subprocess.Popen(
        [sys.executable, "-m", "runner", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        while run.poll() is None and not [it for it in parts.glob("*/*") if it.suffix == ""]:
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
    done = json.loads(call(*command).stdout)
    (home,) = parts.iterdir()
    assert done["pictures"] == 2000
    assert done["files"][0]["kept_count"] > 0
    whole = [it.name for it in home.iterdir() if not it.name.startswith(".")]
    again = json.loads(call(*command).stdout)
    assert again["files"][0]["kept_count"] == 2000
    assert len(whole) == len({it for it in whole if len(it) == 32})


def test_a_changed_picture_or_file_is_run_again(long_set: Path, tmp_path: Path) -> None:
    def kept(file: Path = FP32, *more: str) -> int:
        done = call("evaluate", file, *arguments(long_set), "--json", *more)
        return int(json.loads(done.stdout)["files"][0]["kept_count"])

    assert (kept(), kept(), kept(UINT8)) == (0, 40, 0)
    Image.new("RGB", (8, 8)).save(long_set / "40.png")
    assert kept() == 32
    assert kept(FP32, "--limit", "32") == 32
    for part in (tmp_path / "cache/evaluations").glob("*/*"):
        part.write_bytes(part.read_bytes()[:20])
    assert kept() == 0


def test_without_a_cache_nothing_is_kept(
    long_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_CACHE_MIB", "0")
    assert call("evaluate", FP32, *arguments(long_set)).exit_code == 0
    assert not (tmp_path / "cache/evaluations").exists()


def test_a_cache_that_cannot_be_written_is_a_warning(
    long_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_CACHE_DIR", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    done = call("evaluate", FP32, *arguments(long_set))
    assert done.exit_code == 0
    assert "the detections could not be cached" in done.stderr


def test_several_processes_find_what_one_finds(long_set: Path, tmp_path: Path) -> None:
    for workers in ("1", "3"):
        out = tmp_path / workers
        call("evaluate", FP32, *arguments(long_set), "--workers", workers, "--detections", out)
    one, three = ((tmp_path / name / "fp32.run0.json").read_bytes() for name in ("1", "3"))
    assert one == three


def test_a_log_has_one_line_of_progress(long_set: Path) -> None:
    lines = call("evaluate", FP32, *arguments(long_set)).stderr.splitlines()
    assert [line for line in lines if "of 40 images" in line] == ["   40 of 40 images"]


RECIPE = """
title = "A tiny detector"
labels = ["cat", "dog"]

[variants.float]
inference_type = "FLOAT"

[[variants.float.accuracy]]
metric = "mAP"
value = 0.25
dataset = "COCO 2017 val"
source = "a page"
"""


def test_what_was_published_for_a_recipe_is_stated_with_the_difference(
    drawn_set: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny"
    recipe.mkdir()
    (recipe / "recipe.toml").write_text(RECIPE, "utf-8")
    command = ["evaluate", FP32, *arguments(drawn_set), "--recipe", recipe]
    (it,) = json.loads(call(*command, "--json").stdout)["files"]
    (published,) = it["published"]
    assert (published["recipe"], published["variant"], published["value"]) == ("tiny", "float", 0.25)
    assert published["coco_difference"] == it["coco"]["ap"] - 0.25
    assert published["mlperf_difference"] == it["mlperf_map"] - 0.25
    assert published["is_same_set"] is False
    text = call(*command).stdout
    assert "published: mAP 0.25 on COCO 2017 val; source: a page" in text
    assert "not comparable, because the set differs" in text


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


def test_a_set_without_boxes_has_no_average_precision(drawn_set: Path) -> None:
    content = json.loads((drawn_set / "set.json").read_text("utf-8"))
    (drawn_set / "set.json").write_text(json.dumps(content | {"annotations": []}), "utf-8")
    _, row, _ = call("evaluate", FP32, *arguments(drawn_set)).stdout.splitlines()
    assert row.split()[1:5] == ["none", "none", "none", "0.0000"]


def test_a_picture_is_not_turned_as_its_exif_data_says(drawn_set: Path) -> None:
    """Annotations refer to the stored pixels."""
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
        (lambda folder: (folder / "2.png").unlink(), r"images[1] (id 2): there is no image"),
        (
            lambda folder: Image.new("RGB", (9, 9)).save(folder / "2.png"),
            "2.png has 9 x 9 pixels, but the annot",
        ),
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
    assert f"{there} already exists" in problem.message
    assert there.read_bytes() == b"mine"
    assert call(*command, "--overwrite").exit_code == 0
    assert json.loads(there.read_text("utf-8"))
    twice = call("evaluate", FP32, FP32, *arguments(drawn_set), "--detections", tmp_path / "new").exception
    assert isinstance(twice, RunnerError)
    assert "same name" in twice.message
