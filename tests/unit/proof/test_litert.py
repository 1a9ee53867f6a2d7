"""LiteRT, whatever file it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runner.errors import IntegrityError
from runner.proof.litert import run_litert
from tests.altered import with_other_options

TINY = Path(__file__).resolve().parents[2] / "data" / "tiny_detector" / "fp32.run0.tflite"
RAW_OUTPUTS = (18, 20)
"""Its boxes, (1, 4, 4), and its classes, (1, 4, 3)."""
FEEDS = np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)


def test_each_tensor_has_a_row_for_each_feed() -> None:
    boxes, classes = run_litert(TINY, RAW_OUTPUTS, FEEDS)
    assert (boxes.shape, classes.shape) == ((2, 4, 4), (2, 4, 3))
    (alone, _) = run_litert(TINY, RAW_OUTPUTS, FEEDS[1:])
    assert np.array_equal(alone[0], boxes[1])
    assert not np.array_equal(boxes[0], boxes[1])


def test_nothing_of_it_gets_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    run_litert(TINY, RAW_OUTPUTS, FEEDS)
    assert capfd.readouterr() == ("", "")


def test_what_it_refuses_is_named_with_its_reason(tmp_path: Path) -> None:
    cut_off = tmp_path / "cut-off.tflite"
    cut_off.write_bytes(TINY.read_bytes()[:2000])
    with pytest.raises(
        IntegrityError, match=r"LiteRT cannot run .*cut-off\.tflite: .*not a valid Flatbuffer"
    ):
        run_litert(cut_off, RAW_OUTPUTS, FEEDS)
    none = tmp_path / "none.tflite"
    none.write_bytes(with_other_options(TINY.read_bytes(), {"max_detections": -1}))
    with pytest.raises(IntegrityError, match=r"none\.tflite: .*num_detections_per_class > 0 was not true"):
        run_litert(none, RAW_OUTPUTS, FEEDS)


def test_what_brings_it_down_leaves_us_standing(tmp_path: Path) -> None:
    deadly = tmp_path / "deadly.tflite"
    # It reads an option that is not there through a null pointer.
    deadly.write_bytes(TINY.read_bytes().replace(b"max_classes_per_detection", b"max_klasses_per_detection"))
    with pytest.raises(IntegrityError, match=r"LiteRT cannot run .*deadly\.tflite: it was ended by SIGSEGV"):
        run_litert(deadly, RAW_OUTPUTS, FEEDS)
