"""Connect to the Docker daemon and turn the SDK's exceptions into our errors."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, cast

import docker
import requests
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.context import ContextAPI
from docker.errors import APIError, DockerException
from docker.utils import parse_host

from runner.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.context import Context

API_TIMEOUT_S: Final = 60
UNIX_SCHEME: Final = "http+unix://"


@contextlib.contextmanager
def connect(timeout_s: int = API_TIMEOUT_S) -> Iterator[docker.DockerClient]:
    """Connect to the daemon selected by ``DOCKER_HOST`` or the current Docker context.

    Raises:
        EngineError: no daemon answers; the message states whether there is none, it is stopped, or it denies
            access.
    """
    address, source = daemon_address()
    try:
        client = docker.from_env(timeout=timeout_s, version=_api_version(address, timeout_s))
    except (DockerException, OSError) as problem:  # exceptions of requests are OSErrors
        raise _no_daemon(problem, source) from problem
    with contextlib.closing(client):
        yield client


def _api_version(address: str | None, timeout_s: int) -> str:
    """Ask the daemon for its API version, and always close the connection.

    The SDK can ask in the client's constructor, but if the constructor fails, the client cannot be closed.
    """
    client = docker.from_env(timeout=timeout_s, version=MINIMUM_DOCKER_API_VERSION)  # does not connect yet
    with contextlib.closing(client):
        _require_listener(address, timeout_s)
        answer = client.api.version(api_version=False)
    try:
        return str(answer["ApiVersion"])
    except (KeyError, TypeError) as problem:
        raise DockerException("the answer has no API version") from problem


def _require_listener(address: str | None, timeout_s: int) -> None:
    """Check that a Unix socket accepts connections, before the SDK connects to it.

    The SDK does not close its socket if connecting fails (``UnixHTTPConnection.connect`` in docker 7.2).

    Raises:
        OSError: nothing listens there, or the caller is not permitted to connect.
    """
    url = str(parse_host(address))
    if url.startswith(UNIX_SCHEME):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(timeout_s)
            probe.connect(url.removeprefix(UNIX_SCHEME))


def daemon_address() -> tuple[str | None, str]:
    """Return the daemon's address (None for the default socket) and, for messages, where it comes from.

    Raises:
        EngineError: the context in DOCKER_CONTEXT does not exist.
    """
    host = os.environ.get("DOCKER_HOST")
    if host:
        return host, f"DOCKER_HOST={host}"
    name = os.environ.get("DOCKER_CONTEXT") or None
    context = cast("Context | None", ContextAPI.get_context(name))  # the SDK's type stubs omit None
    if name is not None and context is None:
        raise EngineError(
            f"DOCKER_CONTEXT={name}: there is no such Docker context",
            tip="use one that `docker context ls` lists, or `--engine local`",
        )
    if context is not None and context.name != "default" and context.Host:
        return context.Host, f"the Docker context {context.name!r} ({context.Host})"
    return None, "the default socket /var/run/docker.sock"


def _no_daemon(problem: Exception, source: str) -> EngineError:
    number = _errno(problem)
    if number in (errno.EACCES, errno.EPERM):
        return EngineError(
            f"not permitted to talk to the Docker daemon at {source}",
            tip="ask to be added to the group `docker`, use a rootless daemon, or `--engine local`",
        )
    if number == errno.ENOENT:
        return EngineError(
            f"no Docker daemon: nothing listens at {source}",
            tip="install and start Docker, choose another `docker context`, or use `--engine local`",
        )
    if number == errno.ECONNREFUSED:
        return EngineError(
            f"the Docker daemon at {source} is not running",
            tip="start it (`systemctl start docker`), or use `--engine local`",
        )
    if "ssh://" in source:
        return EngineError(
            f"the Docker daemon at {source} cannot be used: it does not see this machine's folders",
            tip="run the program on the daemon's machine, unset DOCKER_HOST, or use `--engine local`",
        )
    if isinstance(problem, APIError):
        return EngineError(
            f"the Docker daemon at {source} refused the request: {problem.explanation}",
            tip="check that `docker version` works, or use `--engine local`",
        )
    return EngineError(
        f"the Docker daemon at {source} does not answer as expected: {problem}",
        tip="check DOCKER_HOST and `docker context ls`, or use `--engine local`",
    )


def _errno(problem: BaseException | None) -> int | None:
    """Return the errno of the OSError behind the SDK's exception, which wraps it three times."""
    while problem is not None:
        if isinstance(problem, OSError) and problem.errno is not None:
            return problem.errno
        problem = problem.__cause__ or problem.__context__
    return None


@contextlib.contextmanager
def sdk_errors(what: str) -> Iterator[None]:
    """Turn SDK exceptions into an `EngineError` whose message starts with ``what``.

    Raises:
        EngineError: the daemon refused the request, or the connection was lost.
    """
    try:
        yield
    except APIError as problem:
        detail = problem.explanation or str(problem)
        tip = None
        if "bind source path does not exist" in detail:
            tip = "the daemon does not see this machine's folders: use a daemon on this machine"
        raise EngineError(f"{what}: {detail}", tip=tip) from problem
    except (DockerException, requests.RequestException) as problem:
        raise EngineError(f"{what}: the connection to the Docker daemon was lost: {problem}") from problem
