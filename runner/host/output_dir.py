"""The output directory: work folders, protection of existing files, atomic publishing of results.

Results are made in a work folder inside the output directory, on the same file system, and renamed into place
at the end. An existing file is replaced only if its digest shows that this tool made it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from runner.errors import UsageError
from runner.host.digests import sha256_of
from runner.host.disk import translate_disk_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WORK_PREFIX: Final = ".mobiledet-runner-"
WORK_LOCK_NAME: Final = "in-use.lock"
OTHER_OUT: Final = "free some space, or choose another --out"


@dataclass(frozen=True, kw_only=True)
class OutputDir:
    """An output directory that exists and can be written to."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> OutputDir:
        """Create the directory if it does not exist.

        Raises:
            UsageError: it cannot be created or is not writable.
            DiskFullError: the disk is full.
        """
        real = path.expanduser().resolve()
        if real.is_file():
            raise UsageError(
                f"the output directory {real} is a file",
                tip="pass a directory as --out; it is created if it does not exist",
            )
        with _write_errors(real):
            real.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=real).close()
        return cls(path=real)

    @contextlib.contextmanager
    def work_dir(self) -> Iterator[Path]:
        """Remove the work folders of killed runs, yield a new work folder, and remove it at the end.

        Raises:
            UsageError: the directory is not writable.
            DiskFullError: the disk is full, now or while the folder is in use.
        """
        self._remove_abandoned()
        with _write_errors(self.path):
            work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=self.path))
        lock = FileLock(work / WORK_LOCK_NAME)
        try:
            with translate_disk_full(self.path, tip=OTHER_OUT), lock:
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def check_replaceable(self, names: Iterable[str], *, ours: frozenset[str], overwrite: bool) -> None:
        """Check that every existing file with one of these names may be replaced.

        ``ours`` contains the sha256 of files that this tool made and that may be replaced.

        Raises:
            UsageError: a file that this program did not make is in the way, and ``overwrite`` was not given.
        """
        if overwrite:
            return
        targets = [self.path / name for name in names]
        with ThreadPoolExecutor() as executor:  # hash the large files in parallel
            foreign = executor.map(lambda target: _is_foreign(target, ours), targets)
            first = next(
                (target for target, is_foreign in zip(targets, foreign, strict=True) if is_foreign), None
            )
        if first is not None:
            raise UsageError(
                f"{first} already exists and was not made by this tool, or was changed later",
                tip="move it away, choose another --out, or use --overwrite to replace it",
            )

    def publish(self, products: Mapping[str, Path]) -> None:
        """Rename products from a work folder to their final names, in the order given.

        Raises:
            UsageError: the directory is read-only.
            DiskFullError: the disk is full; no partial file is left behind.
        """
        with _write_errors(self.path):
            for name, product in products.items():
                target = self.path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                product.replace(target)

    def _remove_abandoned(self) -> None:
        for lock in self.path.glob(f"{WORK_PREFIX}*/{WORK_LOCK_NAME}"):
            with contextlib.suppress(Timeout), FileLock(lock, timeout=0):
                shutil.rmtree(lock.parent, ignore_errors=True)


def _is_foreign(target: Path, ours: frozenset[str]) -> bool:
    """Return whether ``target`` exists and was made by something else, or was changed later."""
    if target.is_symlink() or not target.is_file():
        return target.is_symlink() or target.exists()
    return sha256_of(target) not in ours


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        with translate_disk_full(path, tip=OTHER_OUT):
            yield
    except OSError as problem:
        raise UsageError(
            f"cannot write to the output directory {path}: {problem.strerror}",
            tip="choose a writable directory with --out",
        ) from problem
