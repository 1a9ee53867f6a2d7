"""Errors about annotations name the invalid entry."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import UsageError
from runner.evaluation.annotations import VAL2017, ImageSet, read_annotations

if TYPE_CHECKING:
    from pathlib import Path

SET: dict[str, Any] = {
    "info": {},
    "images": [
        {"id": 1, "file_name": "a.png", "width": 60, "height": 40},
        {"id": 2, "file_name": "b.png", "width": 60, "height": 40},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 60.5, 40], "segmentation": []},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 1, "area": 9.5},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


def write(folder: Path, content: object) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_a_set_is_read_and_limited_to_its_first_pictures(tmp_path: Path) -> None:
    found = read_annotations(write(tmp_path, SET))
    assert [box.area for box in found.annotations] == [None, 9.5]
    assert [box.id for box in found.first(1).annotations] == [1]
    assert found.first(9) == found
    assert not found.is_like_val2017


def test_a_set_of_val2017s_size_is_recognised(tmp_path: Path) -> None:
    images, boxes, categories = VAL2017
    content = {
        "images": [SET["images"][0] | {"id": number} for number in range(images)],
        "annotations": [SET["annotations"][1] | {"id": number} for number in range(boxes)],
        "categories": [{"id": number, "name": "it"} for number in range(categories)],
    }
    found = read_annotations(write(tmp_path, content))
    assert found.is_like_val2017
    assert not found.first(images - 1).is_like_val2017


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("images",), [], "has no images"),
        (("images", 1, "id"), 1, r"images\[1\] has the id 1, like an earlier entry"),
        (("annotations", 1, "id"), 1, r"annotations\[1\] has the id 1, like"),
        (("categories", 1, "id"), 1, r"categories\[1\] has the id 1, like"),
        (("annotations", 1, "image_id"), 7, r"annotations\[1\] \(id 2\) refers to image 7, which is not"),
        (("annotations", 1, "category_id"), 7, r"annotations\[1\] \(id 2\) has the unknown category 7"),
        (("annotations", 0, "bbox"), [0, 0, 62, 40], r"annotations\[0\] .* not inside a\.png \(60 x 40\)"),
        (("annotations", 0, "bbox"), [0, -2, 6, 4], r"annotations\[0\] .* not inside"),
        (("annotations", 0, "bbox"), [9, 9, -1, 4], r"annotations\[0\] .* not inside"),
        (
            ("annotations", 0, "bbox"),
            [9, 9, 4],
            r"not in COCO's format: .*length 4.*\$\.annotations\[0\]\.bbox",
        ),
        (("images", 0, "width"), "60", r"not in COCO's format: .*\$\.images\[0\]\.width"),
    ],
)
def test_the_wrong_entry_is_named(
    tmp_path: Path, place: tuple[str | int, ...], value: object, message: str
) -> None:
    content: Any = copy.deepcopy(SET)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    if place == ("images",):
        content["annotations"] = []
    path = write(tmp_path, content)
    with pytest.raises(UsageError, match=message) as caught:
        read_annotations(path)
    assert str(path) in caught.value.message


def test_what_is_not_json_or_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    with pytest.raises(UsageError, match=r"cannot read the annotations .*set\.json: No such file"):
        read_annotations(path)
    path.write_bytes(b'{"images": [')
    with pytest.raises(UsageError, match=r"set\.json is not JSON: "):
        read_annotations(path)
    path.write_bytes(b'{"images": [{"id": 1, "file_name": "\xff"}]}')
    with pytest.raises(UsageError, match=r"set\.json is not JSON: "):
        read_annotations(path)


def test_a_category_that_the_detector_does_not_know_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, SET)
    categories = read_annotations(path).categories
    pictures = ImageSet(annotations=path, images=tmp_path)
    pictures.check_classes(categories, 2)
    with pytest.raises(UsageError, match=r"categories\[1\], dog, has the id 2; .* classes 1 to 1"):
        pictures.check_classes(categories, 1)


def test_a_missing_picture_is_named_with_its_entry(tmp_path: Path) -> None:
    pictures = ImageSet(annotations=write(tmp_path, SET), images=tmp_path / "images")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").touch()
    with pytest.raises(UsageError, match=r"images\[1\] \(id 2\): there is no image .*images/b\.png") as it:
        pictures.read()
    assert "--images" in str(it.value.tip)
    limited = ImageSet(annotations=pictures.annotations, images=pictures.images, limit=1)
    assert [image.id for image in limited.read().images] == [1]
