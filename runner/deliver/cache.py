"""Cache of finished conversions.

An entry is a folder named by its key. It contains all files of a conversion and ``entry.json``, which lists
the sha256 of each. An entry is written to a temporary folder and renamed, so a killed run leaves no partial
entry. Every file is verified while it is copied out of the cache. An entry whose digests do not match is
removed, unless another run has replaced the entry in the meantime. The key, which is part of the plan, is a
digest of all inputs, so entries never become outdated.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runner import console
from runner.errors import UsageError
from runner.host.cache_dir import cache_dir
from runner.host.digests import copy_with_sha256
from runner.host.disk import translate_disk_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


FOLDER_NAME: Final = "conversions"
MANIFEST_NAME: Final = "entry.json"
LIMIT_VARIABLE: Final = "RUNNER_CACHE_MIB"
DEFAULT_LIMIT_MIB: Final = 2048
"""Enough for about fifty conversions of 30 to 50 MB each."""
ABANDONED_AFTER_S: Final = 3600.0
"""A partial entry that is older than this was left behind by a killed run."""


@dataclass(frozen=True, kw_only=True)
class ConversionCache:
    """A conversion cache in a folder; above the size limit, the least recently used entries are evicted."""

    folder: Path
    limit_mib: int = DEFAULT_LIMIT_MIB
    what: str = "conversion"
    """The noun for an entry in messages."""

    def take(self, key: str, names: Iterable[str], into: Path) -> bool:
        """Copy the files of an entry into a new folder; return False if it is missing or damaged.

        Raises:
            DiskFullError: the disk is too full for the copies.
        """
        entry, names = self.folder / key, tuple(names)
        try:
            with _opened(entry) as folder, translate_disk_full(into):
                into.mkdir()
                fault = _copy_out(entry, names, into)
                if fault is None:
                    return True
                shutil.rmtree(into)
                if _is_at(entry, folder):
                    console.warn(
                        f"{entry} is damaged ({fault}); it is removed, and the {self.what} is made again"
                    )
                    self._remove(entry, folder)
                    return False
        except FileNotFoundError:  # there is no such entry
            return False
        except OSError as problem:
            console.warn(f"{entry} could not be used: {problem.strerror}")
            shutil.rmtree(into, ignore_errors=True)
            return False
        return self.take(key, names, into)  # another run has replaced or removed the entry

    def keep(self, key: str, files: Iterable[Path]) -> None:
        """Store copies of the files of a conversion; if that fails, print a warning and continue."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=self.folder))
            try:
                _write_entry(unfinished, files)
                self._put_in_place(unfinished, self.folder / key)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            self._shrink()
        except OSError as problem:
            console.warn(f"the {self.what} could not be cached in {self.folder}: {problem.strerror}")

    def remove(self, key: str) -> None:
        """Remove an entry, if there is one."""
        if (self.folder / key).is_dir():
            self._remove(self.folder / key)

    def _put_in_place(self, unfinished: Path, entry: Path) -> None:
        """Rename a finished entry to its final name, replacing an existing one."""
        with contextlib.suppress(FileNotFoundError):
            old = unfinished.with_name(f"{unfinished.name}-old")
            entry.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        try:
            unfinished.rename(entry)
        except OSError:
            if not entry.is_dir():  # otherwise, another run has just stored the same entry
                raise

    def _remove(self, entry: Path, folder: int | None = None) -> None:
        """Remove an entry, which is renamed first, so that other runs find either a complete entry or none.

        ``folder`` is an open descriptor of the entry. If it is given, and another run has replaced the entry
        in the meantime, the new entry is kept.
        """
        aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=self.folder))
        with contextlib.suppress(FileNotFoundError):  # another run has just removed it
            entry.rename(aside)
            if folder is not None and not _is_at(aside, folder):
                self._put_in_place(aside, entry)
        shutil.rmtree(aside, ignore_errors=True)

    def _shrink(self) -> None:
        """Evict the least recently used entries above the size limit; remove old partial entries."""
        sizes = {path: _size_and_last_use(path) for path in self.folder.iterdir() if path.is_dir()}
        total_bytes = 0
        for entry, (size_bytes, used_s) in sorted(sizes.items(), key=lambda it: it[1][1], reverse=True):
            if entry.name.startswith("."):
                if time.time() - used_s > ABANDONED_AFTER_S:
                    shutil.rmtree(entry, ignore_errors=True)
                continue
            total_bytes += size_bytes
            if total_bytes > self.limit_mib << 20:
                self._remove(entry)


def user_cache() -> ConversionCache | None:
    """Return the user's cache with the size limit RUNNER_CACHE_MIB, or None if the limit is 0.

    Raises:
        UsageError: RUNNER_CACHE_MIB is not a number.
    """
    limit = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_MIB)
    if not (limit.isascii() and limit.isdigit()):
        raise UsageError(
            f"{LIMIT_VARIABLE}={limit}: not a number of MiB",
            tip="use a number such as 2048; 0 turns the cache off",
        )
    return ConversionCache(folder=cache_dir() / FOLDER_NAME, limit_mib=int(limit)) if int(limit) else None


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Yield a descriptor of a folder. Until it is closed, no other folder can get the same inode."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_at(path: Path, folder: int) -> bool:
    """Return whether the opened folder is still at this path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(folder))
    except FileNotFoundError:
        return False


class _DamagedEntryError(Exception):
    """A cache entry is damaged; the message names the file."""


def _copy_out(entry: Path, names: tuple[str, ...], into: Path) -> str | None:
    """Copy the files of an entry into a folder; return what is wrong with the entry, or None."""
    try:
        for name, sha256 in _read_manifest(entry, names).items():
            if copy_with_sha256(entry / name, into / name) != sha256:
                return name
        os.utime(entry)  # record the time of last use
    except (FileNotFoundError, _DamagedEntryError) as problem:
        return str(problem)
    return None


def _read_manifest(entry: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the sha256 of each file, keyed by name; the names must be the requested ones."""
    try:
        manifest: Any = json.loads((entry / MANIFEST_NAME).read_bytes())
        digests = {str(name): str(sha256) for name, sha256 in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _DamagedEntryError(MANIFEST_NAME) from None
    if digests.keys() != set(names):
        raise _DamagedEntryError(MANIFEST_NAME)
    return digests


def _write_entry(folder: Path, files: Iterable[Path]) -> None:
    digests = {file.name: copy_with_sha256(file, folder / file.name) for file in files}
    (folder / MANIFEST_NAME).write_text(json.dumps({"files": digests}, indent=2), "utf-8")


def _size_and_last_use(entry: Path) -> tuple[int, float]:
    """Return an entry's size and time of last use; 0 and the current time if the entry is gone."""
    try:
        return sum(file.stat().st_size for file in entry.iterdir()), entry.stat().st_mtime
    except OSError:
        return 0, time.time()
