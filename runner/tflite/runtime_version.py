"""Read and replace the metadata entry ``min_runtime_version``, which depends on the TensorFlow version.

For the same graph, TOCO of TensorFlow 1.15 writes 1.5.0 and TOCO of 2.1 writes 1.14.0. All other bytes are
the same and keep their positions, because both texts fit into the padded size.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runner.tflite.model import Metadata, Model

METADATA_NAME: Final = "min_runtime_version"
TOCO_VERSIONS: Final = ("1.5.0", "1.14.0")
"""Written by TOCO of TensorFlow 1.15.0 and 1.15.5 (1.5.0), and of 2.1.4 and 2.4.4 (1.14.0)."""


def read_min_runtime_version(model: Model) -> str | None:
    """Return the version in the file, or None if there is none."""
    entry = _find(model)
    return None if entry is None else entry.content.rstrip(b"\0").decode("ascii", "backslashreplace")


def possible_versions(model: Model) -> tuple[str | None, ...]:
    """Return the versions that TOCO may have written; the file's own is the first.

    If TOCO did not write the file's own version, only that version is returned: it cannot be replaced,
    because the layout of the entry is unknown.
    """
    own = read_min_runtime_version(model)
    if own not in TOCO_VERSIONS or not _has_toco_padding(model):
        return (own,)
    return (own, *(version for version in TOCO_VERSIONS if version != own))


def replace_min_runtime_version(model: Model, version: str | None) -> bytes:
    """Return the whole file with a version from `possible_versions` instead of its own."""
    entry = _find(model)
    if version is None or entry is None or entry.span is None or version == read_min_runtime_version(model):
        return model.content
    text = version.encode("ascii")
    start, end = entry.span.start, entry.span.start + _padded(len(entry.content))
    field = struct.pack("<I", len(text)) + text.ljust(end - start, b"\0")
    return b"".join((model.content[: start - 4], field, model.content[end:]))


def _find(model: Model) -> Metadata | None:
    entries = [entry for entry in model.metadata if entry.name == METADATA_NAME]
    return entries[0] if len(entries) == 1 else None


def _has_toco_padding(model: Model) -> bool:
    entry = _find(model)
    if entry is None or entry.span is None:
        return False
    padding = model.content[entry.span.stop : entry.span.start + _padded(len(entry.content))]
    return padding == bytes(_padded(len(entry.content)) - len(entry.content))


def _padded(size: int) -> int:
    """Round up to a multiple of 8, which is the padded size of both versions."""
    return size + -size % 8
