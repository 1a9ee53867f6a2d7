"""Folders that are made once, and are whole or not there.

A home ``HOME/`` holds the attempts to make such a folder, each under a name of its own, and ``whole.json``,
which names the one that became whole. That file is written last and renamed into place, so an attempt that
was killed at any moment is never taken for whole; and since no name is used twice, a child process that
outlives its killed parent writes into a folder that nobody looks at any more.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.host.cache_dir import disk_problems_named, exclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

MARKER: Final = "whole.json"


def find_whole_folder(home: Path) -> Path | None:
    """Return the folder in ``home`` that is whole, if there is one."""
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
    """Find the whole folder or make it; of two runs at once, one makes it and the other waits.

    ``make`` fills an empty folder. ``facts`` are recorded in the marker. ``find`` looks for the folder again
    once it is this run's turn; ``step`` is what to show while it is made.

    Raises:
        UsageError: the cache cannot be written.
        DownloadError: its disk is full.
    """
    with exclusive(home):
        found = find()
        if found is not None:
            return found
        with step():
            return _make(home, make, facts)


def _make(home: Path, make: Callable[[Path], None], facts: Mapping[str, str]) -> Path:
    with disk_problems_named(home):
        home.mkdir(parents=True, exist_ok=True)
        (home / MARKER).unlink(missing_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="attempt-", dir=home))
        _remove_others(folder)
    try:
        make(folder)
        with disk_problems_named(home):
            _write_marker(folder, facts)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _remove_others(folder)  # again: a child of a killed attempt may have gone on for a while
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
