"""The options ``--engines`` and ``--slow``, which select tests; the summary lists the others."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Final

import pytest

from runner import console
from runner.engines.choose import PREFERENCE, EngineOptions, engine_named

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Availability

ALL_ENGINES: Final = PREFERENCE
ENGINE_OPTIONS: Final = EngineOptions(base_image=os.environ.get("RUNNER_BASE_IMAGE"))
IS_ROOT: Final = os.geteuid() == 0
CHROMIUM: Final = shutil.which("chromium")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engines",
        default="available",
        help="Engines the integration tests must run with, such as docker,local; a missing one is a failure. "
        "'available': those this machine has. 'none': no integration tests.",
    )
    parser.addoption(
        "--only-engine-tests",
        action="store_true",
        help="Leave out the tests marked any_engine, which have run with another engine already.",
    )
    parser.addoption("--slow", action="store_true", help="Run the tests that CI cannot afford as well.")


def pytest_configure(config: pytest.Config) -> None:
    console.print_messages()  # as the command line does
    # What a shell starts in the background ignores Ctrl-C, what nohup starts a hang-up, and so would every
    # program that the tests interrupt.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    config.addinivalue_line("markers", "slow: too slow for CI; runs with --slow")
    config.addinivalue_line("markers", "browser: opens a page in Chromium, Debian's package")
    config.addinivalue_line("markers", "as_root: mounts a disk or starts a daemon; runs as root")
    config.addinivalue_line(
        "markers",
        "any_engine: about what runs inside the toolchain, which is the same with every engine "
        "(test_engine_contract.py, test_same_bytes.py); runs with the first engine asked for",
    )
    config.addinivalue_line("markers", "engine(name): about this one engine; runs when it was asked for")


@pytest.fixture
def python37(tmp_path: Path) -> Path:
    """An executable that reports itself as a usable CPython 3.7."""
    answer = {
        "executable": "/bin/sh",
        "version": "3.7.17",
        "build": "GCC 12.2.0 default Nov 24 2026",
        "version_info": [3, 7],
        "implementation": "CPython",
        "platform": "linux",
        "machine": "x86_64",
        "bits": 64,
        "libc": "glibc",
        "missing": [],
    }
    executable = tmp_path / "python3.7"
    executable.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    executable.chmod(0o755)
    return executable


@functools.cache
def availability(engine_name: str) -> Availability:
    return engine_named(engine_name, ENGINE_OPTIONS).availability()


def engine_names(config: pytest.Config) -> tuple[str, ...]:
    asked = config.getoption("--engines")
    if asked == "available":
        return tuple(name for name in ALL_ENGINES if availability(name).can_run)
    if asked == "none":
        return ()
    names = tuple(asked.split(","))
    unknown = set(names) - set(ALL_ENGINES)
    if unknown:
        raise pytest.UsageError(
            f"--engines: {', '.join(sorted(unknown))} is no engine; there are {', '.join(ALL_ENGINES)}"
        )
    return names


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, instead of skipping, the tests that were not requested; the summary names them."""
    names = engine_names(config)
    kept = [
        item
        for item in items
        if (config.getoption("--slow") or item.get_closest_marker("slow") is None)
        and (IS_ROOT or item.get_closest_marker("as_root") is None)
        and (CHROMIUM is not None or item.get_closest_marker("browser") is None)
        and (names or not _is_integration(item.path))
        and all(marker.args[0] in names for marker in item.iter_markers("engine"))
        and not (config.getoption("--only-engine-tests") and item.get_closest_marker("any_engine"))
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _is_integration(path: Path) -> bool:
    return "integration" in path.parts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the tests that did not run and how to run them, unless no toolchain was requested."""
    names = engine_names(config)
    if config.getoption("--engines") == "none":
        return
    for name in ALL_ENGINES:
        if name not in names:
            terminalreporter.write_line(f"not run: the toolchain with the engine {name!r}")
            if not availability(name).can_run:
                terminalreporter.write_line(f"  it cannot run here: {availability(name).reason}")
                terminalreporter.write_line(f"  try: {availability(name).tip}")
            terminalreporter.write_line(f"  then: make test-integration ENGINES={name}")
    if not IS_ROOT:
        terminalreporter.write_line("not run: the tests that mount a disk or start a daemon")
        terminalreporter.write_line("  then: make test as root")
    if CHROMIUM is None:
        terminalreporter.write_line("not run: the tests that open a page in a browser")
        terminalreporter.write_line("  then: .ci/install-chromium, and make test")
    if not config.getoption("--slow"):
        terminalreporter.write_line("not run: the tests too slow for CI")
        terminalreporter.write_line("  then: make test-all")
