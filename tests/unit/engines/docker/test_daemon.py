"""The different reasons why a Docker daemon cannot be reached."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
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
    """A folder that everyone may enter, with a short name, because a socket path has at most 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="daemon-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def what_connect_says(address: str) -> str:
    """Return the printed output; fail if a connection is left open."""
    env = {**os.environ, "DOCKER_HOST": address}
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", CONNECT]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def listen(path: Path, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    path.chmod(mode)
    return listener


def test_a_socket_without_permission_is_reported(folder: Path) -> None:
    with listen(folder / "d.sock", 0o000):
        said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(
        f"3 not permitted to talk to the Docker daemon at DOCKER_HOST=unix://{folder}/d.sock"
    )
    assert "group `docker`" in said
    assert "--engine local" in said


def test_a_missing_socket_is_reported(folder: Path) -> None:
    said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(f"3 no Docker daemon: nothing listens at DOCKER_HOST=unix://{folder}/d.sock")


def test_a_stale_socket_is_reported(folder: Path) -> None:
    listen(folder / "d.sock", 0o777).close()
    said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(f"3 the Docker daemon at DOCKER_HOST=unix://{folder}/d.sock is not running")


def test_a_daemon_that_never_answers_is_reported(folder: Path) -> None:
    with listen(folder / "d.sock", 0o777):
        said = what_connect_says(f"unix://{folder}/d.sock")
    assert said.startswith(f"3 the Docker daemon at DOCKER_HOST=unix://{folder}/d.sock does not answer")


FORBIDDEN = b'HTTP/1.1 403 Forbidden\r\nContent-Length: 26\r\n\r\n{"message": "not for you"}'
NO_VERSION = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[None]:
    """Answer each connection once and keep it open, like a server that expects another request."""
    connections = []

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                if connection.recv(65536):
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [(FORBIDDEN, ": not for you"), (NO_VERSION, "no API version")],
    ids=["forbidden", "no version"],
)
def test_a_daemon_whose_answer_is_of_no_use_is_quoted(folder: Path, answer: bytes, words: str) -> None:
    with listen(folder / "d.sock", 0o777) as listener, answering(listener, answer):
        assert words in what_connect_says(f"unix://{folder}/d.sock")
    with socket.create_server(("127.0.0.1", 0)) as listener, answering(listener, answer):
        assert words in what_connect_says(f"tcp://127.0.0.1:{listener.getsockname()[1]}")


def test_a_closed_port_is_reported() -> None:
    assert "is not running" in what_connect_says("tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    "arguments", [("doctor",), ("image", "--python", "/nowhere/python3.7")], ids=["doctor", "auto"]
)
@pytest.mark.parametrize("kind", ["absent", "refusing", "forbidden"])
def test_the_program_leaves_no_connection_open(folder: Path, arguments: tuple[str, ...], kind: str) -> None:
    address = folder / "d.sock"
    with contextlib.ExitStack() as stack:
        if kind == "refusing":
            listen(address, 0o777).close()
        if kind == "forbidden":
            stack.enter_context(answering(stack.enter_context(listen(address, 0o777)), FORBIDDEN))
        done = subprocess.run(
            [sys.executable, "-W", "always::ResourceWarning", "-m", "runner", *arguments],
            env={**os.environ, "DOCKER_HOST": f"unix://{address}", "PIP_INDEX_URL": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert f"DOCKER_HOST=unix://{address}" in done.stdout + done.stderr
    assert "ResourceWarning" not in done.stderr
