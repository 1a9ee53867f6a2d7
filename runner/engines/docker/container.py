"""One locked-down container per session, and the connection to the toolchain server in it.

The container runs as the calling user, without network, capabilities or new privileges, with a read-only root
file system and with limits on memory and processes. Only the given host folders are mounted.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import requests
from docker.errors import APIError, DockerException, NotFound
from docker.types import Mount
from docker.utils.socket import frames_iter

from runner import console
from runner.engines.docker.daemon import sdk_errors
from runner.engines.exit_codes import EXIT_MEANINGS
from runner.engines.session import ServerSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import docker
    from docker.models.containers import Container

    from runner.engines.base import Folders

LABEL: Final = "mobiledet-runner"
TOOLCHAIN_DIR: Final = PurePosixPath("/opt/toolchain")
MODELS_DIR: Final = PurePosixPath("/opt/models/research")
"""The working directory of commands. The paths of scripts in published command lines are relative to it."""
SCRATCH_DIR: Final = PurePosixPath("/tmp")
"""The working directory of commands in a toolchain without a models tree."""
EXIT_WAIT_S: Final = 10.0
MAX_PROCESSES: Final = 512
LAST_LINES: Final = 25
SERVER_MEMORY_MIB: Final = 1024
"""Memory for the server itself, in addition to its jobs; the server uses 0.3 GB after its imports."""


def container_limits(
    client: docker.DockerClient, folders: Folders, env: Mapping[str, str], memory_mib: int
) -> dict[str, Any]:
    """Return the arguments of ``containers.create`` that lock the container down and mount the folders."""
    return {
        "user": container_user(client),
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777,size=1g"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": f"{memory_mib + SERVER_MEMORY_MIB}m",
        "memswap_limit": f"{memory_mib + SERVER_MEMORY_MIB}m",
        "pids_limit": MAX_PROCESSES,
        "labels": {LABEL: "session"},
        "environment": {"HOME": "/tmp", **env},
        "mounts": [
            *(_bind(folder, read_only=True) for folder in folders.read_only),
            *(_bind(folder, read_only=False) for folder in folders.writable),
        ],
    }


def container_user(client: docker.DockerClient) -> str:
    """Return the ``uid:gid`` that makes the caller the owner of output files.

    A rootless daemon maps the calling user to uid 0 in the container.
    """
    options = client.info().get("SecurityOptions") or []
    is_rootless = any(option.startswith("name=rootless") for option in options)
    return "0:0" if is_rootless else f"{os.getuid()}:{os.getgid()}"


def _bind(folder: Path, *, read_only: bool) -> Mount:
    return Mount(target=str(folder), source=str(folder), type="bind", read_only=read_only)


@contextlib.contextmanager
def running_session(client: docker.DockerClient, container: Container) -> Iterator[ServerSession]:
    """Start a container whose command is the toolchain server, and kill it at the end.

    Raises:
        EngineError: the container could not be started.
    """
    with contextlib.ExitStack() as stack:
        with sdk_errors("the container could not be started"):
            channel = _AttachedChannel(stack.enter_context(attached_socket(client, container)))
            exit_code = exit_code_of(container)
            container.start()
        try:
            session = ServerSession(
                channel,
                toolchain_dir=TOOLCHAIN_DIR,
                why_gone=lambda: _why_gone(client, channel, exit_code),
            )
            yield session
        finally:
            # The container may already have ended, or the daemon may be gone.
            with contextlib.suppress(DockerException, requests.RequestException, FutureTimeoutError):
                container.kill()
                exit_code.result(timeout=EXIT_WAIT_S)


@contextlib.contextmanager
def attached_socket(client: docker.DockerClient, container: Container) -> Iterator[socket.socket]:
    """Yield a socket to a container's stdin, stdout and stderr; call this before the container starts."""
    attached: Any = client.api.attach_socket(
        str(container.id), params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    )
    # For a Unix socket the SDK returns a wrapper; only the wrapped socket can be written to.
    connection = getattr(attached, "_sock", attached)
    connection.settimeout(None)
    try:
        yield connection
    finally:
        with contextlib.suppress(OSError):  # the other end may have closed it
            connection.shutdown(socket.SHUT_RDWR)
        attached.close()
        connection.close()


class _AttachedChannel:
    """The container's stdin and stdout; the last lines of stderr are kept for error messages."""

    def __init__(self, connection: socket.socket) -> None:
        self.stderr_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._socket = connection

    def send(self, payload: bytes) -> None:
        self._socket.sendall(payload)

    def lines(self) -> Iterator[bytes]:
        pending = b""
        for stream, chunk in frames_iter(self._socket, tty=False):  # type: ignore[no-untyped-call]
            if stream == 2:
                self.stderr_lines.extend(chunk.decode(errors="replace").splitlines())
                continue
            *complete, pending = (pending + chunk).split(b"\n")
            yield from complete


def exit_code_of(container: Container) -> Future[int]:
    """Wait for a container's exit code in the background.

    Call this before the container starts, because the container may remove itself as soon as it ends.
    """
    future: Future[int] = Future()

    def wait() -> None:
        try:
            future.set_result(int(container.wait(timeout=None, condition="next-exit")["StatusCode"]))
        except (DockerException, requests.RequestException) as problem:
            future.set_exception(problem)

    # A daemon thread, not an executor: with an executor, a hanging Docker daemon would block our exit.
    threading.Thread(target=wait, name="container-wait", daemon=True).start()
    return future


def _why_gone(client: docker.DockerClient, channel: _AttachedChannel, exit_code: Future[int]) -> str:
    try:
        code = exit_code.result(timeout=EXIT_WAIT_S)
        client.ping()
    except (DockerException, requests.RequestException, FutureTimeoutError):
        return "the connection to the Docker daemon was lost"
    meaning = EXIT_MEANINGS.get(code, "see its last lines")
    return "\n".join([f"its container ended with code {code} ({meaning})", *channel.stderr_lines])


def remove_container(container: Container) -> None:
    """Remove a container in any state; do nothing if it is already gone."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass  # the container has ended and removed itself
    except APIError as problem:
        if problem.status_code != 409:  # 409: its removal is in progress
            console.warn(f"the container {container.name} could not be removed: {problem.explanation}")
    except (DockerException, requests.RequestException):
        console.warn(
            f"the container {container.name} could not be removed; Docker removes it at its next start"
        )


def stop_container(container: Container) -> None:
    """Stop a container that is to be kept (`--keep-container`)."""
    with contextlib.suppress(DockerException, requests.RequestException):
        container.stop(timeout=1)
