"""Class names from COCO, a text or a label map; errors name file and line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.errors import ConfigError, UsageError
from runner.evaluation.detector import open_detector
from runner.evaluation.labels import labels_of, read_labels
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    from runner.evaluation.detector import Detector

FP32, UINT8 = TINY_DETECTOR / "fp32.run0.tflite", TINY_DETECTOR / "uint8.run0.tflite"
RECIPE = """
title = "Two animals"
labels = ["cat", "dog"]

[variants.float]
inference_type = "FLOAT"
"""
LABEL_MAP = """# a comment
item { id: 1 name: 'person' display_name: "Person's" }
item: {
  name: "/m/0199g",
  id: 3;
  keypoints { id: 7 label: "nose" }
  display_name: 'bicycle \\'old\\''
}
"""


def detector(path: Path, class_count: int) -> Detector:
    path.write_bytes(FP32.read_bytes())
    return replace(open_detector(path), class_count=class_count)


def test_coco_names_have_cocos_ids(tmp_path: Path) -> None:
    labels = labels_of(detector(tmp_path / "it.tflite", 90), None)
    assert labels.source == "COCO"
    assert [labels.name_of(number) for number in (1, 13, 18, 44, 90)] == [
        *("person", "stop sign", "dog", "bottle", "toothbrush")
    ]
    assert labels.name_of(12) == "class 12"
    assert len(labels.names) == 80


def test_other_numbers_of_classes_have_no_names(tmp_path: Path) -> None:
    assert labels_of(detector(tmp_path / "it.tflite", 2), None).name_of(2) == "class 2"


def test_names_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "recipe.toml"
    path.parent.mkdir()
    path.write_text(RECIPE, "utf-8")
    labels = labels_of(detector(tmp_path / "it.tflite", 2), str(path.parent))
    assert (labels.source, labels.names) == ("recipe tiny", {1: "cat", 2: "dog"})
    with pytest.raises(UsageError, match=r"has 2 labels, .*it\.tflite has 3 classes"):
        labels_of(detector(tmp_path / "it.tflite", 3), str(path.parent))
    uint8 = replace(detector(tmp_path / "it.tflite", 2), input=open_detector(UINT8).input)
    with pytest.raises(
        ConfigError, match=r"it\.tflite is quantized, but the recipe tiny has no quantized variant"
    ):
        labels_of(uint8, str(path.parent))


def test_a_text_has_class_1_first(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"cat\r\n\r\ndog\n")
    labels = read_labels(path, 3)
    assert [labels.name_of(number) for number in (1, 2, 3)] == ["cat", "class 2", "dog"]


def test_a_label_map_may_have_gaps_and_fields_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "map.pbtxt"
    path.write_text(LABEL_MAP, "utf-8")
    assert read_labels(path, 3).names == {1: "Person's", 3: "bicycle 'old'"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"???\ncat\ndog\n", "line 3: too many labels: 3 labels for 2 classes of the detector"),
        ("l.txt", b"cat\n", "line 2: too few labels"),
        ("l.txt", b"", "line 1: too few labels"),
        ("l.txt", b"cat\n\xff\n", "line 2: not UTF-8"),
        ("l.pbtxt", b"", "has no labels"),
        ("l.pbtxt", b"\nentry { }", "line 2: expected `item`, found entry"),
        ("l.pbtxt", b"item id", "line 1: expected { after `item`, found id"),
        ("l.pbtxt", b"item {\n id: 1\n", "line 1: this item has no end"),
        ("l.pbtxt", b"item { id: 1\n keypoints { id: 3 ", "line 1: this item has no end"),
        ("l.pbtxt", b"\nitem { id: 1 }", "line 2: this item has no name"),
        ("l.pbtxt", b"\nitem { name: 'cat' }", "line 2: this item has no id"),
        ("l.pbtxt", b"item {\n id: 0 name: 'cat' }", "line 2: id 0 is not one of .* 1 to 2"),
        ("l.pbtxt", b"item {\n id: 3 name: 'cat' }", "line 2: id 3 is not one of"),
        ("l.pbtxt", b"item {\n id: 'x' name: 'cat' }", "line 2: id 'x' is not one of"),
        ("l.pbtxt", b"item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }", "line 2: id 1 occurs twice"),
        ("l.pbtxt", b"item {\n id: }", "line 2: expected `name: value` at }"),
        ("l.pbtxt", b"item {\n id: 1 name: 'cat }", "line 2: expected `name: value` at '"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_labels(path, 2)
    assert str(path) in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the labels .*none\.txt: No such file"):
        read_labels(tmp_path / "none.txt", 2)
