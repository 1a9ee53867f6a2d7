"""Read annotations in COCO's format; errors name the invalid entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

VAL2017: Final = (5000, 36781, 80)
"""How many images, boxes and categories COCO's val2017 has."""
PIXEL: Final = 1.0
"""How many pixels a box may extend beyond its image, because annotations are rounded."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image of the set; width and height are those of the file, before EXIF orientation."""

    id: int
    file_name: str
    width: int
    height: int


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """A box: left, top, width and height in pixels."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0
    area: float | None = None


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """A category; its id is the detector's class id."""

    id: int
    name: str


class Annotations(msgspec.Struct, frozen=True, kw_only=True):
    """The annotations of a whole set of images."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]

    @property
    def is_like_val2017(self) -> bool:
        """Whether there are as many images, boxes and categories as in COCO's val2017."""
        return (len(self.images), len(self.annotations), len(self.categories)) == VAL2017

    def first(self, count: int) -> Annotations:
        """Return the first ``count`` images with their boxes."""
        images = self.images[:count]
        kept = {image.id for image in images}
        boxes = tuple(box for box in self.annotations if box.image_id in kept)
        return Annotations(images=images, annotations=boxes, categories=self.categories)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Where the annotations and the images are; with ``limit``, only the first images are used."""

    annotations: Path
    images: Path
    limit: int | None = None

    def read(self) -> Annotations:
        """Read and check the annotations, and check that the images exist.

        Raises:
            UsageError: as `read_annotations`, or an image is missing.
        """
        found = read_annotations(self.annotations)
        used = found if self.limit is None else found.first(self.limit)
        _check_images(self.annotations, used.images, self.images)
        return used

    def check_classes(self, categories: Iterable[Category], class_count: int) -> None:
        """Check that all categories are classes of a detector.

        Raises:
            UsageError: the id of a category is not a class.
        """
        for index, category in enumerate(categories):
            if not 1 <= category.id <= class_count:
                raise UsageError(
                    f"{self.annotations}: categories[{index}], {category.name}, has the id {category.id}; "
                    f"the detector has the classes 1 to {class_count}"
                )


def read_annotations(path: Path) -> Annotations:
    """Read and check the annotations of a set.

    Raises:
        UsageError: the file cannot be read, is not JSON or not in COCO's format, or an entry is invalid.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Annotations)
    except OSError as problem:
        raise UsageError(f"cannot read the annotations {path}: {problem.strerror}") from problem
    except msgspec.ValidationError as problem:
        raise UsageError(f"{path} is not in COCO's format: {problem}") from problem
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is not JSON: {problem}") from problem
    if not found.images:
        raise UsageError(f"{path} has no images")
    for name, entries in (("images", found.images), ("annotations", found.annotations)):
        _check_ids(path, name, entries)
    _check_ids(path, "categories", found.categories)
    _check_boxes(path, found)
    return found


def _check_ids(path: Path, name: str, entries: Sequence[Image | Annotation | Category]) -> None:
    seen: set[int] = set()
    for index, entry in enumerate(entries):
        if entry.id in seen:
            raise UsageError(f"{path}: {name}[{index}] has the id {entry.id}, like an earlier entry")
        seen.add(entry.id)


def _check_boxes(path: Path, found: Annotations) -> None:
    images = {image.id: image for image in found.images}
    categories = {category.id for category in found.categories}
    for index, box in enumerate(found.annotations):
        entry = f"{path}: annotations[{index}] (id {box.id})"
        image = images.get(box.image_id)
        if image is None:
            raise UsageError(f"{entry} refers to image {box.image_id}, which is not in the set")
        if box.category_id not in categories:
            raise UsageError(f"{entry} has the unknown category {box.category_id}")
        if not _is_inside(box, image):
            raise UsageError(
                f"{entry} is not inside {image.file_name} ({image.width} x {image.height}): {list(box.bbox)}",
                tip="write a box as left, top, width, height, in pixels",
            )


def _is_inside(box: Annotation, image: Image) -> bool:
    left, top, width, height = box.bbox
    return (
        min(width, height) >= 0
        and min(left, top) >= -PIXEL
        and left + width <= image.width + PIXEL
        and top + height <= image.height + PIXEL
    )


def _check_images(path: Path, images: Iterable[Image], folder: Path) -> None:
    for index, image in enumerate(images):
        picture = folder / image.file_name
        if not picture.is_file():
            raise UsageError(
                f"{path}: images[{index}] (id {image.id}): there is no image {picture}",
                tip="pass the folder of the images as --images; the file names are relative to that folder",
            )
