"""Scratch folders in the system's temporary folder; `clean` recognises them by their names."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.host.in_use import marked

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_PATTERN: Final = r"mobiledet-runner-\w{8}"


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder, in the temporary folder or in ``parent``, and remove it at the end."""
    with (
        tempfile.TemporaryDirectory(
            prefix="mobiledet-runner-", dir=parent, ignore_cleanup_errors=True
        ) as folder,
        marked(Path(folder)),
    ):
        yield Path(folder)
