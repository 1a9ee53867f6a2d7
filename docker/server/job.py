"""The jobs of the toolchain server: follow one, keep it within its limits, tell how it ended."""

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
"""How long a job that is ended may take from SIGTERM until SIGKILL."""
DRAIN_S = 2.0
"""How long output is awaited after the end of a job, should something that left its group hold the pipe."""
MAX_LINE_BYTES = 64 * 1024
READ_BYTES = 64 * 1024

# A carriage return at the very end may be the first half of a line end, so it waits for what follows.
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class LineSplitter:
    """Cut a stream of bytes into lines; a progress display gives one for each carriage return."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes and return the lines they complete."""
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
        """Return the last line, if it has no end of its own."""
        rest, self._rest = self._rest, b""
        return [_decode(rest.rstrip(b"\r"))] if rest else []


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "replace")


class Ended(NamedTuple):
    """What the kernel said of a job's first process."""

    status: int
    usage: Any
    at_s: float


class RunningJob:
    """A running job. Its processes are one group, and that is what signals and limits are for."""

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
        """Take what is there to read, return the lines it completes, close at the end."""
        chunk = os.read(fd, READ_BYTES)
        if chunk:
            return self._splitters[fd].feed(chunk)
        del self.streams[fd]
        os.close(fd)
        return self._splitters[fd].finish()

    def end(self) -> None:
        """Ask the job to end, and see to it that it does."""
        if self._kill_at_s is None and self.ended is None:
            self._kill_at_s = time.monotonic() + self._kill_grace_s
            self._signal(signal.SIGTERM)

    def enforce_limits(self, memory_mib: float) -> None:
        """Compare time and memory with what is allowed."""
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
        """Take in the end of the job's first process, and end whatever it left running."""
        # Before the wait: as long as the process is a zombie, nobody else can have the number of its group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self.ended = Ended(status, usage, time.monotonic())

    def is_over(self) -> bool:
        """Say whether the job has ended and all it wrote is read."""
        if self.ended is None:
            return False
        return not self.streams or time.monotonic() > self.ended.at_s + DRAIN_S

    def close(self) -> list[tuple[str, str]]:
        """Give up on streams that something still holds; return the lines that were begun."""
        rest = []
        for fd, stream in self.streams.items():
            os.close(fd)
            rest += [(stream, line) for line in self._splitters[fd].finish()]
        self.streams.clear()
        return rest

    def exit_event(self) -> dict[str, Any]:
        """Tell how the job ended."""
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
        """Choose between what the kernel counted and what was sampled.

        The kernel counts from the fork on, so a program that replaces our memory by its own starts with the
        server's peak. Samples see a whole group, but not what happens between them.
        """
        if self._is_script or counted_mib > self._server_peak_mib:
            return max(counted_mib, self._peak_mib)
        return self._peak_mib or counted_mib

    def _signal(self, number: signal.Signals) -> None:
        self._was_killed = self._was_killed or number == signal.SIGKILL
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # So young that it leads no group yet. Until it is reaped the number is its own.
            os.kill(self.pid, number)
