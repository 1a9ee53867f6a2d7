"""The local engine: run the toolchain without a container, in a virtual environment of CPython 3.7.

It is for machines without Docker. It uses the same wheels, tensorflow/models and server as the Docker engine.
It provides no isolation: scripts can access all of the user's files, and read-only folders are not protected
against writes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from runner import console
from runner.download.progress import megabytes
from runner.engines.base import Availability, InterpreterFacts, Preload, Toolchain
from runner.engines.exit_codes import EXIT_MEANINGS, NOT_EXECUTABLE, NOT_FOUND, code_of
from runner.engines.local.build import kill_group, toolchain_variables
from runner.engines.local.interpreter import find_interpreter, requested_interpreter
from runner.engines.local.own_python import (
    WAYS_OUT,
    archive_source,
    install_python,
    why_not_installable,
    why_refused,
)
from runner.engines.local.plan import EnvironmentPlan
from runner.engines.local.store import find_environment, obtain_environment
from runner.engines.session import ServerSession
from runner.errors import EngineError
from runner.host.digests import sha256_of
from runner.host.scratch import scratch_folder
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.toolchain.catalog import image_command, load_toolchain, preload_flags
from runner.toolchain.digest import digest_of
from runner.toolchain.models_source import candidate_sources, choose_source
from runner.toolchain.pins import PROJECT_ROOT, load_models_pin, load_python_pin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.engines.base import Folders
    from runner.engines.local.interpreter import Interpreter
    from runner.toolchain.catalog import ToolchainSpec
    from runner.toolchain.models_source import ModelsSource
    from runner.toolchain.pins import PythonPin

LAST_LINES: Final = 25
STOP_TIMEOUT_S: Final = 10.0
"""How long the server may take to end its jobs after its stdin is closed."""


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """The engine for machines without Docker: one environment, and one server per session."""

    toolchain: str = DEFAULT_TOOLCHAIN
    """The name of a folder of ``toolchains/``."""
    models: str = "auto"
    """Where tensorflow/models comes from: auto, github, pypi, or a path."""
    models_commit: str | None = None
    """The commit of tensorflow/models to use; if None, any pinned commit."""
    python: str | None = None
    """The CPython 3.7 to use. If None, RUNNER_PYTHON is used, or else an installed one."""
    python_download: bool = True
    """Whether a CPython 3.7 may be installed into the cache if none is found."""
    ca_bundle: Path | None = None
    root: Path = PROJECT_ROOT
    name: str = "local"
    is_isolated: bool = False

    def with_toolchain(self, name: str) -> LocalEngine:
        """Return the same engine for another toolchain.

        Raises:
            UsageError: there is no toolchain with this name.
        """
        return replace(self, toolchain=load_toolchain(name).name)

    def with_models_commit(self, commit: str) -> LocalEngine:
        """Return the same engine with this commit of tensorflow/models, whatever ``auto`` would choose."""
        return replace(self, models_commit=commit)

    def availability(self) -> Availability:
        """Return whether a CPython 3.7 exists or can be installed.

        Raises:
            UsageError: an environment variable about the installation has an invalid value.
        """
        try:
            interpreter = self.interpreter
        except EngineError as problem:
            return self._availability_of_own(problem)
        return Availability(can_run=True, reason=f"CPython {interpreter.version} at {interpreter.path}")

    def _availability_of_own(self, problem: EngineError) -> Availability:
        """Return whether a CPython 3.7 can be installed, after the search failed with ``problem``."""
        if requested_interpreter(self.python) is not None:
            return Availability(can_run=False, reason=problem.message, tip=problem.tip)
        reason = why_not_installable(self._python_pin, is_allowed=self.python_download)
        if reason is not None:
            return Availability(can_run=False, reason=f"{problem.message}; {reason}", tip=WAYS_OUT)
        pin, source = self._python_pin, archive_source(self._python_pin)
        size = megabytes(pin.size_bytes)
        return Availability(
            can_run=True, reason=f"CPython {pin.version} can be installed from {source} ({size})"
        )

    def is_built(self) -> bool:
        """Return whether the environment exists."""
        return self.has_interpreter and self.find() is not None

    def prepare(self) -> Toolchain:
        """Find the environment or build it.

        Raises:
            EngineError: there is no usable CPython 3.7.
            BuildError: a step of the build failed.
            IntegrityError: an input of the build is not the pinned one.
        """
        self._ensure_interpreter()
        found = self.find()
        if found is None:
            plan = self._plan(self._chosen_source() if self._spec.has_models_tree else None)
            obtain_environment(plan)
        else:
            plan, _ = found
        return Toolchain(
            engine=self.name,
            name=plan.spec.name,
            id=plan.key,
            digest=digest_of(plan.spec, plan.models_commit, self.root),
            base=f"CPython {plan.interpreter.version}",
            interpreter=InterpreterFacts(
                build=plan.interpreter.build,
                sha256=sha256_of(plan.interpreter.path),
                archive_sha256=plan.interpreter.archive_sha256,
            ),
            models_source=None if plan.source is None else plan.source.kind,
            models_commit=plan.models_commit,
        )

    @contextlib.contextmanager
    def open(
        self,
        folders: Folders,  # noqa: ARG002
        env: Mapping[str, str],
        *,
        preload: Preload = Preload.DETECTION_API,
    ) -> Iterator[ServerSession]:
        """Start a server, and always stop it at the end. It can access all folders, not only ``folders``.

        Raises:
            EngineError: the environment does not exist, or the server could not be started.
        """
        with self._variables(env) as (folder, variables), tempfile.TemporaryFile() as stderr:
            server = str(self.root / "docker/server/server.py")
            command = [str(folder / "bin/python"), server, *preload_flags(self._spec, preload.modules)]
            with _running_server(command, variables, stderr) as process:
                session = ServerSession(
                    _PipeChannel(process),
                    toolchain_dir=PurePosixPath(self.root / "docker"),
                    why_gone=lambda: _why_gone(process, stderr),
                )
                yield session

    def attach(self, argv: tuple[str, ...], folders: Folders, env: Mapping[str, str]) -> int:  # noqa: ARG002
        """Run a command on the caller's own terminal or pipes and return its exit code.

        Raises:
            EngineError: the environment does not exist.
        """
        is_tty = sys.stdin.isatty()
        with self._variables(env) as (folder, variables), _ForwardedSignals(is_tty=is_tty) as signals:
            work_dir = folder / "models/research" if self._spec.has_models_tree else variables["HOME"]
            try:
                process = subprocess.Popen(argv, env=variables, cwd=work_dir, start_new_session=not is_tty)
            except OSError as problem:
                console.note(f"{argv[0]}: {problem.strerror}")
                return NOT_FOUND if isinstance(problem, FileNotFoundError) else NOT_EXECUTABLE
            with process:
                signals.pass_on_to(process)
                return code_of(process.wait())

    @cached_property
    def interpreter(self) -> Interpreter:
        """The CPython 3.7 that the toolchain runs on.

        Raises:
            EngineError: there is none.
        """
        return find_interpreter(self.python, root=self.root)

    @property
    def has_interpreter(self) -> bool:
        """Whether a usable CPython 3.7 exists, so that none must be installed."""
        with contextlib.suppress(EngineError):
            return bool(self.interpreter)
        return False

    @property
    def _python_pin(self) -> PythonPin:
        return load_python_pin(self.root)

    def _ensure_interpreter(self) -> None:
        """Install a CPython 3.7 if none is found and the user did not name one.

        Raises:
            EngineError: there is none, and installing one is not allowed.
            IntegrityError: the archive is not available, or is not the pinned one.
        """
        try:
            self.interpreter  # noqa: B018 - the property searches for one
        except EngineError as problem:
            if requested_interpreter(self.python) is not None:
                raise
            reason = why_refused(is_allowed=self.python_download)
            if reason is not None:
                raise EngineError(
                    f"{problem.message}; {reason}", tip=WAYS_OUT, last_lines=problem.last_lines
                ) from problem
            install_python(self._python_pin)

    @property
    def _spec(self) -> ToolchainSpec:
        return load_toolchain(self.toolchain)

    def _chosen_source(self) -> ModelsSource:
        return choose_source(self.models, load_models_pin(self.root), commit=self.models_commit)

    def _plan(self, source: ModelsSource | None) -> EnvironmentPlan:
        return EnvironmentPlan(
            spec=self._spec,
            interpreter=self.interpreter,
            source=source,
            models_commit=None if source is None else source.commit(load_models_pin(self.root)),
            ca_bundle=self.ca_bundle,
            root=self.root,
        )

    def find(self) -> tuple[EnvironmentPlan, Path] | None:
        """Return the first environment that exists, built from any allowed source of the models tree.

        Raises:
            EngineError: there is no usable CPython 3.7.
        """
        sources: tuple[ModelsSource | None, ...] = (None,)
        if self._spec.has_models_tree:
            pin = load_models_pin(self.root)
            sources = candidate_sources(self.models, pin, commit=self.models_commit)
        plans = (self._plan(source) for source in sources)
        found = ((plan, find_environment(plan)) for plan in plans)
        return next(((plan, folder) for plan, folder in found if folder is not None), None)

    @contextlib.contextmanager
    def _variables(self, env: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
        """Yield the environment's folder and the variables for running in it, with a temporary HOME."""
        found = self.find()
        if found is None:
            raise EngineError(
                "the local environment does not exist",
                tip=f"run `{image_command(self._spec)} --engine local` to build it",
            )
        _, folder = found
        with scratch_folder() as scratch:
            yield folder, toolchain_variables(self._spec, folder, self.root, scratch) | dict(env)


