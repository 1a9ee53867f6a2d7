"""Running LiteRT on good, damaged and malicious files."""

from __future__ import annotations

import sys
import venv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from runner.errors import DiskFullError, IntegrityError, ScriptError
from runner.litert.run import run_litert
from tests.altered import with_other_options
from tests.disks import small_disk
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

TINY = TINY_DETECTOR / "fp32.run0.tflite"
RAW_OUTPUTS = (18, 20)
"""Its boxes, (1, 4, 4), and its classes, (1, 4, 3)."""
FEEDS = np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)


def run(
    tflite: Path, work_dir: Path, *, feeds: NDArray[Any] = FEEDS, timeout_s: float = 60
) -> tuple[NDArray[Any], ...]:
    outputs = run_litert(tflite, RAW_OUTPUTS, feeds, work_dir=work_dir, timeout_s=timeout_s)
    assert [path.suffix for path in work_dir.iterdir()] in ([], [".tflite"])
    return outputs


def test_each_tensor_has_a_row_for_each_feed(tmp_path: Path) -> None:
    boxes, classes = run(TINY, tmp_path)
    assert (boxes.shape, classes.shape) == ((2, 4, 4), (2, 4, 3))
    (alone, _) = run(TINY, tmp_path, feeds=FEEDS[1:])
    assert np.array_equal(alone[0], boxes[1])
    assert not np.array_equal(boxes[0], boxes[1])


def test_nothing_of_it_gets_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(TINY, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda content: content[:2000], "not a valid Flatbuffer"),
        (lambda content: with_other_options(content, {"max_detections": -1}), "num_detections_per_class > 0"),
        # Its reason has two lines, and the second only says where to read on.
        (lambda content: content.replace(b"_PostProcess", b"_PostProcesX"), "unresolved custom op: TFLite_"),
    ],
    ids=["cut off", "no detections", "unknown operator"],
)
def test_what_it_refuses_is_named_with_its_reason(
    tmp_path: Path, alter: Callable[[bytes], bytes], reason: str
) -> None:
    refused = tmp_path / "refused.tflite"
    refused.write_bytes(alter(TINY.read_bytes()))
    with pytest.raises(IntegrityError, match=rf"LiteRT cannot run .*refused\.tflite: .*{reason}"):
        run(refused, tmp_path)


def test_a_file_that_crashes_it_does_not_crash_this_program(tmp_path: Path) -> None:
    deadly = tmp_path / "deadly.tflite"
    # It reads an option that is not there through a null pointer.
    deadly.write_bytes(TINY.read_bytes().replace(b"max_classes_per_detection", b"max_klasses_per_detection"))
    with pytest.raises(IntegrityError, match=r"LiteRT cannot run .*deadly\.tflite: .*SIGSEGV"):
        run(deadly, tmp_path)


def test_a_run_that_does_not_end_times_out(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="LiteRT did not finish") as caught:
        run(TINY, tmp_path, timeout_s=0.001)
    assert "--timeout-s" in str(caught.value.tip)


def test_what_is_not_the_files_fault_is_not_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ScriptError, match=r"LiteRT could not be run on .* ended with code 1") as caught:
        run(TINY, tmp_path / "work")
    assert caught.value.last_lines[-1].startswith("ModuleNotFoundError: ")


# Without an inode no feeds can be written; one page has room for the feeds, and not for the outputs.
@pytest.mark.as_root
@pytest.mark.parametrize("options", ["nr_inodes=1", "size=4k"])
def test_a_full_disk_is_not_blamed_on_it_either(tmp_path: Path, options: str) -> None:
    with (
        small_disk(tmp_path / "small", options) as work_dir,
        pytest.raises(DiskFullError, match=f"the disk that holds {work_dir} is full"),
    ):
        run(TINY, work_dir)
