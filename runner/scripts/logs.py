"""Log folders of the toolchain's scripts. They are in the cache, so that logs can be read after a failure."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from runner.host.cache_dir import cache_dir, translate_disk_errors
from runner.host.in_use import is_in_use, mark_until_exit

NAME_PATTERN: Final = r"\d{8}-\d{6}-\w{8}"
KEPT_RUNS: Final = 20
KEPT_FOR_S: Final = 24 * 3600.0
"""Logs that are younger than this are kept, in addition to those of the last runs."""


def new_log_dir() -> Path:
    """Create the log folder of a new run and delete old ones, except those of running programs."""
    logs = cache_dir() / "logs"
    with translate_disk_errors(logs):
        logs.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
        folder = Path(tempfile.mkdtemp(prefix=stamp, dir=logs))
        mark_until_exit(folder)
        _remove_old(logs)
    return folder


def _remove_old(logs: Path) -> None:
    ours = (path for path in logs.iterdir() if re.fullmatch(NAME_PATTERN, path.name))
    newest_first = sorted(((_made_s(path), path) for path in ours), reverse=True)
    for made_s, folder in newest_first[KEPT_RUNS:]:
        if made_s < time.time() - KEPT_FOR_S and not is_in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _made_s(folder: Path) -> float:
    """Return when the last log in a folder was created, or 0 if another run has just removed it."""
    try:
        return folder.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