# --- the server -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _running_server(
    command: list[str], variables: dict[str, str], stderr: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server, and stop it at the end.

    The server runs in its own process session, so that signals from the terminal do not reach it.
    """
    process = subprocess.Popen(
        command,
        env=variables,
        cwd=variables["HOME"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop_server(process)


def _stop_server(process: subprocess.Popen[bytes]) -> None:
    """Close the server's stdin, which makes it end its jobs and exit; kill it after a timeout."""
    with contextlib.suppress(OSError):
        _stdin(process).close()
    try:
        process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_group(process)
    except BaseException:
        kill_group(process)
        raise


class _PipeChannel:
    """The server's stdin and stdout."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def send(self, payload: bytes) -> None:
        stdin = _stdin(self._process)
        stdin.write(payload)
        stdin.flush()

    def lines(self) -> Iterator[bytes]:
        if self._process.stdout is not None:
            with self._process.stdout as stdout:
                for line in stdout:
                    yield line.rstrip(b"\n")


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdin is None:
        raise BrokenPipeError
    return process.stdin


def _why_gone(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> str:
    try:
        code = code_of(process.wait(timeout=STOP_TIMEOUT_S))
    except subprocess.TimeoutExpired:
        return "it closed its output but did not exit"
    stderr.seek(0)
    last_lines = stderr.read().decode(errors="replace").splitlines()[-LAST_LINES:]
    meaning = EXIT_MEANINGS.get(code, "see its last lines")
    return "\n".join([f"its process ended with code {code} ({meaning})", *last_lines])


# --- a command on the caller's terminal -------------------------------------------------------------------


class _ForwardedSignals:
    """Forward signals to a command; signals that arrive while it starts are sent later.

    Without a terminal the command has its own process group, and the whole group is signalled, because a
    shell that waits for a command does not forward signals. On a terminal the command is in our process
    group, so signals from the keyboard reach it directly.
    """

    def __init__(self, *, is_tty: bool) -> None:
        self._is_tty = is_tty
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _ForwardedSignals:
        from_keys = self._leave if self._is_tty else self._forward
        handlers = {
            signal.SIGINT: from_keys,
            signal.SIGQUIT: from_keys,
            signal.SIGTERM: self._forward,
            signal.SIGHUP: self._forward,
        }
        # Signals that are already ignored, as under `nohup`, stay ignored, here and in the command.
        noticed = {it: handlers[it] for it in handlers if signal.getsignal(it) is not signal.SIG_IGN}
        self._before = {number: signal.signal(number, handler) for number, handler in noticed.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on_to(self, process: subprocess.Popen[bytes]) -> None:
        """Forward the signals received so far and from now on."""
        self._process = process
        while self._early:
            self._send(self._early.pop(0), process)

    def _forward(self, number: int, _frame: object) -> None:
        if self._process is None:
            self._early.append(number)
        else:
            self._send(number, self._process)

    def _leave(self, _number: int, _frame: object) -> None:
        """Do nothing. SIG_IGN cannot be used, because the command would inherit it."""

    def _send(self, number: int, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):  # the process has just ended
            if self._is_tty:
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)
