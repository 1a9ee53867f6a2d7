"""The one other place where TOCO's outputs differ: which runtime the file asks for.

TOCO of TensorFlow 1.15 writes ``min_runtime_version`` 1.5.0, that of 2.1 writes 1.14.0 for the same graph,
and all other bytes stay where they are: the padding behind the text has room for both.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runner.tflite.model import Metadata, Model

METADATA_NAME: Final = "min_runtime_version"
TOCO_VERSIONS: Final = ("1.5.0", "1.14.0")
"""What the TOCO of TensorFlow 1.15.0, 1.15.5 (1.5.0), 2.1.4 and 2.4.4 (1.14.0) write."""


def read_min_runtime_version(model: Model) -> str | None:
    """Return the version as it stands in the file; None if there is none."""
    entry = _find(model)
    return None if entry is None else entry.content.rstrip(b"\0").decode("ascii", "backslashreplace")


def possible_versions(model: Model) -> tuple[str | None, ...]:
    """Return the versions TOCO may have written, the file's own first.

    The others only where the file's own is one of TOCO's: nothing is known about the layout of another
    writer.
    """
    own = read_min_runtime_version(model)
    if own not in TOCO_VERSIONS or not _has_toco_padding(model):
        return (own,)
    return (own, *(version for version in TOCO_VERSIONS if version != own))


def replace_min_runtime_version(model: Model, version: str | None) -> bytes:
    """Return the whole file with another of its `possible_versions`."""
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
    """Round up to the eight bytes in which TOCO pads either version."""
    return size + -size % 8
