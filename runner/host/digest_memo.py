"""Cache the sha256 of large files until they change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

from runner.host.cache_dir import cache_dir
from runner.host.digests import sha256_of
from runner.host.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER_NAME: Final = "digests"
SETTLED_AFTER_NS: Final = 2_000_000_000
"""Files changed this recently are not cached, because they may change again within the same timestamp."""


def remembered_sha256(path: Path) -> str:
    """Return a file's sha256; it is taken from the cache if the file has not changed.

    A change is detected by size, mtime, ctime, inode and device. Programs cannot reset the ctime.
    """
    memo = _memo_of(path)
    state = _state(path)
    known = _read(memo)
    if known.get("state") == state and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    sha256 = sha256_of(path)
    if _state(path) == state and time.time_ns() - state["ctime_ns"] > SETTLED_AFTER_NS:
        with contextlib.suppress(OSError):  # without the cache entry the file is read again next time
            write_whole(memo, json.dumps({"state": state, "sha256": sha256}).encode())
    return sha256


def _memo_of(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return cache_dir() / FOLDER_NAME / f"{name}.json"


def _state(path: Path) -> dict[str, int]:
    status = path.stat()
    return {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def _read(memo: Path) -> Mapping[str, Any]:
    try:
        known = json.loads(memo.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
