"""A running job of the toolchain server: read its output, enforce its limits, report how it ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple

from memory import count_oom_kills, peak_mib_of_this_process

if TYPE_CHECKING:
    from request import JobRequest

KILL_GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL when a job is ended."""
DRAIN_S = 2.0
"""Seconds to wait for output after a job has ended. A process that left its group may keep the pipe open."""
MAX_LINE_BYTES = 64 * 1024
READ_BYTES = 64 * 1024

# A carriage return at the very end may be the first half of "\r\n", so it is kept for the next chunk.
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class LineSplitter:
    """Split a stream of bytes into lines. A carriage return, as in a progress bar, also ends a line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """Add the next bytes and return the lines they complete."""
        data = self._rest + chunk
        lines = []
        start = 0
        for end in LINE_END.finditer(data):
            if end.start() > start or end.group() != b"\r":
                lines.append(_decode(data[start : end.start()]))
            start = end.end()
        self._rest = data[start:]
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(_decode(self._rest))
            self._rest = b""
        return lines

    def finish(self) -> list[str]:
        """Return the last line if it was not terminated."""
        rest, self._rest = self._rest, b""
        return [_decode(rest.rstrip(b"\r"))] if rest else []


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "replace")


class Ended(NamedTuple):
    """Exit status and resource usage of a job's first process, as the kernel reports them."""

    status: int
    usage: Any
    at_s: float


class RunningJob:
    """A running job. Signals and limits apply to its whole process group."""

    def __init__(
        self,
        request: JobRequest,
        *,
        pid: int,
        streams: Mapping[int, str],
        is_script: bool,
        kill_grace_s: float,
    ) -> None:
        self.request = request
        self.pid = pid
        self.streams = dict(streams)
        self.ended: Ended | None = None
        self._splitters = {fd: LineSplitter() for fd in streams}
        self._is_script = is_script
        self._kill_grace_s = kill_grace_s
        self._started_s = time.monotonic()
        self._kill_at_s: float | None = None
        self._was_killed = False
        self._timed_out = False
        self._out_of_memory = False
        self._peak_mib = 0.0
        self._oom_kills = count_oom_kills()
        self._server_peak_mib = peak_mib_of_this_process()

    def read(self, fd: int) -> list[str]:
        """Read available output and return the lines it completes; close the stream at its end."""
        chunk = os.read(fd, READ_BYTES)
        if chunk:
            return self._splitters[fd].feed(chunk)
        del self.streams[fd]
        os.close(fd)
        return self._splitters[fd].finish()

    def end(self) -> None:
        """Send SIGTERM to the job; `enforce_limits` sends SIGKILL after the grace period."""
        if self._kill_at_s is None and self.ended is None:
            self._kill_at_s = time.monotonic() + self._kill_grace_s
            self._signal(signal.SIGTERM)

    def enforce_limits(self, memory_mib: float) -> None:
        """Kill the job if it is over its time or memory limit."""
        if self.ended is not None:
            return
        now_s = time.monotonic()
        self._peak_mib = max(self._peak_mib, memory_mib)
        limit_mib = self.request.memory_mib
        if limit_mib is not None and memory_mib > limit_mib:
            self._out_of_memory = True
            self._signal(signal.SIGKILL)
        if self.request.timeout_s is not None and now_s > self._started_s + self.request.timeout_s:
            self._timed_out = self._timed_out or self._kill_at_s is None
            self.end()
        if self._kill_at_s is not None and now_s > self._kill_at_s:
            self._signal(signal.SIGKILL)

    def reap(self) -> None:
        """Reap the job's first process and kill what is still running in its group."""
        # Before the wait: while the process is a zombie, its group id cannot be reused.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self.ended = Ended(status, usage, time.monotonic())

    def is_over(self) -> bool:
        """Return whether the job has ended and all its output has been read."""
        if self.ended is None:
            return False
        return not self.streams or time.monotonic() > self.ended.at_s + DRAIN_S

    def close(self) -> list[tuple[str, str]]:
        """Close streams that another process still holds open; return their unfinished lines."""
        rest = []
        for fd, stream in self.streams.items():
            os.close(fd)
            rest += [(stream, line) for line in self._splitters[fd].finish()]
        self.streams.clear()
        return rest

    def exit_event(self) -> dict[str, Any]:
        """Return the ``exit`` event, which reports how the job ended."""
        assert self.ended is not None
        status, usage, at_s = self.ended
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        was_killed_by_kernel = number == signal.SIGKILL and not self._was_killed
        return {
            "event": "exit",
            "id": self.request.id,
            "exit_code": None if number is not None else os.WEXITSTATUS(status),
            "signal": number,
            "timed_out": self._timed_out,
            "out_of_memory": self._out_of_memory
            or (was_killed_by_kernel and count_oom_kills() > self._oom_kills),
            "peak_memory_mib": round(self._peak_memory_mib(usage.ru_maxrss / 1024), 1),
            "wall_s": round(at_s - self._started_s, 3),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        }

    def _peak_memory_mib(self, counted_mib: float) -> float:
        """Return the peak memory of the job: the larger of the kernel's counter and our samples.

        The kernel's counter includes the time before exec, when the forked process has the server's memory.
        If its value may come from that time, it is ignored. The samples cover the whole process group but
        miss peaks between two samples.
        """
        if self._is_script or counted_mib > self._server_peak_mib:
            return max(counted_mib, self._peak_mib)
        return self._peak_mib or counted_mib

    def _signal(self, number: signal.Signals) -> None:
        self._was_killed = self._was_killed or number == signal.SIGKILL
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # The job was just forked and leads no group yet. Its pid cannot be reused until it is reaped.
            os.kill(self.pid, number)
