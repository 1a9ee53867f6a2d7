"""The client of the toolchain server (``docker/server/server.py``); jobs and events are JSON lines.

Both engines use this client, because they start the same server and only connect to it in different ways. A
reader thread puts the events of each job into the job's queue, so several threads can run jobs in parallel.
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from runner.engines.base import Job, JobResult
from runner.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import PurePosixPath

    from runner.engines.base import Stream

START_TIMEOUT_S: Final = 120.0
"""Importing TensorFlow takes about 3 s, but much longer with a cold disk cache or an emulated processor."""

_GONE: Final[dict[str, Any]] = {"event": "gone"}


class Channel(Protocol):
    """Two byte streams to a server; when they are closed, the server ends its jobs and stops."""

    def send(self, payload: bytes) -> None:
        """Write all bytes.

        Raises:
            OSError: the server is gone.
        """

    def lines(self) -> Iterator[bytes]:
        """Yield complete lines until the server is gone."""


class ServerSession:
    """A session over a channel. ``why_gone`` returns why the server died, for error messages."""

    def __init__(
        self, channel: Channel, *, toolchain_dir: PurePosixPath, why_gone: Callable[[], str]
    ) -> None:
        """Start reading the events of a server that has just been started."""
        self.toolchain_dir = toolchain_dir
        self._channel = channel
        self._why_gone = why_gone
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._is_ready = False
        self._give_up_s = time.monotonic() + START_TIMEOUT_S
        self._is_gone = False
        self._queues: dict[str, queue.SimpleQueue[dict[str, Any]]] = {"": queue.SimpleQueue()}
        threading.Thread(target=self._listen, name="toolchain-reader", daemon=True).start()

    def wait_until_ready(self) -> None:
        """Wait for the server's ``ready`` event, if it has not arrived yet.

        Raises:
            EngineError: the server did not start.
        """
        if self._is_ready:
            return
        greetings = self._queues[""]
        try:
            greeting = greetings.get(timeout=max(0.0, self._give_up_s - time.monotonic()))
        except queue.Empty:
            raise EngineError(
                f"the toolchain did not start within {START_TIMEOUT_S:.0f} s",
                tip="run `doctor` to see what is wrong",
            ) from None
        if greeting["event"] == "ready":
            self._is_ready = True
        greetings.put(greeting)  # put it back for other waiting threads
        if not self._is_ready:
            raise self._gone_error(when="while it started")

    def run(self, *argv: str) -> JobResult:
        """Run a command with the default limits and without a line callback."""
        return self.run_job(Job(argv=argv))

    def run_job(self, job: Job, on_line: Stream | None = None) -> JobResult:
        """Run a job until it ends; kill it if this thread is interrupted.

        Raises:
            EngineError: the server or its container died, or the daemon is gone.
        """
        self.wait_until_ready()
        number = str(next(self._numbers))
        events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            is_gone = self._is_gone
            if not is_gone:
                self._queues[number] = events
        if is_gone:
            raise self._gone_error(when="before the command was sent")
        try:
            self._send(
                {
                    "op": "run",
                    "id": number,
                    "argv": list(job.argv),
                    "cwd": None if job.cwd is None else str(job.cwd),
                    "env": dict(job.env),
                    "timeout_s": job.timeout_s,
                    "memory_mib": job.memory_mib,
                }
            )
            return self._follow(job, events, on_line)
        except BaseException:
            self._kill(number)
            raise
        finally:
            with self._lock:
                del self._queues[number]

    def stop(self) -> None:
        """Kill every running job and accept no new ones; threads waiting for a job get its result."""
        with self._lock:
            numbers = [number for number in self._queues if number]
        for number in numbers:
            self._kill(number)
        self._is_gone = True

    def _follow(
        self, job: Job, events: queue.SimpleQueue[dict[str, Any]], on_line: Stream | None
    ) -> JobResult:
        lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        while True:
            event = events.get()
            if event["event"] == "line":
                lines[event["stream"]].append(event["text"])
                if on_line is not None:
                    on_line(event["stream"], event["text"])
            elif event["event"] == "exit":
                return _job_result(event, lines)
            elif event["event"] == "error":
                raise EngineError(f"the toolchain refused the command {job.argv[0]!r}: {event['message']}")
            else:
                raise self._gone_error(when=f"while {job.argv[0]} ran")

    def _send(self, request: dict[str, Any]) -> None:
        payload = json.dumps(request).encode() + b"\n"
        try:
            with self._lock:
                self._channel.send(payload)
        except OSError as problem:
            raise self._gone_error(when="before the command was sent") from problem

    def _kill(self, number: str) -> None:
        if not self._is_gone:
            try:
                self._send({"op": "kill", "id": number})
            except EngineError:
                self._is_gone = True

    def _listen(self) -> None:
        try:
            for line in self._channel.lines():
                event = json.loads(line)
                with self._lock:
                    receiver = self._queues.get(event.get("id") or "")
                if receiver is not None:
                    receiver.put(event)
        except (OSError, ValueError):
            pass  # a broken channel means that the server is gone; all waiting jobs are notified below
        finally:
            with self._lock:
                self._is_gone = True
                for receiver in self._queues.values():
                    receiver.put(_GONE)

    def _gone_error(self, *, when: str) -> EngineError:
        return EngineError(
            f"the toolchain stopped unexpectedly {when}: {self._why_gone()}",
            tip="run it again; if that does not help, `doctor` checks the engine",
        )


def _job_result(event: Mapping[str, Any], lines: Mapping[str, list[str]]) -> JobResult:
    signal_number = event["signal"]
    return JobResult(
        exit_code=event["exit_code"] if signal_number is None else 128 + signal_number,
        stdout=tuple(lines["stdout"]),
        stderr=tuple(lines["stderr"]),
        timed_out=event["timed_out"],
        out_of_memory=event["out_of_memory"],
        peak_memory_mib=event["peak_memory_mib"],
        wall_s=event["wall_s"],
        cpu_s=event["cpu_s"],
    )
