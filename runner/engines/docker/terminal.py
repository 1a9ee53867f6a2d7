"""Connect the caller's own terminal or pipes to a command in a container."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import termios
import threading
import tty
from typing import TYPE_CHECKING, Final

from docker.errors import DockerException
from docker.utils.socket import frames_iter

from runner.engines.docker.container import attached_socket, exit_code_of
from runner.engines.docker.daemon import sdk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker
    from docker.models.containers import Container

FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHUNK_BYTES: Final = 1 << 16


def run_attached(client: docker.DockerClient, container: Container, *, is_tty: bool) -> int:
    """Start a container on the caller's stdin, stdout and stderr and return its exit code.

    Raises:
        EngineError: the container could not be started, or the connection to the daemon was lost.
    """
    with sdk_errors("the command could not be run"), attached_socket(client, container) as connection:
        exit_code = exit_code_of(container)
        container.start()
        with _signals_forwarded(container), _terminal(container, is_tty=is_tty):
            threading.Thread(target=_send_stdin, args=(connection,), daemon=True).start()
            _receive(connection, is_tty=is_tty)
        return exit_code.result()


def _send_stdin(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the command ended before it read everything
        while chunk := os.read(sys.stdin.fileno(), CHUNK_BYTES):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)


def _receive(connection: socket.socket, *, is_tty: bool) -> None:
    for stream, chunk in frames_iter(connection, tty=is_tty):  # type: ignore[no-untyped-call]
        target = sys.stderr if stream == 2 else sys.stdout
        target.buffer.write(chunk)
        target.buffer.flush()


@contextlib.contextmanager
def _signals_forwarded(container: Container) -> Iterator[None]:
    """Forward signals to the command in the container.

    Signals that are already ignored, as under `nohup`, stay ignored.
    """

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(DockerException):  # the container has just ended
            container.kill(signal=signal.Signals(number).name)

    noticed = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in noticed}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _terminal(container: Container, *, is_tty: bool) -> Iterator[None]:
    """Copy the size of the caller's terminal to the container's, and set the caller's to raw mode."""
    if not is_tty:
        yield
        return

    def resize(*_: object) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        with contextlib.suppress(DockerException):  # the container has just ended
            container.resize(size.lines, size.columns)

    before, handler = termios.tcgetattr(sys.stdin), signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        tty.setraw(sys.stdin, termios.TCSADRAIN)  # keeps input that was typed before
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)
