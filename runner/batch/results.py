"""The result folder of a job: record its files, deliver it atomically, find a finished result.

``OUT/<name>/`` contains the files of the conversion and ``batch-job.json``, which records the sha256 of each
file and a key: a digest of everything that the files depend on. The files are first moved to a folder in
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
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The record of the result in the output directory; ``is_ours`` is False if another run delivered it."""

    record: Record
    is_ours: bool


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


def deliver(made: Path, out_dir: Path, known: Record) -> Delivery:
    """Move the files of a folder to ``OUT/<name>/``, with a record of all their digests.

    ``known`` is the record with the digests that are already known, which are verified. If another run has
    delivered the same job in the meantime, that result is kept.

    Raises:
        DiskFullError: the disk of the output directory is full; the partial result was removed.
        IntegrityError: a file does not have its known digest.
    """
    target = out_dir / known.name
    staged, record = _stage(made, out_dir, known)
    try:
        staged.rename(target)
        return Delivery(record=record, is_ours=True)
    except OSError as problem:
        if problem.errno not in TAKEN:
            raise
    try:
        other = find_finished(target, {record.key})
        if other is not None:
            return Delivery(record=other, is_ours=False)
        _replace_files(staged, target, record)
        return Delivery(record=record, is_ours=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _stage(made: Path, out_dir: Path, known: Record) -> tuple[Path, Record]:
    """Move the files to a folder in ``.batch`` that is named by the sha256 of their record."""
    # Another run may be staging the same files, so the name has a random part too.
    unfinished = out_dir / BATCH_DIR / "staged" / uuid.uuid4().hex[:8]
    try:
        with translate_disk_full(out_dir, tip=OTHER_OUT):
            unfinished.mkdir(parents=True)
            files = {path.name: _move(path, unfinished / path.name) for path in sorted(made.iterdir())}
            for name, sha256 in known.files.items():
                if files.get(name) != sha256:
                    raise IntegrityError(f"{made / name} was changed or damaged", tip="run the job again")
            record = msgspec.structs.replace(known, files=files)
            content = msgspec.json.format(msgspec.json.encode(record), indent=2)
            (unfinished / RECORD_NAME).write_bytes(content)
            for path in unfinished.iterdir():
                _sync(path)
            address = hashlib.sha256(content).hexdigest()
            return unfinished.rename(unfinished.with_name(f"{address}-{unfinished.name}")), record
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _move(source: Path, target: Path) -> str:
    """Move a file, or copy it to another file system; return the sha256 of the target's bytes."""
    try:
        source.rename(target)
    except OSError as problem:
        if problem.errno != errno.EXDEV:
            raise
        return copy_with_sha256(source, target)
    return sha256_of(target)


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
