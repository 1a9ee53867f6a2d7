"""The result folder of a job: record its files, deliver it atomically, find a finished result.

``OUT/<name>/`` contains the files of the conversion and ``batch-job.json``, which records the sha256 of each
file and a key: a digest of everything that the files depend on. The files are first copied to a folder in
``OUT/.batch/``, which is then renamed to ``OUT/<name>/``. So ``OUT/<name>/`` appears completely or not at
all, even if a run is killed, and only one of two concurrent runs delivers it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from runner.errors import IntegrityError
from runner.evidence.provenance.write import named_digests
from runner.host.digests import copy_with_sha256, sha256_of
from runner.host.disk import translate_disk_full
from runner.host.output_dir import OTHER_OUT, OutputDir

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from runner.deliver.plan import Plan

BATCH_DIR: Final = ".batch"
RECORD_NAME: Final = "batch-job.json"
FORMAT: Final = 1
TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})
"""The errors of a rename to a path that already exists."""
ABANDONED_AFTER_S: Final = 24 * 3600.0
"""A staged folder that is older than this was left by a killed run."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``batch-job.json``.

    ``final`` is the name of the ``.tflite``. ``files`` maps the name of each file to its sha256. ``template``
    is the sha256 of the graph template that was filled, or None if the export script made the graph.
    """

    format: int = FORMAT
    name: str
    key: str
    final: str
    files: dict[str, str]
    template: str | None = None


def find_finished(folder: Path, keys: Container[str]) -> Record | None:
    """Return the record of a result folder if the folder is complete and has one of the keys, else None.

    Results with the same key were made from the same inputs.
    """
    record = _read_record(folder)
    return record if record is not None and record.key in keys and is_whole(folder, record) else None


def is_delivered(out_dir: Path, name: str, sha256: str | None) -> bool:
    """Return whether the output directory has a job's complete result, with this sha256 of the final file."""
    record = _read_record(out_dir / name)
    return (
        record is not None and record.files.get(record.final) == sha256 and is_whole(out_dir / name, record)
    )


def is_whole(folder: Path, record: Record) -> bool:
    """Return whether all files of a result have the recorded digests."""
    try:
        return all(sha256_of(folder / name) == sha256 for name, sha256 in record.files.items())
    except OSError:  # a file is missing or unreadable
        return False


def check_replaceable(plan: Plan, target: Path) -> None:
    """Check that delivering a result would not replace a file that this program did not make.

    Raises:
        UsageError: such a file would be replaced, and ``overwrite`` was not given.
    """
    (conversion,) = plan.conversions
    products = plan.products(conversion)
    ours = named_digests(target / conversion.products.provenance)
    OutputDir(path=target).check_replaceable(products, ours=ours, overwrite=plan.overwrite)


def write_record(folder: Path, *, name: str, key: str, final: str, template: str | None) -> Record:
    """Digest the files of a folder and write its record."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    record = Record(name=name, key=key, final=final, files=files, template=template)
    (folder / RECORD_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    return record


def deliver(made: Path, out_dir: Path, record: Record) -> bool:
    """Copy a finished folder with its record to ``OUT/<name>/``.

    Return False if another run has delivered the same job in the meantime; that result is kept.

    Raises:
        DiskFullError: the disk of the output directory is full; the partial copy was removed.
        IntegrityError: a file changed while it was copied.
    """
    target = out_dir / record.name
    staged = _stage(made, out_dir, record)
    try:
        staged.rename(target)
        return True
    except OSError as problem:
        if problem.errno not in TAKEN:
            raise
    try:
        if find_finished(target, {record.key}) is not None:
            return False
        _replace_files(staged, target, record)
        return True
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _stage(made: Path, out_dir: Path, record: Record) -> Path:
    address = hashlib.sha256((made / RECORD_NAME).read_bytes()).hexdigest()
    # Another run may be staging the same files, so the name has a random part too.
    staged = out_dir / BATCH_DIR / "staged" / f"{address}-{uuid.uuid4().hex[:8]}"
    try:
        with translate_disk_full(out_dir, tip=OTHER_OUT):
            staged.mkdir(parents=True)
            for name in (*record.files, RECORD_NAME):
                sha256 = copy_with_sha256(made / name, staged / name)
                if sha256 != record.files.get(name, address):
                    raise IntegrityError(
                        f"{made / name} changed while it was copied", tip="run the job again"
                    )
                _sync(staged / name)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return staged


def _sync(path: Path) -> None:
    """Flush a file to disk: a network file system may report a full disk only when a file is flushed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_files(staged: Path, target: Path, record: Record) -> None:
    """Replace the files of an older result.

    The old record is removed first. So if the replacement is interrupted, the folder is not a valid result.
    """
    (target / RECORD_NAME).unlink(missing_ok=True)
    OutputDir(path=target).publish({name: staged / name for name in (*record.files, RECORD_NAME)})


def remove_abandoned(out_dir: Path) -> None:
    """Remove the folders that killed runs left in ``.batch``."""
    with contextlib.suppress(FileNotFoundError):
        for staged in (out_dir / BATCH_DIR / "staged").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - staged.stat().st_mtime > ABANDONED_AFTER_S:
                    shutil.rmtree(staged, ignore_errors=True)


def _read_record(folder: Path) -> Record | None:
    try:
        return msgspec.json.decode((folder / RECORD_NAME).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None
