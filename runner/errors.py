"""The exceptions of this program.

Each class states the exit code of the program::

    RunnerError                      1  a bug in this program, unless a subclass sets another code
    ├── UsageError                   2  an invalid option or argument
    │   └── ConfigError              2  a pipeline config or checkpoint that cannot be converted
    ├── EngineError                  3  the engine (Docker or local) is not usable, or it stopped
    ├── BuildError                   4  the image or the environment could not be built
    ├── ScriptError                  5  a toolchain script failed
    │   ├── OutOfMemoryError         5  … because it exceeded its memory limit
    │   └── ScriptTimeoutError       5  … because it exceeded its time limit
    ├── OutputMissingError           6  a script succeeded but wrote no usable output
    ├── DiskFullError                6  an output could not be written: the disk is full
    ├── IntegrityError               7  corrupt or unexpected data
    │   └── DownloadError            7  … or a download that failed
    ├── IdentityError                8  an intact file, but not the expected one
    └── InterruptedRunError        130  Ctrl-C or SIGTERM
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any


class RunnerError(Exception):
    """Base class: an error with a message for the user and a tip on what to try."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, tip: str | None = None, last_lines: tuple[str, ...] = ()) -> None:
        """Store the message, the tip, and the last log lines of the step that failed."""
        super().__init__(message)
        self.message = message
        self.tip = tip
        self.last_lines = last_lines

    def __reduce__(self) -> tuple[Callable[..., RunnerError], tuple[Any, ...], dict[str, Any]]:
        """Make all subclasses picklable: the inherited method passes no keyword arguments to ``__init__``."""
        return _without_init, (type(self), self.args), self.__dict__


def _without_init(kind: type[RunnerError], args: tuple[Any, ...]) -> RunnerError:
    return kind.__new__(kind, *args)


class UsageError(RunnerError):
    """An invalid option or argument, or an invalid combination of them."""

    exit_code = 2


class ConfigError(UsageError):
    """A pipeline config or checkpoint that cannot be converted as requested."""


class EngineError(RunnerError):
    """The engine is missing, not permitted or of the wrong kind, or it stopped during the run.

    An engine runs the toolchain: Docker, or a local environment.
    """

    exit_code = 3


class BuildError(RunnerError):
    """The toolchain image or environment could not be built."""

    exit_code = 4


class ScriptError(RunnerError):
    """A toolchain script failed: its exit code, ``script_exit_code``, is not 0."""

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        script_exit_code: int,
        log: Path | None = None,
        tip: str | None = None,
        last_lines: tuple[str, ...] = (),
    ) -> None:
        """Store the exit code of the script and the path of its log in addition to the message."""
        super().__init__(message, tip=tip, last_lines=last_lines)
        self.script_exit_code = script_exit_code
        self.log = log


class OutOfMemoryError(ScriptError):
    """A script was killed because it exceeded its memory limit."""


class ScriptTimeoutError(ScriptError):
    """A script exceeded its time limit."""


class OutputMissingError(RunnerError):
    """A script succeeded, but an expected output is missing or empty."""

    exit_code = 6


class DiskFullError(RunnerError):
    """A file could not be written because its disk is full or a quota is exceeded."""

    exit_code = 6


class IntegrityError(RunnerError):
    """Data that is corrupt or does not have the expected digest."""

    exit_code = 7


class DownloadError(IntegrityError):
    """A download that failed."""


class IdentityError(RunnerError):
    """An intact, readable file that is not the expected one."""

    exit_code = 8


class InterruptedRunError(RunnerError):
    """The user, or the system, asked the program to stop."""

    exit_code = 130
