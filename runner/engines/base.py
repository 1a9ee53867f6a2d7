"""The contract of an engine: open these folders, run this argv, hand back the exit code and the lines.

Folders appear inside under the same absolute path as on the host, so a path means the same on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path, PurePosixPath

DEFAULT_MEMORY_MIB: Final = 4096
DEFAULT_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True, kw_only=True)
class Folders:
    """What the toolchain may see of the host; nothing else is there."""

    read_only: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command for the toolchain, never a shell string."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cwd: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    memory_mib: int = DEFAULT_MEMORY_MIB


class Stream(Protocol):
    """Called with each line of a job as it comes; ``stream`` is ``stdout`` or ``stderr``."""

    def __call__(self, stream: str, line: str) -> None:
        """Take one line, without its line end."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended. ``exit_code`` is 128 + n for a job that signal n ended."""

    exit_code: int
    stdout: tuple[str, ...]
    stderr: tuple[str, ...]
    timed_out: bool
    out_of_memory: bool
    peak_memory_mib: float
    wall_s: float
    cpu_s: float


class Session(Protocol):
    """A running toolchain that sees a fixed set of folders."""

    @property
    def toolchain_dir(self) -> PurePosixPath:
        """Where ``docker/`` of this repository lies inside."""

    def wait_until_ready(self) -> None:
        """Wait until the toolchain has started; a job waits for that by itself.

        Raises:
            EngineError: it did not start.
        """

    def run_job(self, job: Job, on_line: Stream | None = None) -> JobResult:
        """Run a job to its end; several may run at the same time, from several threads.

        Raises:
            EngineError: the engine itself died or went away.
        """

    def run(self, *argv: str) -> JobResult:
        """Run a command with the default limits and nothing watching its lines."""

    def stop(self) -> None:
        """Kill every running job and take no more."""


@dataclass(frozen=True, kw_only=True)
class InterpreterFacts:
    """Which interpreter the local engine runs on; ``sha256`` is that of its executable."""

    build: str
    sha256: str
    archive_sha256: str | None = None
    """Of the archive it came in, where the engine installed it itself."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What a session runs: enough to name it in a provenance, and to tell two of them apart."""

    engine: str
    """``docker`` or ``local``."""
    id: str
    """The image id, or the key of the environment."""
    digest: str
    """sha256 over all that goes into it: lock, tree, ``docker/`` sources; not the engine."""
    base: str
    """The base image as it was asked for, or the version of the interpreter."""
    models_source: str
    models_commit: str
    interpreter: InterpreterFacts | None = None
    """None: the one of the image, which ``base`` names."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether an engine can run on this machine now, and why; ``tip`` says what would make it run."""

    can_run: bool
    reason: str
    tip: str | None = None


class Engine(Protocol):
    """A way to run the toolchain."""

    @property
    def name(self) -> str:
        """What the engine is called on the command line."""

    def availability(self) -> Availability:
        """Return whether the toolchain is there or could be built here; builds and downloads nothing.

        Raises:
            UsageError: an option of the engine is invalid.
        """

    def prepare(self) -> Toolchain:
        """Find the toolchain or build it.

        Raises:
            EngineError: the engine cannot be used here.
            BuildError: the toolchain could not be built.
            IntegrityError: something that goes into it is not what it should be.
        """

    def open(self, folders: Folders, env: Mapping[str, str]) -> AbstractContextManager[Session]:
        """Start the toolchain on these folders, and stop it whatever happens.

        It goes on starting while the session is given out: there is time for other things.

        Raises:
            EngineError: it could not be started.
        """

    def attach(self, argv: tuple[str, ...], folders: Folders, env: Mapping[str, str]) -> int:
        """Run a command on the caller's own terminal or pipes and return its exit code.

        It starts where ``object_detection/`` lies; signals and the terminal's size are passed on.

        Raises:
            EngineError: it could not be started.
        """
