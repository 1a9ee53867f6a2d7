"""The examples of docs/python-api.md that need no toolchain; tests/integration runs the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT
from tests.examples import examples
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("code", examples(with_toolchain=False))
def test_an_example_runs(tmp_path: Path, code: str) -> None:
    shutil.copy(TINY_DETECTOR / "fp32.run0.tflite", tmp_path / "a.tflite")
    shutil.copy(TINY_DETECTOR / "fp32.tf2.1.tflite", tmp_path / "b.tflite")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_examples_of_both_kinds() -> None:
    assert min(len(examples(with_toolchain=kind)) for kind in (False, True)) >= 2
