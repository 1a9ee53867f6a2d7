"""Logs of the toolchain's scripts: kept in the cache, so that a failed run can be read after its end."""

from __future__ import annotations

import shutil
import tempfile
import time
from typing import TYPE_CHECKING, Final

from runner.host.cache_dir import cache_dir, disk_problems_named

if TYPE_CHECKING:
    from pathlib import Path

KEPT_RUNS: Final = 20


def new_log_dir() -> Path:
    """Make a folder for the logs of one run; only the newest of them are kept."""
    logs = cache_dir() / "logs"
    with disk_problems_named(logs):
        logs.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
        folder = tempfile.mkdtemp(prefix=stamp, dir=logs)
        for old in sorted(path for path in logs.iterdir() if path.is_dir())[:-KEPT_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
    return logs / folder
