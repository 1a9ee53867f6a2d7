"""Run one script of the toolchain: echo its command, keep its log, turn a failure into one of our errors."""

from __future__ import annotations

import json
import re
import shlex
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO

from runner import console
from runner.engines.base import DEFAULT_MEMORY_MIB, DEFAULT_TIMEOUT_S, Job
from runner.errors import (
    ConfigError,
    DiskFullError,
    OutOfMemoryError,
    OutputMissingError,
    ScriptError,
    ScriptTimeoutError,
    UsageError,
)
from runner.host.cache_dir import translate_disk_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.engines.base import JobResult, Session

LAST_LINES: Final = 20
REFUSED: Final = 2
"""The exit code of our steps and command-line wrappers for invalid input."""


@dataclass(frozen=True, kw_only=True)
class ScriptOptions:
    """How scripts are run. ``label``, such as the variant, is printed before each output line."""

    log_dir: Path
    label: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    memory_mib: int = DEFAULT_MEMORY_MIB
    is_verbose: bool = False


@dataclass(frozen=True, kw_only=True)
class Script:
    """A command of the toolchain; its output is written to ``log_name`` in the log folder."""

    name: str
    argv: tuple[str, ...]
    log_name: str
    options: ScriptOptions
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """The path of its log file."""
        return self.options.log_dir / self.log_name

    @property
    def prefix(self) -> str:
        """The prefix of all printed lines about this script."""
        return console.label(self.options.label)


@dataclass(frozen=True, kw_only=True)
class ScriptRun:
    """A script and the result of its run."""

    script: Script
    result: JobResult


def run_script(session: Session, script: Script) -> JobResult:
    """Run a script until it ends and write its output to its log.

    Raises:
        UsageError: our command-line wrapper rejected the arguments.
        ScriptError: the script exited with a code other than 0; known failures are explained.
        DiskFullError: the script failed because a disk is full, or its log cannot be written.
        OutOfMemoryError: the script exceeded its memory limit.
        ScriptTimeoutError: the script exceeded its time limit.
        EngineError: the engine died during the run.
    """
    result = _run(session, script)
    _check(result, script)
    return result


def run_step(session: Session, script: Script) -> Mapping[str, Any]:
    """Run one of our own steps and return the JSON object it printed.

    Raises:
        ConfigError: the step rejected its input; message and tip come from the step.
        ScriptError: as ``run_script``.
        OutputMissingError: the step printed no JSON object.
    """
    result = _run(session, script)
    if result.exit_code == REFUSED:
        refusal = _json_object(result, script)
        raise ConfigError(refusal["error"], tip=refusal.get("tip"))
    _check(result, script)
    return _json_object(result, script)


def require_output(path: Path, made_by: Script) -> Path:
    """Return the path of an output file after checking that it exists and is not empty.

    Raises:
        OutputMissingError: the script reported success but did not write the file.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise OutputMissingError(
            f"{made_by.name} reported success but wrote no {path.name}; its log: {made_by.log}",
            tip="check its log and the free disk space",
        )
    return path


def _run(session: Session, script: Script) -> JobResult:
    console.note(f"   {script.prefix}$ {shlex.join(script.argv)}")
    job = Job(
        argv=script.argv,
        env=script.env,
        timeout_s=script.options.timeout_s,
        memory_mib=script.options.memory_mib,
    )
    with translate_disk_errors(script.log), _open_log(script.log) as log:
        return session.run_job(job, _LogLines(log, script.prefix, is_verbose=script.options.is_verbose))


def _open_log(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8")


class _LogLines:
    """Write each line to the log at once and, if verbose, print it."""

    def __init__(self, log: TextIO, prefix: str, *, is_verbose: bool) -> None:
        self._log = log
        self._prefix = prefix
        self._is_verbose = is_verbose

    def __call__(self, stream: str, line: str) -> None:  # noqa: ARG002 - a log keeps both streams in order
        self._log.write(line + "\n")
        self._log.flush()
        if self._is_verbose:
            console.note(f"   {self._prefix}| {line}")


def _check(result: JobResult, script: Script) -> None:
    """Raise the error for a script that failed, with the last lines of its log."""
    if result.exit_code == 0:
        return
    if result.exit_code == REFUSED and (refusal := _refusal(result.stderr)):
        raise UsageError(
            f"{script.name} rejected its arguments: {refusal[0]}; its log: {script.log}", tip=refusal[1]
        )
    kind, cause, tip = _diagnosis(result, script)
    message = f"{script.name} {cause}; its log: {script.log}"
    last_lines = (*result.stdout, *result.stderr)[-LAST_LINES:]
    if issubclass(kind, DiskFullError):
        raise kind(message, tip=tip, last_lines=last_lines)
    raise kind(message, script_exit_code=result.exit_code, log=script.log, tip=tip, last_lines=last_lines)


def _refusal(stderr: tuple[str, ...]) -> tuple[str, str | None] | None:
    """Return the message of our command-line wrapper about invalid arguments, and its tip, if any."""
    for number, line in enumerate(stderr):
        if found := re.fullmatch(r"(?:toco|export_\w+\.py): (.+)", line):
            tip = re.fullmatch(r"  tip: (.+)", stderr[number + 1]) if number + 1 < len(stderr) else None
            return found[1], tip[1] if tip else None
    return None


def _diagnosis(
    result: JobResult, script: Script
) -> tuple[type[ScriptError | DiskFullError], str, str | None]:
    if result.timed_out:
        cause = f"ran longer than {script.options.timeout_s:.0f} s and was stopped"
        return ScriptTimeoutError, cause, "raise --timeout-s"
    if result.out_of_memory:
        used_mib, limit_mib = result.peak_memory_mib, script.options.memory_mib
        cause = f"ran out of memory and was killed ({used_mib:.0f} of {limit_mib} MiB)"
        return OutOfMemoryError, cause, "raise --memory-mib, or convert one variant at a time"
    from runner.scripts.known_failures import FULL_DISK, explain_failure

    ended = f"ended with code {result.exit_code}{_signal_in(result.exit_code)}"
    known = explain_failure((*result.stdout, *result.stderr))
    if known is None:
        return ScriptError, ended, None
    kind = DiskFullError if known is FULL_DISK else ScriptError
    return kind, f"{ended}: {known.cause}", known.tip


def _signal_in(exit_code: int) -> str:
    """Return the name of signal n in brackets for an exit code of 128 + n, otherwise an empty string."""
    try:
        return f" ({signal.Signals(exit_code - 128).name})"
    except ValueError:
        return ""


def _json_object(result: JobResult, script: Script) -> dict[str, Any]:
    try:
        value = json.loads("\n".join(result.stdout))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise OutputMissingError(
            f"{script.name} ended with code {result.exit_code} and printed no result; its log: {script.log}",
            last_lines=result.stderr[-LAST_LINES:],
        )
    return value
