"""Create folders atomically: a folder is either complete or ignored.

``HOME/`` contains one folder per attempt, each with a unique name, and the marker ``whole.json``, which names
the complete one. The marker is written last and renamed into place, so the folder of a killed attempt is
never mistaken for a complete one. Since names are unique, a child process that survives its killed parent
writes into a folder that is no longer used.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.host.cache_dir import exclusive, translate_disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

MARKER: Final = "whole.json"


def find_whole_folder(home: Path) -> Path | None:
    """Return the complete folder in ``home``, or None."""
    try:
        marker = json.loads((home / MARKER).read_text(encoding="utf-8"))
        folder = home / marker["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if folder.is_dir() else None


def make_whole_folder(
    home: Path,
    make: Callable[[Path], None],
    *,
    facts: Mapping[str, str],
    find: Callable[[], Path | None],
    step: Callable[[], AbstractContextManager[None]],
) -> Path:
    """Find or make the complete folder. If two runs do this at the same time, one of them waits.

    ``make`` fills an empty folder. ``facts`` are recorded in the marker. ``find`` searches for the folder
    after the lock has been acquired; ``step`` prints progress while the folder is made.

    Raises:
        UsageError: the cache is not writable.
        DiskFullError: the disk is full.
    """
    with exclusive(home):
        found = find()
        if found is not None:
            return found
        with step():
            return _make(home, make, facts)


def _make(home: Path, make: Callable[[Path], None], facts: Mapping[str, str]) -> Path:
    with translate_disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        (home / MARKER).unlink(missing_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="attempt-", dir=home))
        _remove_others(folder)
    try:
        make(folder)
        with translate_disk_errors(home):
            _write_marker(folder, facts)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _remove_others(folder)  # again: a child process of a killed attempt may have written more files
    return folder


def _remove_others(folder: Path) -> None:
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)


def _write_marker(folder: Path, facts: Mapping[str, str]) -> None:
    unfinished = folder.parent / f"{MARKER}.unfinished"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump({"folder": folder.name, **facts}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder.parent / MARKER)
