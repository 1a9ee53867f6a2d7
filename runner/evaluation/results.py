"""Write detections in COCO's results format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import UsageError
from runner.host.output_dir import OutputDir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def result_targets(folder: Path, files: Sequence[Path], *, overwrite: bool) -> dict[Path, Path]:
    """Return the JSON file to write for each detector.

    Raises:
        UsageError: two detectors have the same name, or a file exists and must not be replaced.
    """
    targets = {file: folder / f"{file.stem}.json" for file in files}
    if len(set(targets.values())) != len(files):
        raise UsageError("two of the files have the same name", tip="evaluate one at a time")
    for target in targets.values():
        if target.is_dir() or (target.exists() and not overwrite):
            raise UsageError(f"{target} already exists", tip="move it away, or use --overwrite to replace it")
    return targets


def write_results(detections: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Write detections to a file.

    Raises:
        UsageError: the folder cannot be created or is not writable.
        DiskFullError: the disk is full.
    """
    out = OutputDir.at(target.parent)
    with out.work_dir() as work_dir:
        product = work_dir / target.name
        product.write_bytes(msgspec.json.encode(detections))
        out.publish({target.name: product})
