"""A result folder appears completely and once, and is only recognised if its files match the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.batch.results import (
    ABANDONED_AFTER_S,
    BATCH_DIR,
    RECORD_NAME,
    Record,
    deliver,
    find_finished,
    is_delivered,
    remove_abandoned,
)
from runner.errors import DiskFullError, IntegrityError
from runner.host.digests import sha256_of
from tests.disks import small_disk

if TYPE_CHECKING:
    from pathlib import Path

KEY = "k" * 32


def make(folder: Path, content: str = "model", key: str = KEY) -> Record:
    """Write the files of a result; return what is known of it before it is delivered."""
    folder.mkdir()
    (folder / "model.tflite").write_text(content)
    (folder / "provenance.json").write_text("{}")
    known = {"model.tflite": sha256_of(folder / "model.tflite")}
    return Record(name="job", key=key, final="model.tflite", files=known)


def test_result_is_recognised_by_key_and_digests(tmp_path: Path) -> None:
    delivery = deliver(tmp_path / "made", tmp_path, make(tmp_path / "made"))
    assert delivery.is_ours
    files = {name: sha256_of(tmp_path / "job" / name) for name in ("model.tflite", "provenance.json")}
    assert delivery.record.files == files
    assert find_finished(tmp_path / "job", {KEY}) == delivery.record
    assert find_finished(tmp_path / "job", {"another"}) is None
    assert is_delivered(tmp_path, "job", files["model.tflite"])
    assert not is_delivered(tmp_path, "job", "another")
    assert list((tmp_path / BATCH_DIR / "staged").iterdir()) == []


@pytest.mark.as_root
def test_result_is_delivered_to_another_file_system(tmp_path: Path) -> None:
    known = make(tmp_path / "made")
    with small_disk(tmp_path / "small", "size=100k") as out_dir:
        record = deliver(tmp_path / "made", out_dir, known).record
        assert find_finished(out_dir / "job", {KEY}) == record
        assert (out_dir / "job" / "model.tflite").read_text() == "model"
        assert list((out_dir / BATCH_DIR / "staged").iterdir()) == []


@pytest.mark.parametrize("name", ["model.tflite", "provenance.json", RECORD_NAME])
@pytest.mark.parametrize("fault", ["changed", "missing"])
def test_result_with_a_fault_is_not_recognised(tmp_path: Path, name: str, fault: str) -> None:
    deliver(tmp_path / "made", tmp_path, make(tmp_path / "made"))
    file = tmp_path / "job" / name
    if fault == "changed":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    assert find_finished(tmp_path / "job", {KEY}) is None


def test_second_delivery_of_the_same_job_leaves_the_first(tmp_path: Path) -> None:
    deliver(tmp_path / "made", tmp_path, make(tmp_path / "made", "first"))
    second = deliver(tmp_path / "again", tmp_path, make(tmp_path / "again", "second"))
    assert not second.is_ours
    assert find_finished(tmp_path / "job", {KEY}) == second.record
    assert (tmp_path / "job" / "model.tflite").read_text() == "first"
    assert list((tmp_path / BATCH_DIR / "staged").iterdir()) == []


def test_outdated_result_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    deliver(tmp_path / "made", tmp_path, make(tmp_path / "made", "old", key="old"))
    (tmp_path / "job" / "notes.txt").write_text("mine")
    delivery = deliver(tmp_path / "new", tmp_path, make(tmp_path / "new", "new"))
    assert delivery.is_ours
    assert find_finished(tmp_path / "job", {KEY}) == delivery.record
    assert (tmp_path / "job" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("fault", ["changed", "missing"])
def test_final_file_with_a_fault_is_not_delivered(tmp_path: Path, fault: str) -> None:
    known, final = make(tmp_path / "made"), tmp_path / "made" / "model.tflite"
    if fault == "changed":
        final.write_text("other")
    else:
        final.unlink()
    with pytest.raises(IntegrityError, match=r"model.tflite was changed or damaged"):
        deliver(tmp_path / "made", tmp_path, known)
    assert not (tmp_path / "job").exists()
    assert list((tmp_path / BATCH_DIR / "staged").iterdir()) == []


@pytest.mark.as_root
def test_full_disk_of_the_output_leaves_nothing(tmp_path: Path) -> None:
    known = make(tmp_path / "made", "x" * 200_000)
    with small_disk(tmp_path / "small", "size=100k") as out_dir:
        with pytest.raises(DiskFullError, match=r"the disk that contains .*small is full"):
            deliver(tmp_path / "made", out_dir, known)
        assert [path for path in out_dir.rglob("*") if path.is_file()] == []


def test_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    import os
    import time

    staged = tmp_path / BATCH_DIR / "staged"
    for name in ("old", "new"):
        (staged / name).mkdir(parents=True)
    long_ago = time.time() - ABANDONED_AFTER_S - 60
    os.utime(staged / "old", (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert [path.name for path in staged.iterdir()] == ["new"]
