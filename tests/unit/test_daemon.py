"""Which of the ways not to reach a Docker daemon it is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
CONNECT = f"""
import os
from runner.engines.docker.daemon import connect
from runner.errors import EngineError

if os.geteuid() == 0:  # root is permitted everything
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
try:
    with connect(timeout_s=1):
        print("it answers")
except EngineError as problem:
    print(problem.exit_code, problem.message, "|", problem.tip)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, with a short name: a socket's path has at most 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="daemon-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def what_connect_says(address: str) -> str:
    env = {**os.environ, "DOCKER_HOST": address}
    done = subprocess.run(
        [sys.executable, "-c", CONNECT], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


def listen(path: Path, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    path.chmod(mode)
    return listener


def test_a_socket_that_one_may_not_open_is_said_to_be_that(folder: Path) -> None:
    with listen(folder / "d.sock", 0o000):
        said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(
        f"3 not permitted to talk to the Docker daemon at DOCKER_HOST=unix://{folder}/d.sock"
    )
    assert "group `docker`" in said
    assert "--engine local" in said


def test_a_socket_that_is_not_there_is_said_to_be_that(folder: Path) -> None:
    said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(f"3 no Docker daemon: nothing listens at DOCKER_HOST=unix://{folder}/d.sock")


def test_a_socket_that_a_daemon_left_behind_is_said_to_be_that(folder: Path) -> None:
    listen(folder / "d.sock", 0o777).close()
    said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(f"3 the Docker daemon at DOCKER_HOST=unix://{folder}/d.sock is not running")


def test_something_that_never_answers_is_said_to_be_that(folder: Path) -> None:
    with listen(folder / "d.sock", 0o777):
        said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(f"3 the Docker daemon at DOCKER_HOST=unix://{folder}/d.sock does not answer")
