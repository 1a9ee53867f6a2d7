"""The interface of an engine: open a session with some folders, run commands, return exit code and output.

An engine runs a toolchain (by default TensorFlow 1.15 and tensorflow/models) in a container or in a local
environment. Folders have the same absolute path in the toolchain as on the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from runner.recipes.recipe import DEFAULT_TOOLCHAIN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path, PurePosixPath

DEFAULT_MEMORY_MIB: Final = 4096
DEFAULT_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The host folders that the toolchain can access; with Docker, nothing else is mounted."""

    read_only: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()


class Preload(Enum):
    """What the toolchain's server imports once, before its first job. Jobs import anything else they need."""

    DETECTION_API = "everything that an export needs"
    TENSORFLOW = "what TOCO needs"

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the modules; if there are none, the server imports those that an export needs."""
        # Not values of the members: Python 3.11.2, which Debian 12 has, replaces a value of () by an object.
        if self is Preload.DETECTION_API:
            return ()
        return (
            "tensorflow",
            "tensorflow.lite.toco.model_flags_pb2",
            "tensorflow.lite.toco.toco_flags_pb2",
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command to run in the toolchain, as an argument list (not a shell string), and its limits."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    memory_mib: int = DEFAULT_MEMORY_MIB


class Stream(Protocol):
    """A callback for each output line of a job; ``stream`` is ``stdout`` or ``stderr``."""

    def __call__(self, stream: str, line: str) -> None:
        """Handle a line, without its line terminator."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended. ``exit_code`` is 128 + n if signal n ended it."""

    exit_code: int
    stdout: tuple[str, ...]
    stderr: tuple[str, ...]
    timed_out: bool
    out_of_memory: bool
    peak_memory_mib: float
    wall_s: float
    cpu_s: float


class Session(Protocol):
    """A running toolchain with access to a fixed set of folders."""

    @property
    def toolchain_dir(self) -> PurePosixPath:
        """The path of this repository's ``docker/`` folder in the toolchain."""

    def wait_until_ready(self) -> None:
        """Wait until the toolchain has started; `run_job` also does this.

        Raises:
            EngineError: the toolchain did not start.
        """

    def run_job(self, job: Job, on_line: Stream | None = None) -> JobResult:
        """Run a job until it ends; several threads may run jobs in parallel.

        Raises:
            EngineError: the engine itself died or the connection was lost.
        """

    def run(self, *argv: str) -> JobResult:
        """Run a command with the default limits and without a line callback."""

    def stop(self) -> None:
        """Kill every running job and accept no new ones."""


@dataclass(frozen=True, kw_only=True)
class InterpreterFacts:
    """The Python interpreter of the local engine; ``sha256`` is the digest of its executable."""

    build: str
    sha256: str
    archive_sha256: str | None = None
    """The sha256 of the archive, if the engine installed the interpreter itself."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The identity of a toolchain, as recorded in a provenance.

    ``models_source`` and ``models_commit`` are None for a toolchain without tensorflow/models.
    """

    name: str = DEFAULT_TOOLCHAIN
    """The name of its folder in ``toolchains/``."""
    engine: str
    """``docker`` or ``local``."""
    id: str
    """The image id, or the key of the environment."""
    digest: str
    """sha256 over the lock files, tensorflow/models and the ``docker/`` sources; the same for all engines."""
    base: str
    """With Docker, the base image as the user or the pin file names it; else the interpreter's version."""
    models_source: str | None
    models_commit: str | None
    interpreter: InterpreterFacts | None = None
    """None with Docker, because the interpreter is part of the base image."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether an engine can run on this machine now, and why; ``tip`` states what to do if it cannot."""

    can_run: bool
    reason: str
    tip: str | None = None


class Engine(Protocol):
    """A way to run the toolchain."""

    @property
    def name(self) -> str:
        """The engine's name on the command line."""

    @property
    def is_isolated(self) -> bool:
        """Whether a session can only access the folders that it was opened with."""

    def with_toolchain(self, name: str) -> Engine:
        """Return the same engine for another toolchain.

        Raises:
            UsageError: there is no toolchain with this name.
        """

    def with_models_commit(self, commit: str) -> Engine:
        """Return the same engine with this commit of tensorflow/models, whatever ``auto`` would choose."""

    def availability(self) -> Availability:
        """Return whether the toolchain exists or could be built here; does not build or download anything.

        Raises:
            UsageError: an option of the engine is invalid.
        """

    def is_built(self) -> bool:
        """Return whether the toolchain exists here; builds and downloads nothing.

        Raises:
            EngineError: the engine cannot be used here.
        """

    def prepare(self) -> Toolchain:
        """Find the toolchain or build it.

        Raises:
            EngineError: the engine cannot be used here.
            BuildError: the toolchain could not be built.
            IntegrityError: an input of the build is not the pinned one.
        """

    def open(
        self, folders: Folders, env: Mapping[str, str], *, preload: Preload = Preload.DETECTION_API
    ) -> AbstractContextManager[Session]:
        """Start the toolchain with these folders, and always stop it at the end.

        The session is returned immediately, while the toolchain is still starting in the background.

        Raises:
            EngineError: the toolchain could not be started.
        """

    def attach(self, argv: tuple[str, ...], folders: Folders, env: Mapping[str, str]) -> int:
        """Run a command on the caller's own terminal or pipes and return its exit code.

        If the toolchain has tensorflow/models, the working directory is the folder that contains
        ``object_detection/``. Signals and the terminal size are forwarded to the command.

        Raises:
            EngineError: the toolchain could not be started.
        """
