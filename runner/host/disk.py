"""Turn the errors about full disks into one error type, `DiskFullError`."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final

from runner.errors import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk and of an exceeded quota."""

WORDS: Final = ("no space left on device", "disk quota exceeded")
"""How other programs report these errors, in upper or lower case."""


@contextlib.contextmanager
def translate_disk_full(path: Path | None = None, *, tip: str = "free some space") -> Iterator[None]:
    """Turn the OSError of a full disk into our error; other errors are not changed.

    The message names the disk that contains ``path`` or, without ``path``, the file in the OSError, if any.

    Raises:
        DiskFullError: the disk is full, or a quota is exceeded.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno not in FULL:
            raise
        place = path or problem.filename
        raise DiskFullError(
            "a disk is full" if place is None else f"the disk that contains {place} is full", tip=tip
        ) from problem


def is_reported(output: str) -> bool:
    """Return whether the output of another program reports a full disk."""
    return any(words in output.lower() for words in WORDS)
