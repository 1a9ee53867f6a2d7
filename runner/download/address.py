"""Distinguish URLs from local paths."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from runner.errors import UsageError


def local_path(source: str) -> Path | None:
    """Return the path if ``source`` is a local path or a file:// URL, or None if it is any other URL.

    Raises:
        UsageError: the path does not exist or is not readable.
    """
    if "://" in source and not source.startswith("file://"):
        return None
    path = Path(unquote(source.removeprefix("file://")) if "://" in source else source).expanduser()
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}", tip="a URL begins with http:// or https://")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} is not readable", tip="check its permissions")
    return path.absolute()
