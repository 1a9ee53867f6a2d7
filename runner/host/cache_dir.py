"""The cache folder, its locks for concurrent runs, and its disk errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import console
from runner.errors import DownloadError, UsageError
from runner.host.disk import translate_disk_full

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE_DIR_VARIABLE: Final = "RUNNER_CACHE_DIR"
OTHER_FOLDER: Final = f"use another folder: set {CACHE_DIR_VARIABLE}, or `--out DIR`"


def cache_dir() -> Path:
    """Return the cache folder, which may not exist yet: RUNNER_CACHE_DIR, or one in the user's cache."""
    chosen = os.environ.get(CACHE_DIR_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mobiledet-runner", appauthor=False))


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``, so that only one process at a time creates it; the others wait.

    The lock file is in the cache, not beside ``path``, to keep users' folders clean. The operating system
    releases the lock if its owner dies.
    """
    import filelock

    file = lock_file(path)
    with translate_disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            console.note(f"   waiting for another run that is creating {path}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_file(path: Path) -> Path:
    """Return the lock file of ``path``."""
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return cache_dir() / "locks" / f"{name}.lock"


@contextlib.contextmanager
def translate_disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about ``path`` into one of our errors.

    Raises:
        DiskFullError: the disk is full, or a quota is exceeded.
        DownloadError: the disk has an I/O error.
        UsageError: any other error: ``path`` is not writable, or not a valid place for files.
    """
    try:
        with translate_disk_full(path, tip=f"free some space, or {OTHER_FOLDER}"):
            yield
    except OSError as problem:
        if problem.errno == errno.EIO:
            message = f"the disk that contains {path} has an I/O error: {problem.strerror}"
            raise DownloadError(message, tip="use another disk") from problem
        message = f"{path} cannot be used: {problem.strerror or problem}"
        raise UsageError(message, tip=OTHER_FOLDER) from problem
