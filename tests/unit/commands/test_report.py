"""`report`: the page, its data as JSON, and its errors."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from PIL import Image
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import RunnerError
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from typer.testing import Result

FP32, UINT8 = TINY_DETECTOR / "fp32.run0.tflite", TINY_DETECTOR / "uint8.run0.tflite"


def call(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, RunnerError | SystemExit), (
        result.exception
    )
    return result


def refusal(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, RunnerError)
    assert result.exception.exit_code == 2
    return result.exception.message


def test_a_page_and_its_data_are_about_the_same(photo: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = call(FP32, UINT8, "--image", photo, "--out", page, "--json", "--score-threshold", "0")
    entry, text = json.loads(found.stdout), page.read_text("utf-8")
    assert entry["page"] == str(page)
    assert [it["name"] for it in entry["files"]] == ["fp32.run0.tflite", "uint8.run0.tflite"]
    (image,) = entry["images"]
    assert (image["name"], image["width"], image["height"]) == ("photo.png", 64, 48)
    assert "photo.png" in text
    for row in image["rows"]:
        assert f">{row['label']}<" in text
        for match in filter(None, row["matches"]):
            assert f"{match['score']:.3f}" in text
    for file in entry["files"]:
        assert file["digests"]["sha256"] in text
        assert file["published"]["text"] in text
        assert all(it["name"].split("/")[-1] in text for it in file["tensors"])


def test_json_alone_writes_no_page(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(call(FP32, "--image", photo, "--json").stdout)["page"] is None
    assert not (tmp_path / "report.html").exists()


def test_a_page_of_ours_is_replaced_and_another_file_is_not(photo: Path, tmp_path: Path) -> None:
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    for _ in range(2):
        assert call(FP32, "--image", photo, "--out", page).stdout == f"{page}\n"
    other.write_text("<html>by hand</html>")
    assert "is not a page of this program" in refusal(FP32, "--out", other)
    assert other.read_text() == "<html>by hand</html>"
    assert call(FP32, "--image", photo, "--out", other, "--overwrite").exit_code == 0
    assert "is a folder" in refusal(FP32, "--out", tmp_path)


def test_accuracy_is_measured_where_boxes_are_known(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "1.png")
    annotations = {
        "images": [{"id": 1, "file_name": "1.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(annotations))
    given = ("--annotations", tmp_path / "set.json", "--images", tmp_path / "images")
    page = tmp_path / "page.html"
    entry = json.loads(call(FP32, *given, "--out", page, "--json").stdout)
    (file,) = entry["files"]
    assert f"{file['evaluation']['latency']['median_ms']:.2f} ms" in page.read_text("utf-8")
    assert "give both --annotations and --images" in refusal(FP32, *given[:2])


def test_a_file_that_is_no_detector_is_refused() -> None:
    assert "is not a detector" in refusal(TINY_DETECTOR / "no_post_processing.tflite")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    assert "holds no converted file" in refusal(tmp_path)


def test_a_graph_is_of_one_file(tmp_path: Path) -> None:
    assert "--graph needs one file, but there are 2" in refusal(FP32, UINT8, "--graph", tmp_path / "it.pb")


def test_a_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    assert f"{bad} is not an image" in refusal(FP32, "--image", bad, "--out", tmp_path / "page.html")


def test_files_in_a_folder_are_all_on_the_page(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for file in (FP32, UINT8):
        shutil.copy(file, folder)
    shutil.copy(FP32, folder / "model.raw.tflite")
    entry = json.loads(call(folder, "--image", photo, "--json").stdout)
    assert [it["name"] for it in entry["files"]] == ["fp32.run0.tflite", "uint8.run0.tflite"]
