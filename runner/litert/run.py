"""Run LiteRT in a subprocess, so that a file that crashes it does not crash this program.

The subprocess also keeps LiteRT's own messages on stderr away from the terminal.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner.engines.exit_codes import code_of
from runner.errors import DiskFullError, IntegrityError, ScriptError
from runner.host import disk

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROGRAM: Final = Path(__file__).with_name("process.py")
REFUSED: Final = 3
"""Exit code of the subprocess if LiteRT rejects the file; Python itself uses 1 and 2."""
CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
"""Signals that a malformed file can cause."""
LAST_LINES: Final = 20


def run_litert(
    tflite: Path, tensors: tuple[int, ...], feeds: NDArray[Any], *, work_dir: Path, timeout_s: float
) -> tuple[NDArray[Any], ...]:
    """Return the values of some tensors for each feed: one array per tensor, with one row per feed.

    Raises:
        IntegrityError: LiteRT rejects the file, crashes on it, or does not finish in time.
        DiskFullError: the disk of ``work_dir`` is full.
        ScriptError: the subprocess failed for another reason.
    """
    with (
        disk.full_disk_named(work_dir),
        tempfile.TemporaryDirectory(prefix="litert-", dir=work_dir) as scratch,
    ):
        given, made = Path(scratch) / "feeds.npy", Path(scratch) / "outputs.npz"
        np.save(given, feeds)
        command = [sys.executable, "-I", str(PROGRAM), str(tflite), str(given), str(made), *map(str, tensors)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as problem:
            raise IntegrityError(
                f"LiteRT did not finish {tflite} within {timeout_s:.0f} s",
                tip="raise --timeout-s",
            ) from problem
        if done.returncode != 0 and disk.is_reported(done.stderr):
            raise DiskFullError(f"the disk that holds {work_dir} is full", tip="free some space")
        check_exit(done.returncode, done.stderr, tflite)
        with np.load(made, allow_pickle=False) as archive:
            return tuple(archive[name] for name in archive.files)


def check_exit(returncode: int, stderr: str, tflite: Path) -> None:
    """Raise the error for the exit code of a subprocess; 0 is none.

    Raises:
        IntegrityError: LiteRT rejected the file, or crashed on it.
        ScriptError: the subprocess failed for another reason.
    """
    if returncode == REFUSED:
        raise IntegrityError(f"LiteRT cannot run {tflite}: {stderr.splitlines()[-1]}")
    if -returncode in CRASHES:
        raise IntegrityError(
            f"LiteRT cannot run {tflite}: it crashed with {signal.Signals(-returncode).name}"
        )
    if returncode != 0:
        code = code_of(returncode)
        raise ScriptError(
            f"LiteRT could not be run on {tflite}: its process ended with code {code}",
            script_exit_code=code,
            last_lines=tuple(stderr.splitlines()[-LAST_LINES:]),
        )
