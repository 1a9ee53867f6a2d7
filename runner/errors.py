"""Everything that can go wrong, as one tree.

Each class states the exit code the program ends with::

    RunnerError                      1  a bug of ours, unless a subclass says otherwise
    ├── UsageError                   2  a flag or argument that cannot be
    │   └── ConfigError              2  a pipeline config or checkpoint that cannot be converted
    ├── EngineError                  3  no engine to run the toolchain with, or it died
    ├── BuildError                   4  the image or the environment could not be built
    ├── ScriptError                  5  a script of the toolchain failed
    │   ├── OutOfMemoryError         5  … it was killed for memory
    │   └── ScriptTimeoutError       5  … it ran out of time
    ├── OutputMissingError           6  a script succeeded and wrote nothing usable
    ├── IntegrityError               7  bytes that are not what they should be
    │   └── DownloadError            7  … or that could not be had
    ├── IdentityError                8  not the file it should be
    └── InterruptedRunError        130  Ctrl-C or SIGTERM
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class RunnerError(Exception):
    """An error with a message for the user: what failed, with which input, and what to try."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, tip: str | None = None, last_lines: tuple[str, ...] = ()) -> None:
        """Keep the message, what to try next, and the last lines of the log behind it."""
        super().__init__(message)
        self.message = message
        self.tip = tip
        self.last_lines = last_lines


class UsageError(RunnerError):
    """A flag, argument or combination of them that cannot be."""

    exit_code = 2


class ConfigError(UsageError):
    """A pipeline config or checkpoint that cannot be converted as asked."""


class EngineError(RunnerError):
    """No usable engine: not there, not permitted, of the wrong kind, or gone in the middle."""

    exit_code = 3


class BuildError(RunnerError):
    """The toolchain image or environment could not be built."""

    exit_code = 4


class ScriptError(RunnerError):
    """A script of the toolchain ended with a code other than 0; the code is kept."""

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
        """Keep the script's own exit code and the path of its log beside the message."""
        super().__init__(message, tip=tip, last_lines=last_lines)
        self.script_exit_code = script_exit_code
        self.log = log


class OutOfMemoryError(ScriptError):
    """A script was killed because it used more memory than it may."""


class ScriptTimeoutError(ScriptError):
    """A script ran longer than it may."""


class OutputMissingError(RunnerError):
    """A script succeeded and an expected output is missing or empty."""

    exit_code = 6


class IntegrityError(RunnerError):
    """Bytes that are not what they should be."""

    exit_code = 7


class DownloadError(IntegrityError):
    """Bytes that could not be had."""


class IdentityError(RunnerError):
    """A whole and readable file that is not the file it should be."""

    exit_code = 8


class InterruptedRunError(RunnerError):
    """The user, or the system, asked the program to stop."""

    exit_code = 130
