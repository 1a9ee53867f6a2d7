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

from runner.engines.exit_codes import code_of
from runner.errors import IntegrityError, ScriptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROGRAM: Final = Path(__file__).with_name("process.py")
REFUSED: Final = 3
"""What it ends with where LiteRT refuses the file; 1 and 2 are Python's own."""
CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
"""What a bad file does to a program that trusts it."""
LAST_LINES: Final = 20


def run_litert(
    tflite: Path, tensors: tuple[int, ...], feeds: NDArray[Any], *, work_dir: Path, timeout_s: float
) -> tuple[NDArray[Any], ...]:
    """Return what these tensors hold for each feed: per tensor an array with one row for each.

    Raises:
        IntegrityError: LiteRT cannot run the file, dies of it, or does not come to an end with it.
        ScriptError: the program that runs LiteRT failed for a reason of its own.
    """
    with tempfile.TemporaryDirectory(prefix="litert-", dir=work_dir) as scratch:
        given, made = Path(scratch) / "feeds.npy", Path(scratch) / "outputs.npz"
        np.save(given, feeds)
        command = [sys.executable, "-I", str(PROGRAM), str(tflite), str(given), str(made), *map(str, tensors)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as problem:
            raise IntegrityError(
                f"LiteRT does not come to an end with {tflite} within {timeout_s:.0f} s",
                tip="raise --timeout-s",
            ) from problem
        _check(done, tflite)
        with np.load(made, allow_pickle=False) as archive:
            return tuple(archive[name] for name in archive.files)


def _check(done: subprocess.CompletedProcess[str], tflite: Path) -> None:
    """Raise what the way it ended calls for."""
    if done.returncode == REFUSED:
        raise IntegrityError(f"LiteRT cannot run {tflite}: {done.stderr.splitlines()[-1]}")
    if -done.returncode in CRASHES:
        raise IntegrityError(
            f"LiteRT cannot run {tflite}: it was ended by {signal.Signals(-done.returncode).name}"
        )
    if done.returncode != 0:
        code = code_of(done.returncode)
        raise ScriptError(
            f"LiteRT could not be run on {tflite}: its process ended with code {code}",
            script_exit_code=code,
            last_lines=tuple(done.stderr.splitlines()[-LAST_LINES:]),
        )
