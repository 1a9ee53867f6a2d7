"""Draw boxes on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.errors import UsageError
from runner.host.output_dir import OutputDir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from runner.evaluation.detector import Box

JPEG: Final = frozenset({".jpg", ".jpeg"})
COLOURS: Final = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A box in pixels with a text; boxes of the same class have the same colour."""

    box: Box
    text: str
    class_id: int


def drawing_targets(folder: Path, pictures: Sequence[Path], *, overwrite: bool) -> dict[Path, Path]:
    """Return the output file for each image: a JPEG for a JPEG, otherwise a PNG.

    Raises:
        UsageError: two images would be written to the same file, or a file exists and must not be replaced.
    """
    targets: dict[Path, Path] = {}
    for picture in pictures:
        suffix = picture.suffix if picture.suffix.lower() in JPEG else ".png"
        target = folder / f"{picture.stem}{suffix}"
        if target in targets.values():
            raise UsageError(f"two of the images would be drawn to {target}", tip="pass one at a time")
        if target.exists() and target.samefile(picture):
            raise UsageError(
                f"{target} is the image itself, which is never replaced", tip="name another folder"
            )
        if target.is_dir() or (target.exists() and not overwrite):
            raise UsageError(f"{target} already exists", tip="move it away, or use --overwrite to replace it")
        targets[picture] = target
    return targets


def draw(pixels: NDArray[np.uint8], captions: Sequence[Caption], target: Path) -> None:
    """Write an image, (height, width, 3), with boxes and captions; the best scores are drawn on top.

    Raises:
        UsageError: the folder cannot be created or is not writable.
        DiskFullError: the disk is full.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 300))
    font = ImageFont.load_default(size=max(12, 6 * line))
    for caption in reversed(captions):
        box, colour = caption.box, COLOURS[caption.class_id % len(COLOURS)]
        left, right = sorted((box.xmin, box.xmax))
        top, bottom = sorted((box.ymin, box.ymax))
        canvas.rectangle((left, top, right, bottom), outline=colour, width=line)
        at = (max(0.0, left), max(0.0, top))
        canvas.rectangle(canvas.textbbox(at, caption.text, font=font), fill=colour)
        canvas.text(at, caption.text, fill="white", font=font)
    out = OutputDir.at(target.parent)
    with out.work_dir() as work_dir:
        picture.save(work_dir / target.name, quality=95)
        out.publish({target.name: work_dir / target.name})
