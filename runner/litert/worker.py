"""Run LiteRT in a subprocess, so that a file that crashes LiteRT does not crash this program.

The subprocess loads a file once and runs it on many inputs. Its stderr is captured, so LiteRT's own messages
do not reach the terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from runner.engines.exit_codes import code_of
from runner.errors import IntegrityError, ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PROGRAM: Final = Path(__file__).with_name("process.py")
READ_BYTES: Final = 1 << 16
REFUSED: Final = 3
"""Exit code of the subprocess if LiteRT rejects the file; Python itself uses 1 and 2."""
CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
"""Signals that a malformed file can cause."""
LAST_LINES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The output tensors of one run, and how long LiteRT's ``invoke`` took."""

    outputs: tuple[NDArray[Any], ...]
    seconds: float


class LiteRtWorker:
    """A running subprocess that has loaded a file; made by ``litert_worker``."""

    def __init__(
        self, process: subprocess.Popen[bytes], stderr: IO[bytes], tflite: Path, timeout_s: float
    ) -> None:
        """Wait until the file is loaded."""
        self._process, self._stderr = process, stderr
        self._tflite, self._timeout_s = tflite, timeout_s
        loaded = self._answer()
        self.load_s: Final = loaded.seconds
        self._input_bytes = int(loaded.outputs[0])

    def run(self, *feeds: NDArray[Any]) -> Invocation:
        """Run the file on one array for each of its inputs, with the shape and the type of that input.

        Raises:
            IntegrityError: LiteRT rejects the file, crashes on it, or does not finish in time; or the arrays
                have the wrong size.
            ScriptError: the subprocess failed for another reason.
        """
        assert self._process.stdin is not None
        values = b"".join(feed.tobytes() for feed in feeds)
        if len(values) != self._input_bytes:
            raise IntegrityError(
                f"LiteRT cannot run {self._tflite}: its inputs take {self._input_bytes} bytes, "
                f"but {len(values)} bytes were given"
            )
        with contextlib.suppress(BrokenPipeError):  # it has ended: `_answer` raises the reason
            rest = memoryview(values)
            while rest:  # a signal can interrupt an unbuffered write
                rest = rest[self._process.stdin.write(rest) :]
        return self._answer()

    def _answer(self) -> Invocation:
        deadline = time.monotonic() + self._timeout_s
        (length,) = struct.unpack("<Q", self._read(8, deadline))
        message = io.BytesIO(self._read(length, deadline))
        (seconds,) = struct.unpack("<d", message.read(8))
        outputs = []
        while message.tell() < length:
            outputs.append(np.lib.format.read_array(message, allow_pickle=False))
        return Invocation(outputs=tuple(outputs), seconds=seconds)

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        stream, received = self._process.stdout.fileno(), bytearray()
        while len(received) < count:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise IntegrityError(
                    f"LiteRT did not finish {self._tflite} within {self._timeout_s:.0f} s",
                    tip="raise --timeout-s",
                )
            part = os.read(stream, min(READ_BYTES, count - len(received)))
            if not part:
                self._raise_its_error()
            received += part
        return bytes(received)

    def _raise_its_error(self) -> None:
        code = self._process.wait()
        self._stderr.seek(0)
        _check_exit(code, self._stderr.read().decode(errors="replace"), self._tflite)
        raise IntegrityError(f"LiteRT ended without a result on {self._tflite}")


def _check_exit(returncode: int, stderr: str, tflite: Path) -> None:
    """Raise the error for the exit code of a subprocess, if it is not 0."""
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


@contextlib.contextmanager
def litert_worker(
    tflite: Path,
    *,
    tensors: tuple[int, ...] = (),
    threads: int = 1,
    xnnpack: bool = True,
    keep_all: bool = False,
    timeout_s: float,
) -> Iterator[LiteRtWorker]:
    """Load a file in a subprocess that ends with the context.

    A run returns the values of ``tensors`` (by default, of the outputs) and may take ``timeout_s``. With
    ``keep_all``, ``tensors`` can be any tensors, but XNNPACK is off. Without ``keep_all``, LiteRT reuses the
    memory of most tensors, so each must be an input or an output of the last operator.

    Raises:
        IntegrityError: LiteRT rejects the file, crashes on it, or does not load it in time.
        ScriptError: the subprocess failed for another reason.
    """
    switches = (str(int(xnnpack)), str(int(keep_all)))
    command = [sys.executable, "-I", str(PROGRAM), str(tflite), str(threads), *switches]
    command += map(str, tensors)
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
        ) as process,
    ):
        try:
            yield LiteRtWorker(process, stderr, tflite, timeout_s)
        finally:
            process.kill()
