"""Find an installed CPython 3.7 that can run the toolchain.

The executable of a CPython 3.7 is always called ``python3.7``, so only files with that name are tried. Each
file runs a short script that prints its version and build, in a minimal environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runner.engines.local.own_python import find_own_python
from runner.errors import EngineError
from runner.toolchain.pins import PROJECT_ROOT, load_python_pin

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON_VARIABLE: Final = "RUNNER_PYTHON"
EXECUTABLE: Final = "python3.7"
VERSION: Final = (3, 7)
PROBE_TIMEOUT_S: Final = 20

WAYS_TO_GET_ONE: Final = (
    "install CPython 3.7 with `pyenv install 3.7.17` or `conda create --name py37 python=3.7`, or name an "
    f"installed one with --python or {PYTHON_VARIABLE}"
)
NEEDED_MODULES: Final = ("ctypes", "ensurepip", "ssl", "venv", "zlib")
"""Modules that building the environment needs and that some builds and packages of Python lack."""

# Runs on Python 3.7. For a virtual environment it reports the interpreter that made it.
_PROBE: Final = """
import importlib, json, os, platform, struct, sys
missing = []
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError:
        missing.append(name)
executable = sys.executable
if sys.prefix != sys.base_prefix:
    executable = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
print(json.dumps({{
    "executable": executable,
    "version": platform.python_version(),
    "build": " ".join([platform.python_compiler(), *platform.python_build()]),
    "version_info": sys.version_info[:2],
    "implementation": platform.python_implementation(),
    "platform": sys.platform,
    "machine": platform.machine(),
    "bits": struct.calcsize("P") * 8,
    "libc": platform.libc_ver()[0],
    "missing": missing,
}}))
"""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A CPython 3.7 that the toolchain can run on.

    ``build`` is the compiler and the build date. For the CPython that this program installs, ``build`` is the
    name of the pinned build, and ``archive_sha256`` is set; for any other, ``archive_sha256`` is None.
    """

    path: Path
    version: str
    build: str
    archive_sha256: str | None = None


class _UnusableError(Exception):
    """An interpreter cannot be used; holds the reason."""


def requested_interpreter(requested: str | None) -> str | None:
    """Return the interpreter that the user requested: the option's value, else RUNNER_PYTHON, else None."""
    return requested or os.environ.get(PYTHON_VARIABLE) or None


def find_interpreter(requested: str | None = None, *, root: Path = PROJECT_ROOT) -> Interpreter:
    """Return the requested interpreter, or the first usable one from PATH, pyenv, asdf, conda and others.

    ``requested`` is a path or a name on PATH; its default is RUNNER_PYTHON. The last resort is the
    interpreter that `install_python` has installed into the cache.

    Raises:
        EngineError: there is none, or the requested one cannot be used; the message states why.
    """
    requested = requested_interpreter(requested)
    if requested:
        return _find_requested(requested)
    reasons = []
    for candidate in _candidates():
        try:
            return _usable(candidate)
        except _UnusableError as problem:  # noqa: PERF203 - a handful of candidates
            reasons.append(f"{candidate}: {problem}")
    pin = load_python_pin(root)
    own = find_own_python(pin)
    if own is not None:
        try:
            return replace(_usable(own), build=pin.build, archive_sha256=pin.sha256)
        except _UnusableError as problem:
            reasons.append(f"{own}: {problem}")
    raise EngineError(
        "no CPython 3.7 was found to run the toolchain without Docker",
        tip=WAYS_TO_GET_ONE,
        last_lines=tuple(reasons),
    )


def _find_requested(requested: str) -> Interpreter:
    found = shutil.which(os.path.expanduser(requested))  # noqa: PTH111 - it may be a name on PATH
    if found is None:
        raise EngineError(
            f"the interpreter {requested} does not exist or is not executable", tip=WAYS_TO_GET_ONE
        )
    try:
        return _usable(Path(found).absolute())
    except _UnusableError as problem:
        raise EngineError(
            f"{requested} cannot run the toolchain: {problem}", tip=WAYS_TO_GET_ONE
        ) from problem


def _candidates() -> Iterator[Path]:
    """Yield every file called python3.7 once, in order of preference.

    The shims of pyenv and asdf come last: they are slow, and the interpreter that they start is usually found
    directly.
    """
    seen: set[Path] = set()
    shims = []
    for path in _places():
        if path.name != EXECUTABLE or path.resolve() in seen:
            continue
        seen.add(path.resolve())
        if path.parent.name == "shims":
            shims.append(path)
        else:
            yield path
    yield from shims


def _places() -> Iterator[Path]:
    from findpython.providers import ALL_PROVIDERS

    for provider_class in ALL_PROVIDERS.values():
        provider = provider_class.create()
        if provider is not None:
            for python in provider.find_pythons():
                yield python.executable
    yield from _conda_places()


def _conda_places() -> Iterator[Path]:
    """Yield the interpreters of conda, mamba and micromamba; one file lists the environments of all three."""
    try:
        registered = (Path.home() / ".conda/environments.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for environment in registered:
        executable = Path(environment) / "bin" / EXECUTABLE
        if executable.is_file():
            yield executable


def _usable(executable: Path) -> Interpreter:
    """Probe an interpreter and check that the toolchain can run on it.

    Raises:
        _UnusableError: the toolchain cannot run on it.
    """
    answer = _probe(executable)
    what_it_is = f"{answer['implementation']} {answer['version']}"
    if answer["implementation"] != "CPython" or tuple(answer["version_info"]) != VERSION:
        raise _UnusableError(f"it is {what_it_is}; the wheels of TensorFlow 1.15 need CPython 3.7")
    if (answer["platform"], answer["machine"], answer["bits"]) != ("linux", "x86_64", 64):
        reason = f"it is for {answer['platform']} {answer['machine']}, {answer['bits']}-bit"
        reason += "; the wheels are for Linux on x86-64"
        raise _UnusableError(reason)
    if answer["libc"] != "glibc":
        raise _UnusableError("it does not use glibc, which the wheels need (Alpine uses musl)")
    if answer["missing"]:
        raise _UnusableError(
            f"it lacks the modules {', '.join(answer['missing'])} (on Debian: install python3.7-venv)"
        )
    return Interpreter(path=Path(answer["executable"]), version=answer["version"], build=answer["build"])


def _probe(executable: Path) -> dict[str, Any]:
    # The shims of pyenv and asdf need HOME and PATH to choose a version.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home())}
    command = [str(executable), "-I", "-c", _PROBE.format(modules=NEEDED_MODULES)]
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True
        )
        answer = json.loads(finished.stdout)
    except subprocess.CalledProcessError as problem:
        raise _UnusableError(f"it failed to run a short script (exit code {problem.returncode})") from problem
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        raise _UnusableError(f"it does not behave like a Python interpreter: {problem}") from problem
    if not isinstance(answer, dict):
        raise _UnusableError("it does not behave like a Python interpreter")
    return answer
