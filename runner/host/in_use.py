"""Mark folders as in use, so that no other run removes them.

The mark is a lock on the folder itself: it leaves no file, and the operating system releases it when the
process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MARKED: Final[list[int]] = []
"""Descriptors of the folders that this process has marked until it ends."""


def mark_until_exit(folder: Path) -> None:
    """Mark a folder as in use until this process ends."""
    _MARKED.append(_marked(folder))


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Mark a folder as in use in this context."""
    descriptor = _marked(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def is_in_use(folder: Path) -> bool:
    """Return whether a running process has marked this folder; False if the folder was just removed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # this file system does not support locks
        return False
    finally:
        os.close(descriptor)
    return False


def _marked(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):  # this file system does not support locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor
