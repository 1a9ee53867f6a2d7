"""Where the runner keeps what it can make or fetch again, and how two runs share that place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import console
from runner.errors import DownloadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE_DIR_VARIABLE: Final = "RUNNER_CACHE_DIR"


def cache_dir() -> Path:
    """Say where the cache is: RUNNER_CACHE_DIR, else the user's cache folder; it need not exist yet."""
    chosen = os.environ.get(CACHE_DIR_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mobiledet-runner", appauthor=False))


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time make ``path``; the others wait here and then find it made.

    The lock lies in the cache, not beside ``path``: no litter in a user's folder. The system drops it when
    its owner dies, however it dies.
    """
    import filelock

    file = lock_file(path)
    with disk_problems_named(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            console.note(f"   another run is making {path}; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_file(path: Path) -> Path:
    """Say which file is locked while ``path`` is being made."""
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return cache_dir() / "locks" / f"{name}.lock"


@contextlib.contextmanager
def disk_problems_named(path: Path) -> Iterator[None]:
    """Turn what the system says about ``path`` into a message.

    Raises:
        DownloadError: the disk is full, a quota is used up, or the disk itself fails.
        UsageError: the place may not be written, or is no place for files at all.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in {errno.ENOSPC, errno.EDQUOT}:
            message = f"the disk of {path} has not room enough"
            tip = f"make room, or use another place: set {CACHE_DIR_VARIABLE}, or `--out DIR`"
            raise DownloadError(message, tip=tip) from problem
        if problem.errno == errno.EIO:
            raise DownloadError(f"the disk of {path} fails: {problem.strerror}") from problem
        message = f"{path} cannot be used: {problem.strerror or problem}"
        tip = f"use another place: set {CACHE_DIR_VARIABLE}, or `--out DIR`"
        raise UsageError(message, tip=tip) from problem
