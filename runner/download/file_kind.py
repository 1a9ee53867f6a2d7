"""Detect the type of a file from its first bytes, regardless of its name or Content-Type."""

from __future__ import annotations

import html
import re
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES: Final = 4096


class Content(Enum):
    """The type of a file; the value is its description in messages."""

    EMPTY = "nothing (0 bytes)"
    HTML = "an HTML page"
    XML = "an XML document"
    LFS_POINTER = "a Git LFS pointer"
    GZIP = "gzip data"
    ZIP = "a zip archive"
    ZSTD = "Zstandard data"
    TAR = "a tar archive"
    TFLITE = "a TFLite model"
    TEXT = "text"
    BINARY = "binary data of an unknown type"


def read_head(path: Path) -> bytes:
    """Read the first `HEAD_BYTES` bytes of a file, for `recognise`."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def recognise(head: bytes) -> Content:
    """Detect the type of a file from its first `HEAD_BYTES` bytes."""
    by_signature = {
        Content.GZIP: head.startswith(b"\x1f\x8b"),
        Content.ZIP: head.startswith(b"PK\x03\x04"),
        Content.ZSTD: head.startswith(b"\x28\xb5\x2f\xfd"),
        Content.TAR: head[257:262] == b"ustar",
        Content.TFLITE: head[4:8] == b"TFL3",
        Content.LFS_POINTER: head.startswith(b"version https://git-lfs.github.com/spec/"),
        Content.EMPTY: not head,
    }
    for content, found in by_signature.items():
        if found:
            return content
    return _kind_of_text(head)


def _kind_of_text(head: bytes) -> Content:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<?xml") and b"<html" not in start:
        return Content.XML
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start:
        return Content.HTML
    # A multi-byte character may be truncated at the end of the head.
    is_text = "\ufffd" not in head.decode("utf-8", "replace")[:-4] and b"\0" not in head
    return Content.TEXT if is_text else Content.BINARY


def first_words(head: bytes, limit: int = 100) -> str:
    """Return the beginning of a file, for messages: words if it is a page or text, else 8 bytes in hex."""
    if recognise(head) not in {Content.HTML, Content.XML, Content.TEXT, Content.LFS_POINTER}:
        return head[:8].hex(" ")
    text = head.decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style)\b.*?(</\1>|$)", " ", text)
    text = html.unescape(re.sub(r"(?s)<[^>]*(>|$)", " ", text))
    # Control characters in downloaded text must not reach the terminal.
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return f"{text[: limit - 1]}…" if len(text) > limit else text
