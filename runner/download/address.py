"""Tell an address from a path of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.request import url2pathname

from runner.errors import UsageError


def local_path(source: str) -> Path | None:
    """Tell a file or folder from an address.

    Raises:
        UsageError: it is no address, and there is no such file, or it may not be read.
    """
    if "://" in source and not source.startswith("file://"):
        return None
    path = Path(url2pathname(source.removeprefix("file://")) if "://" in source else source).expanduser()
    if not path.exists():
        raise UsageError(
            f"there is no file or folder {path}", tip="an address begins with http:// or https://"
        )
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} may not be read")
    return path.absolute()
