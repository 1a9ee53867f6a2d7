"""The toolchain server: import TensorFlow once, fork a process for each job.

    python server.py [--preload [MODULE ...]] [--kill-grace-s SECONDS]

Reads one JSON object per line from stdin:

    {"op": "run", "id": "1", "argv": [...], "cwd": "/x", "env": {...}, "timeout_s": 600, "memory_mib": 4000}
    {"op": "kill", "id": "1"}
    {"op": "stop"}

and writes one JSON object per line to stdout:

    {"event": "ready", "pid": ..., "python": ..., "tensorflow": ..., "threads": 1}
    {"event": "line", "id": "1", "stream": "stdout", "text": ...}
    {"event": "exit", "id": "1", "exit_code": 0, "signal": null, "timed_out": false, "out_of_memory": false,
     "peak_memory_mib": ..., "wall_s": ..., "cpu_s": ...}
    {"event": "error", "id": "1", "message": ...}

A run request needs ``id`` and ``argv``; its other fields are optional. Jobs run in parallel. When a job ends,
processes that it left running are killed. At the end of stdin, or on SIGTERM, the server ends its jobs and
exits. The server has a single thread, because threads do not survive a fork.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import platform
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

import child
import speedups
from job import KILL_GRACE_S, RunningJob
from memory import memory_mib_by_group
from request import BadRequestError, JobRequest, read_job_request

sys.path.append(str(child.TOOLCHAIN_DIR))
from bin._quiet import quiet_tensorflow

SAMPLE_S = 0.2
READ_BYTES = 64 * 1024
# When this much output waits for the client, the server reads no more output of the jobs.
OUTBOX_BYTES = 1024 * 1024
# The modules that conversions import; importing them starts no session and no thread.
DETECTION_MODULES = (
    "tensorflow",
    "tensorflow.lite.toco.model_flags_pb2",
    "tensorflow.lite.toco.toco_flags_pb2",
    "object_detection.export_tflite_ssd_graph_lib",
    "object_detection.exporter",
)


def main() -> None:
    """Import the modules, send the ``ready`` event, serve requests."""
    parser = argparse.ArgumentParser(description="Run toolchain jobs; JSON lines on stdin and stdout.")
    parser.add_argument(
        "--preload",
        nargs="*",
        metavar="MODULE",
        help="import these modules before the first job; without names, the modules that a conversion uses",
    )
    parser.add_argument(
        "--kill-grace-s",
        type=float,
        default=KILL_GRACE_S,
        help="seconds between SIGTERM and SIGKILL; default: %(default)s",
    )
    arguments = parser.parse_args()
    server = Server(*_take_stdio(), kill_grace_s=arguments.kill_grace_s)
    if arguments.preload is not None:
        _import_all(arguments.preload or DETECTION_MODULES)
    server.send(
        event="ready",
        pid=os.getpid(),
        python=platform.python_version(),
        tensorflow=getattr(sys.modules.get("tensorflow"), "__version__", None),
        threads=sum(1 for _ in Path("/proc/self/task").iterdir()),
    )
    server.serve()


def _take_stdio() -> tuple[int, int]:
    """Reserve stdin and stdout for the protocol: other code gets an empty stdin, and stderr as stdout."""
    requests, events = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, events


def _import_all(names: Sequence[str]) -> None:
    # Threads do not survive a fork, and OpenBLAS would start some on import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with quiet_tensorflow():
        speedups.apply_to_server(os.environ.get(speedups.VARIABLE))
        for name in names:
            importlib.import_module(name)
    # A garbage collection in a job would write to every object and so copy all pages shared with the server.
    gc.collect()
    gc.freeze()
    gc.enable()


class Server:
    """The event loop: read requests, send output lines and exit events of the jobs."""

    def __init__(self, requests: int, events: int, *, kill_grace_s: float) -> None:
        self._requests = requests
        self._events = events
        self._kill_grace_s = kill_grace_s
        self._inbox = b""
        self._outbox = bytearray()
        self._jobs: dict[str, RunningJob] = {}
        self._is_stopping = False
        self._next_sample_s = 0.0
        # Signals arrive as bytes in this pipe: they wake up select, and none is lost before the select call.
        self._wakeup, wakeup_end = os.pipe()
        os.set_blocking(wakeup_end, False)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        self._own_fds = (requests, events, self._wakeup, wakeup_end)
        for number in child.SERVER_SIGNALS:
            signal.signal(number, lambda *_: None)

    def send(self, **event: Any) -> None:  # noqa: ANN401 - any JSON value
        """Queue an event for the client."""
        if self._events >= 0:
            self._outbox += json.dumps(event).encode() + b"\n"

    def serve(self) -> None:
        """Serve until the client disconnects or sends ``stop``, and the last job has ended."""
        while not self._is_stopping or self._jobs or self._outbox:
            readable, writable, _ = select.select(
                self._wanted_fds(),
                [self._events] if self._outbox else [],
                [],
                SAMPLE_S if self._jobs else None,
            )
            if writable:
                self._write()
            for fd in readable:
                self._read(fd)
            self._reap()
            self._look_after_jobs()

    def _wanted_fds(self) -> list[int]:
        fds = [self._wakeup]
        if self._requests >= 0:
            fds.append(self._requests)
        if len(self._outbox) < OUTBOX_BYTES:
            fds += [fd for job in self._jobs.values() for fd in job.streams]
        return fds

    def _write(self) -> None:
        try:
            # A pipe that select reports as writable accepts this many bytes without blocking.
            written = os.write(self._events, self._outbox[: select.PIPE_BUF])
        except BrokenPipeError:
            self._events = -1
            self._outbox.clear()
            self._stop()
        else:
            del self._outbox[:written]

    def _read(self, fd: int) -> None:
        if fd == self._requests:
            self._read_requests()
        elif fd == self._wakeup:
            if set(os.read(fd, READ_BYTES)) & {signal.SIGTERM, signal.SIGINT}:
                self._stop()
        else:
            for job in self._jobs.values():
                if fd in job.streams:
                    stream = job.streams[fd]
                    for line in job.read(fd):
                        self.send(event="line", id=job.request.id, stream=stream, text=line)

    def _read_requests(self) -> None:
        chunk = os.read(self._requests, READ_BYTES)
        if not chunk:
            self._requests = -1
            self._stop()
        *lines, self._inbox = (self._inbox + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                self._answer(line)

    def _answer(self, line: bytes) -> None:
        fields: Any = None
        try:
            fields = json.loads(line.decode())
            self._obey(fields)
        except (ValueError, RecursionError):
            self.send(event="error", id=None, message="bad request: not one JSON object per line")
        except (BadRequestError, OSError) as error:
            number = fields.get("id") if isinstance(fields, dict) else None
            self.send(event="error", id=number if isinstance(number, str) else None, message=str(error))

    def _obey(self, fields: Mapping[str, Any]) -> None:
        """Execute a request.

        Raises:
            BadRequestError: the request is invalid, kills a job that is not running, starts a job that is, or
                comes while the server stops.
            OSError: no new process could be created.
        """
        if not isinstance(fields, dict):
            raise BadRequestError("bad request: not one JSON object per line")
        op = fields.get("op")
        if op == "run":
            self._start(fields)
        elif op == "kill":
            self._job(fields.get("id")).end()
        elif op == "stop":
            self._stop()
        else:
            raise BadRequestError(f"bad request: op must be run, kill or stop, not {op!r}")

    def _job(self, number: object) -> RunningJob:
        for job in self._jobs.values():
            if job.request.id == number:
                return job
        raise BadRequestError(f"no job {number!r} is running")

    def _start(self, fields: Mapping[str, Any]) -> None:
        request = read_job_request(fields)
        if self._is_stopping:
            raise BadRequestError("the server is stopping")
        if request.id in self._jobs:
            raise BadRequestError(f"job {request.id!r} is already running")
        script = child.find_script(
            request.argv, request.cwd or str(Path.cwd()), request.env.get("PATH", os.environ.get("PATH"))
        )
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        try:
            pid = self._fork(request, script, (out, err), (out_end, err_end))
        except OSError:
            os.close(out)
            os.close(err)
            raise
        finally:
            os.close(out_end)
            os.close(err_end)
        self._jobs[request.id] = RunningJob(
            request,
            pid=pid,
            streams={out: "stdout", err: "stderr"},
            is_script=script is not None,
            kill_grace_s=self._kill_grace_s,
        )

    def _fork(
        self,
        request: JobRequest,
        script: child.ForkedScript | None,
        read_ends: tuple[int, int],
        write_ends: tuple[int, int],
    ) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        others = [fd for job in self._jobs.values() for fd in job.streams]
        signal.pthread_sigmask(signal.SIG_BLOCK, child.SERVER_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                child.become(request, script, *write_ends, [*self._own_fds, *read_ends, *others])
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, child.SERVER_SIGNALS)
        return pid

    def _reap(self) -> None:
        """Reap every child that has ended, including orphans if this is process 1 of a container."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            for job in self._jobs.values():
                if job.pid == ended.si_pid:
                    job.reap()
                    break
            else:
                os.waitpid(ended.si_pid, 0)

    def _look_after_jobs(self) -> None:
        if self._jobs and time.monotonic() >= self._next_sample_s:
            self._next_sample_s = time.monotonic() + SAMPLE_S
            memory = memory_mib_by_group([job.pid for job in self._jobs.values()])
            for job in self._jobs.values():
                job.enforce_limits(memory[job.pid])
        for job in list(self._jobs.values()):
            if job.is_over():
                for stream, line in job.close():
                    self.send(event="line", id=job.request.id, stream=stream, text=line)
                self.send(**job.exit_event())
                del self._jobs[job.request.id]

    def _stop(self) -> None:
        self._is_stopping = True
        for job in self._jobs.values():
            job.end()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
