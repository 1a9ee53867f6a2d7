"""LiteRT, kept at arm's length: a file that brings it down does not bring us down.

Nor does what it tells of itself on file descriptor 2 get between the lines of a terminal.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner.errors import IntegrityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROGRAM: Final = Path(__file__).with_name("litert_process.py")
REFUSED: Final = 2


def run_litert(tflite: Path, tensors: tuple[int, ...], feeds: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return what these tensors hold for each feed: per tensor an array with one row for each.

    Raises:
        IntegrityError: LiteRT cannot run the file, or died of it.
    """
    with tempfile.TemporaryDirectory(prefix="litert-") as scratch:
        given, made = Path(scratch) / "feeds.npy", Path(scratch) / "outputs.npz"
        np.save(given, feeds)
        command = [sys.executable, "-I", str(PROGRAM), str(tflite), str(given), str(made), *map(str, tensors)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode == REFUSED or done.returncode < 0:
            died = f"it was ended by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else None
            message = f"LiteRT cannot run {tflite}: {died or done.stderr.strip().splitlines()[-1]}"
            raise IntegrityError(message)
        done.check_returncode()
        with np.load(made, allow_pickle=False) as archive:
            return tuple(archive[name] for name in archive.files)
