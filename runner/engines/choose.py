"""Choose the engine: the requested one, or the first one that can run on this machine."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner import console
from runner.engines.base import DEFAULT_MEMORY_MIB
from runner.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.engines.base import Availability, Engine

AUTO: Final = "auto"
DOCKER: Final = "docker"
LOCAL: Final = "local"
ENGINE_NAMES: Final = (AUTO, DOCKER, LOCAL)
PREFERENCE: Final = (DOCKER, LOCAL)
"""The order in which ``auto`` tries the engines."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The options of all engines; each engine uses those that apply to it."""

    models: str = "auto"
    ca_bundle: Path | None = None
    base_image: str | None = None
    keep_container: bool = False
    memory_mib: int = DEFAULT_MEMORY_MIB
    python: str | None = None
    python_download: bool = True


def choose_engine(name: str, options: EngineOptions) -> Engine:
    """Return the engine with this name; for ``auto``, print which one was chosen and why.

    Raises:
        UsageError: there is no engine with this name, or an option is invalid.
        EngineError: ``auto`` found no engine that can run here.
    """
    check_name(name)
    if name == AUTO:
        name = _automatic_choice(options)
    return engine_named(name, options)


def check_name(name: str) -> None:
    """Check the name of an engine.

    Raises:
        UsageError: there is no engine with this name.
    """
    if name not in ENGINE_NAMES:
        raise UsageError(
            f"--engine {name}, or RUNNER_ENGINE={name}: there is no such engine",
            tip=f"use one of {', '.join(ENGINE_NAMES)}",
        )


def engine_named(name: str, options: EngineOptions) -> Engine:
    """Return the engine ``docker`` or ``local``."""
    return _docker(options) if name == DOCKER else _local(options)


def first_that_can_run(can_run: Callable[[str], bool]) -> str | None:
    """Return the first engine that can run here, in the order in which ``auto`` tries them, or None."""
    return next(filter(can_run, PREFERENCE), None)


@functools.cache
def _automatic_choice(options: EngineOptions) -> str:
    """Choose an engine for this machine and print the choice, once per set of options."""

    @functools.cache
    def availability(name: str) -> Availability:
        return engine_named(name, options).availability()

    name = first_that_can_run(lambda name: availability(name).can_run)
    docker = availability(DOCKER)
    if name is None:
        local = availability(LOCAL)
        raise EngineError(
            f"no engine can run here: {docker.reason}; {local.reason}", tip=f"{docker.tip}; or {local.tip}"
        )
    isolation = "" if name == DOCKER else ", without the isolation of a container"
    console.note(f"engine: {name}{isolation} ({docker.reason})")
    return name


def _docker(options: EngineOptions) -> Engine:
    from runner.engines.docker.engine import DockerEngine

    return DockerEngine(
        base_image=options.base_image,
        models=options.models,
        ca_bundle=options.ca_bundle,
        memory_mib=options.memory_mib,
        keep_container=options.keep_container,
    )


def _local(options: EngineOptions) -> Engine:
    from runner.engines.local.engine import LocalEngine

    return LocalEngine(
        models=options.models,
        ca_bundle=options.ca_bundle,
        python=options.python,
        python_download=options.python_download,
    )
