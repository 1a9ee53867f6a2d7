"""Choose the engine: the one asked for, or Docker where a daemon answers and else the local one."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner import console
from runner.engines.base import DEFAULT_MEMORY_MIB
from runner.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine

AUTO: Final = "auto"
DOCKER: Final = "docker"
LOCAL: Final = "local"
ENGINE_NAMES: Final = (AUTO, DOCKER, LOCAL)
ANSWER_TIMEOUT_S: Final = 20
"""A daemon that needs longer to say that it is there is of no use."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the engine is set up; each takes what concerns it."""

    models: str = "auto"
    ca_bundle: Path | None = None
    base_image: str | None = None
    keep_container: bool = False
    memory_mib: int = DEFAULT_MEMORY_MIB
    python: str | None = None


def choose_engine(name: str, options: EngineOptions) -> Engine:
    """Return the engine of this name; for ``auto``, say on one line which it is and why.

    Raises:
        UsageError: there is no engine of this name.
    """
    check_name(name)
    if name == AUTO:
        name = automatic_choice()
    return _docker(options) if name == DOCKER else _local(options)


def check_name(name: str) -> None:
    """Refuse what is no engine's name.

    Raises:
        UsageError: there is no engine of this name.
    """
    if name not in ENGINE_NAMES:
        message = f"--engine {name}: there is no such engine"
        raise UsageError(message, tip=f"one of {', '.join(ENGINE_NAMES)}")


@functools.cache
def automatic_choice() -> str:
    """Return the engine ``auto`` stands for on this machine; ask, and say which and why, once."""
    from runner.engines.docker.daemon import connect

    name, why = DOCKER, "a Docker daemon answers"
    try:
        with connect(timeout_s=ANSWER_TIMEOUT_S):
            pass
    except EngineError as problem:
        name, why = LOCAL, problem.message
    console.note(f"engine: {name} ({why})")
    return name


def usable_engines() -> tuple[str, ...]:
    """Return the names of the engines that could run here now, Docker first."""
    from runner.engines.docker.daemon import connect
    from runner.engines.interpreter import find_interpreter

    usable = []
    with contextlib.suppress(EngineError), connect(timeout_s=ANSWER_TIMEOUT_S):
        usable.append(DOCKER)
    with contextlib.suppress(EngineError):
        find_interpreter()
        usable.append(LOCAL)
    return tuple(usable)


def _docker(options: EngineOptions) -> Engine:
    from runner.engines.docker import DockerEngine

    return DockerEngine(
        base_image=options.base_image,
        models=options.models,
        ca_bundle=options.ca_bundle,
        memory_mib=options.memory_mib,
        keep_container=options.keep_container,
    )


def _local(options: EngineOptions) -> Engine:
    from runner.engines.local import LocalEngine

    return LocalEngine(models=options.models, ca_bundle=options.ca_bundle, python=options.python)
