"""Finished conversions, kept so that the same one need not be made again.

An entry is a folder named by its key, with all that a conversion delivers and ``entry.json``, which names
each file with its sha256. It is made beside its place and renamed, so a killed run leaves no half entry; and
no byte of it is believed: each file is digested while it is copied out, and an entry that is not what it says
is removed. The key, which the plan has, digests all that goes in, so nothing is ever out of date.
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

if TYPE_CHECKING:
    from collections.abc import Iterable


FOLDER_NAME: Final = "conversions"
MANIFEST_NAME: Final = "entry.json"
LIMIT_VARIABLE: Final = "RUNNER_CACHE_MIB"
DEFAULT_LIMIT_MIB: Final = 2048
"""A conversion is 30 to 50 MB: the last fifty or so."""
ABANDONED_AFTER_S: Final = 3600.0
"""How old a half-written entry is that nobody can be writing any more."""


@dataclass(frozen=True, kw_only=True)
class ConversionCache:
    """Entries in one folder, the longest unused of which go when there are too many."""

    folder: Path
    limit_mib: int = DEFAULT_LIMIT_MIB

    def take(self, key: str, names: Iterable[str], into: Path) -> bool:
        """Copy the files of an entry into a new folder; say whether it was there, whole and as it was."""
        entry = self.folder / key
        if not entry.is_dir():
            return False
        try:
            _copy_out(entry, names, into)
        except (FileNotFoundError, _DamagedEntryError) as problem:
            console.warn(f"{entry} is damaged ({problem}): it is removed, and the conversion made anew")
            shutil.rmtree(entry, ignore_errors=True)
        except OSError as problem:
            console.warn(f"{entry} could not be used: {problem.strerror}")
        else:
            return True
        shutil.rmtree(into, ignore_errors=True)
        return False

    def keep(self, key: str, files: Iterable[Path]) -> None:
        """Keep copies of these files; without them a conversion is as good, so problems are only told."""
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
            console.warn(f"the conversion could not be kept in {self.folder}: {problem.strerror}")

    def _put_in_place(self, unfinished: Path, entry: Path) -> None:
        """Rename; an entry that is there already makes way."""
        with contextlib.suppress(FileNotFoundError):
            old = unfinished.with_name(f"{unfinished.name}-old")
            entry.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        try:
            unfinished.rename(entry)
        except OSError:
            if not entry.is_dir():  # else another run has just been here
                raise

    def _shrink(self) -> None:
        """Remove what was not used for the longest time, and what killed runs left half-written."""
        sizes = {path: _size_and_last_use(path) for path in self.folder.iterdir() if path.is_dir()}
        total_bytes = 0
        for entry, (size_bytes, used_s) in sorted(sizes.items(), key=lambda it: it[1][1], reverse=True):
            if entry.name.startswith("."):
                if time.time() - used_s > ABANDONED_AFTER_S:
                    shutil.rmtree(entry, ignore_errors=True)
                continue
            total_bytes += size_bytes
            if total_bytes > self.limit_mib << 20:
                shutil.rmtree(entry, ignore_errors=True)


def user_cache() -> ConversionCache | None:
    """Return the user's own cache, as large as RUNNER_CACHE_MIB allows; None where that is 0.

    Raises:
        UsageError: it is no number of MiB.
    """
    limit = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_MIB)
    if not (limit.isascii() and limit.isdigit()):
        raise UsageError(
            f"{LIMIT_VARIABLE}={limit}: not a number of MiB",
            tip="such as 2048; with 0 every conversion is made anew",
        )
    return ConversionCache(folder=cache_dir() / FOLDER_NAME, limit_mib=int(limit)) if int(limit) else None


class _DamagedEntryError(Exception):
    """An entry is not what it says; the message names the part."""


def _copy_out(entry: Path, names: Iterable[str], into: Path) -> None:
    digests = _read_manifest(entry, names)
    into.mkdir()
    for name, sha256 in digests.items():
        if copy_with_sha256(entry / name, into / name) != sha256:
            raise _DamagedEntryError(name)
    os.utime(entry)  # used just now


def _read_manifest(entry: Path, names: Iterable[str]) -> dict[str, str]:
    """Return name and sha256 of each file, which have to be the ones that are wanted."""
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
    """Return bytes and time; of an entry that another run has just removed, nothing and now."""
    try:
        return sum(file.stat().st_size for file in entry.iterdir()), entry.stat().st_mtime
    except OSError:
        return 0, time.time()
