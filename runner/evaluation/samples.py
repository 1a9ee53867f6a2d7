"""Write generated images with their labels, in COCO's format."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from runner.errors import UsageError
from runner.evaluation.shapes import LABELS, SIDE, DrawnImage, draw
from runner.host.cache_dir import translate_disk_errors

IMAGES = "images"
ANNOTATIONS = "annotations.json"


def write_samples(folder: Path, *, count: int, seed: int) -> None:
    """Write ``count`` images to ``folder/images`` and their labels to ``folder/annotations.json``.

    The folder only appears when it is complete.

    Raises:
        UsageError: the folder is not empty or not writable.
        DiskFullError: the disk is full.
    """
    with translate_disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is not an empty folder", tip="name a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".samples-", dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            _write(made, count=count, seed=seed)
            made.replace(folder)


def _write(folder: Path, *, count: int, seed: int) -> None:
    (folder / IMAGES).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        picture = draw(seed, number)
        name = f"{number:06}.png"
        Image.fromarray(picture.pixels).save(folder / IMAGES / name)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        annotations += _annotations(picture, number, first_id=len(annotations) + 1)
    categories = [{"id": number, "name": label} for number, label in enumerate(LABELS, start=1)]
    content = {
        "info": {"description": f"{count} images drawn by `samples`, seed {seed}"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    (folder / ANNOTATIONS).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _annotations(picture: DrawnImage, image_id: int, *, first_id: int) -> list[dict[str, Any]]:
    return [
        {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": LABELS.index(shape.label) + 1,
            "bbox": [shape.left, shape.top, shape.side, shape.side],
            "area": shape.side**2,
            "iscrowd": 0,
        }
        for annotation_id, shape in enumerate(picture.shapes, start=first_id)
    ]
