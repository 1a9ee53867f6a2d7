"""Log folders of the toolchain's scripts, in the cache, so that the log of a failed run can be read later."""

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
    """Create the log folder of a new run and delete the oldest ones."""
    logs = cache_dir() / "logs"
    with disk_problems_named(logs):
        logs.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
        folder = tempfile.mkdtemp(prefix=stamp, dir=logs)
        for old in sorted(path for path in logs.iterdir() if path.is_dir())[:-KEPT_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
    return logs / folder
