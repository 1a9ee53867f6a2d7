"""Run one job in a process that was forked from the server.

A Python script of this toolchain runs in the forked process and uses the modules that the server has already
imported. Any other command replaces the process (exec).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import runpy
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, NamedTuple, NoReturn, Sequence

import speedups

if TYPE_CHECKING:
    from types import TracebackType

    from request import JobRequest

TOOLCHAIN_DIR = Path(__file__).resolve().parents[1]
PYTHON_NAMES = ("python", "python3", sys.executable)
# Higher than the server's, so that the kernel kills a job and not the server when memory runs out.
OOM_SCORE_ADJ = 500
PR_SET_PDEATHSIG = 1
# Signals the server handles. They are blocked during the fork, so that no server handler runs in a job.
SERVER_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class ForkedScript(NamedTuple):
    """A script of this toolchain and its ``sys.argv``."""

    path: Path
    argv: list[str]


def find_script(argv: Sequence[str], cwd: str, search_path: str | None) -> ForkedScript | None:
    """Return the toolchain script that a command line runs, or None if it runs something else.

    The command line can give the script's name, its path, or ``python FILE``.
    """
    command = list(argv)
    if command[0] in PYTHON_NAMES and len(command) > 1:
        command = command[1:]
    elif os.sep not in command[0]:
        command[0] = shutil.which(command[0], path=search_path) or ""
    # Not Path.resolve: it raises on a symlink loop.
    path = Path(os.path.realpath(str(Path(cwd, command[0]))))
    if TOOLCHAIN_DIR not in path.parents or not path.is_file():
        return None
    if path.suffix != ".py" and b"python" not in path.read_bytes()[:64]:
        return None
    return ForkedScript(path, [str(path), *command[1:]])


def become(
    request: JobRequest, script: ForkedScript | None, stdout: int, stderr: int, server_fds: Iterable[int]
) -> NoReturn:
    """Run the job in this newly forked process and exit; never returns."""
    code = 1
    try:
        _leave_server(stdout, stderr, server_fds)
        os.environ.update(request.env)
        if request.cwd:
            os.chdir(request.cwd)
        if script is None:
            code = _exec(request.argv)
        else:
            speedups.apply_to_job(request.env.get(speedups.VARIABLE, ""))
            code = _run(script)
    except OSError as error:
        print(f"{request.argv[0]}: {error}", file=sys.stderr)
        code = 126
    except BaseException:  # noqa: BLE001 - no caller could print it
        traceback.print_exc()
    finally:
        # Not sys.exit: its exception would propagate into the server's loop.
        os._exit(code)


def _leave_server(stdout: int, stderr: int, server_fds: Iterable[int]) -> None:
    os.setsid()
    _die_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SERVER_SIGNALS)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, place in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, place)
        os.close(fd)
    for fd in server_fds:
        os.close(fd)
    # Not replaced by a new object, because modules that the server imported may refer to this one.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def _die_with_parent() -> None:
    """Make the kernel kill this process when the server dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _exec(argv: Sequence[str]) -> int:
    # Python ignores these two signals; the programs it starts should not.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], list(argv), os.environ)
    except FileNotFoundError:
        print(f"{argv[0]}: command not found", file=sys.stderr)
        return 127


def _run(script: ForkedScript) -> int:
    """Run a script as ``python script`` would, and return its exit code."""
    sys.argv = script.argv
    sys.path[0] = str(script.path.parent)
    try:
        runpy.run_path(str(script.path), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = _exit_code(end.code)
    except BaseException as error:  # noqa: BLE001 - like python: print any exception and exit with 1
        traceback.print_exception(type(error), error, _script_part(error.__traceback__))
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    return _finish() or code


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _script_part(frames: TracebackType | None) -> TracebackType | None:
    """Drop the server's own frames from a traceback."""
    while frames is not None and frames.tb_frame.f_globals.get("__name__") in (__name__, runpy.__name__):
        frames = frames.tb_next
    return frames


def _finish() -> int:
    """Run the interpreter's shutdown steps that ``os._exit`` skips; return 120 if flushing stdout fails."""
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        return 120
    return 0
