"""The output directory: foreign files are never replaced or removed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runner.errors import DiskFullError, UsageError
from runner.host.mounts import check_apart, mountable
from runner.host.output_dir import WORK_PREFIX, OutputDir
from tests.disks import small_disk

OURS = frozenset({hashlib.sha256(b"ours").hexdigest()})


def test_a_file_whose_digest_is_ours_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"ours")
    OutputDir.at(tmp_path).check_replaceable(["model.tflite"], ours=OURS, overwrite=False)


def test_a_foreign_file_is_named_and_survives(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"theirs")
    with pytest.raises(UsageError, match=r"model\.tflite already exists") as caught:
        OutputDir.at(tmp_path).check_replaceable(["model.tflite"], ours=OURS, overwrite=False)
    assert "--overwrite" in (caught.value.tip or "")
    assert (tmp_path / "model.tflite").read_bytes() == b"theirs"


def test_a_link_in_the_way_is_not_ours_whatever_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"ours")
    (tmp_path / "model.tflite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="already exists"):
        OutputDir.at(tmp_path).check_replaceable(["model.tflite"], ours=OURS, overwrite=False)


def test_overwrite_replaces_a_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"theirs")
    out = OutputDir.at(tmp_path)
    out.check_replaceable(["model.tflite"], ours=frozenset(), overwrite=True)
    with out.work_dir() as work_dir:
        (work_dir / "new").write_bytes(b"ours")
        out.publish({"model.tflite": work_dir / "new"})
    assert (tmp_path / "model.tflite").read_bytes() == b"ours"


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    out = OutputDir.at(tmp_path)

    def fail() -> None:
        with out.work_dir() as work_dir:
            (work_dir / "half").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_work_a_killed_run_left_behind_goes_and_work_in_use_stays(tmp_path: Path) -> None:
    out = OutputDir.at(tmp_path)
    abandoned = tmp_path / f"{WORK_PREFIX}abandoned"
    abandoned.mkdir()
    (abandoned / "in-use.lock").touch()
    with out.work_dir() as in_use, out.work_dir():
        assert in_use.is_dir()
        assert not abandoned.exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write to the output directory .*file/out"):
        OutputDir.at(tmp_path / "file" / "out")


@pytest.mark.as_root
def test_a_disk_that_gets_full_during_the_work_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "size=64k") as small:
        out = OutputDir.at(small)

        def fill() -> None:
            with out.work_dir() as work_dir:
                (work_dir / "graph").write_bytes(bytes(1 << 20))

        with pytest.raises(DiskFullError, match=f"the disk that contains {small} is full") as caught:
            fill()
        assert caught.value.exit_code == 6
        assert "another --out" in (caught.value.tip or "")
        assert list(small.iterdir()) == []


@pytest.mark.as_root
def test_a_disk_without_room_for_a_folder_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "nr_inodes=1") as small:
        with pytest.raises(DiskFullError):
            OutputDir.at(small / "out")
        out = OutputDir(path=small)
        with pytest.raises(DiskFullError), out.work_dir():
            pass
        product = tmp_path / "product"
        product.touch()
        with pytest.raises(DiskFullError):
            out.publish({"fp32/model.tflite": product})


@pytest.mark.parametrize(
    ("out", "model"), [("model", "model"), ("model/out", "model"), ("out", "out/model"), ("link", "model")]
)
def test_output_and_model_directory_may_not_overlap(tmp_path: Path, out: str, model: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(UsageError, match="overlap"):
        check_apart(tmp_path / out, tmp_path / model)


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr/lib", "/home", "/opt/toolchain/bin", "~"])
def test_system_folders_and_homes_are_not_shown_to_the_toolchain(folder: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be mounted|does not exist"):
        mountable(Path(folder))


def test_a_link_to_a_system_folder_is_one(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/etc")
    with pytest.raises(UsageError, match="/etc cannot be mounted"):
        mountable(tmp_path / "innocent")
