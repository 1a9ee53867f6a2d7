"""Running LiteRT on good, damaged and malicious files."""

from __future__ import annotations

import sys
import time
import venv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.errors import IntegrityError, ScriptError
from runner.litert.worker import litert_worker
from tests.altered import with_other_options
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = TINY_DETECTOR / "fp32.run0.tflite"
RAW_OUTPUTS = (18, 20)
"""Its boxes, (1, 4, 4), and its classes, (1, 4, 3)."""
FEEDS = np.random.default_rng(0).random((3, 1, 8, 8, 3), dtype=np.float32)


@pytest.mark.parametrize("xnnpack", [True, False])
def test_one_process_runs_many_inputs(*, xnnpack: bool) -> None:
    with litert_worker(TINY, xnnpack=xnnpack, timeout_s=60) as worker:
        answers = [worker.run(feed) for feed in FEEDS]
    assert worker.load_s > 0
    assert all(answer.seconds > 0 for answer in answers)
    assert [output.shape for output in answers[0].outputs] == [(1, 10, 4), (1, 10), (1, 10), (1,)]
    assert not np.array_equal(answers[0].outputs[0], answers[1].outputs[0])


def test_nothing_of_it_gets_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with litert_worker(TINY, timeout_s=60) as worker:
        worker.run(FEEDS[0])
    assert capfd.readouterr() == ("", "")


def test_other_tensors_than_the_outputs_can_be_read() -> None:
    with litert_worker(TINY, tensors=RAW_OUTPUTS, timeout_s=60) as worker:
        boxes, classes = worker.run(FEEDS[0]).outputs
        (others, _) = worker.run(FEEDS[1]).outputs
    assert (boxes.shape, classes.shape) == ((1, 4, 4), (1, 4, 3))
    assert not np.array_equal(boxes, others)


def test_values_of_another_size_are_refused() -> None:
    with (
        litert_worker(TINY, timeout_s=60) as worker,
        pytest.raises(IntegrityError, match=r"fp32\.run0\.tflite: its inputs take 768 bytes, but 1536 bytes"),
    ):
        worker.run(FEEDS[0].astype(np.float64))


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
def test_a_refused_file_is_named_with_the_reason(
    tmp_path: Path, alter: Callable[[bytes], bytes], reason: str
) -> None:
    refused = tmp_path / "refused.tflite"
    refused.write_bytes(alter(TINY.read_bytes()))
    with (
        pytest.raises(IntegrityError, match=rf"LiteRT cannot run .*refused\.tflite: .*{reason}"),
        litert_worker(refused, timeout_s=60) as worker,
    ):
        worker.run(FEEDS[0])


def test_a_crash_is_an_error(tmp_path: Path) -> None:
    deadly = tmp_path / "deadly.tflite"
    # It reads an option that is not there through a null pointer.
    deadly.write_bytes(TINY.read_bytes().replace(b"max_classes_per_detection", b"max_klasses_per_detection"))
    with (
        pytest.raises(IntegrityError, match=r"LiteRT cannot run .*deadly\.tflite: .*SIGSEGV"),
        litert_worker(deadly, timeout_s=60) as worker,
    ):
        worker.run(FEEDS[0])


def test_what_takes_too_long_is_given_up_and_ended() -> None:
    started = time.monotonic()
    with (
        pytest.raises(IntegrityError, match="LiteRT did not finish") as caught,
        litert_worker(TINY, timeout_s=0),
    ):
        pass
    assert "--timeout-s" in str(caught.value.tip)
    assert time.monotonic() - started < 10


def test_what_is_not_the_files_fault_is_not_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with (
        pytest.raises(ScriptError, match="ended with code 1") as caught,
        litert_worker(TINY, timeout_s=60),
    ):
        pass
    assert caught.value.last_lines[-1].startswith("ModuleNotFoundError: ")
