"""Run the toolchain in a container. The only module that imports the Docker SDK.

The container is poor: the calling user, no network, a read-only root, no capabilities, no new privileges,
limits on memory and processes, and nothing of the host but the folders it was given.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount
from docker.utils.socket import frames_iter

from runner import console
from runner.build_context import write_context
from runner.engines.base import DEFAULT_MEMORY_MIB, Toolchain
from runner.engines.session import ServerSession
from runner.errors import BuildError, EngineError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from docker.models.containers import Container

    from runner.build_context import ImagePlan
    from runner.engines.base import Folders

LABEL: Final = "mobiledet-runner"
PLATFORM: Final = "linux/amd64"
TOOLCHAIN_DIR: Final = PurePosixPath("/opt/toolchain")
API_TIMEOUT_S: Final = 60
EXIT_WAIT_S: Final = 10.0
MAX_PROCESSES: Final = 512
LAST_LINES: Final = 25
SERVER_MEMORY_MIB: Final = 1024
"""What the server may use beside its jobs; TensorFlow and the detection API imported are 0.3 GB."""

EXIT_MEANINGS: Final[Mapping[int, str]] = {
    132: "illegal instruction: TensorFlow 1.15 needs a processor with AVX",
    134: "TensorFlow aborted; on an emulated processor this is how it says that AVX is missing",
    137: "killed, most likely for memory",
    139: "segmentation fault; on an emulated processor this is how it says that AVX is missing",
}


@dataclass(frozen=True, kw_only=True)
class DockerEngine:
    """The reference engine: the toolchain image, and one container per session."""

    plan: ImagePlan
    memory_mib: int = DEFAULT_MEMORY_MIB
    keep_container: bool = False
    name: str = "docker"

    def prepare(self) -> Toolchain:
        """Find the image of this plan or build it.

        Raises:
            EngineError: no daemon answers.
            BuildError: a step of the build failed.
            IntegrityError: something that goes into the image is not what it should be.
        """
        with connect() as client:
            image_id = find_image(client, self.plan)
            if image_id is None:
                with console.step(f"build the toolchain image {self.plan.tag}"):
                    image_id = _build_image(client, self.plan)
        return Toolchain(
            engine=self.name,
            id=image_id,
            digest=self.plan.digest,
            base=self.plan.base_image,
            models_road=self.plan.road,
            models_commit=self.plan.models_commit,
        )

    @contextlib.contextmanager
    def open(self, folders: Folders, env: Mapping[str, str]) -> Iterator[ServerSession]:
        """Start a container on these folders; it is removed whatever happens.

        Raises:
            EngineError: the daemon is not there, or could not start it.
        """
        with connect() as client:
            image_id = find_image(client, self.plan)
            if image_id is None:
                message = f"the image {self.plan.tag} is gone"
                raise EngineError(message, tip="run `image` to build it again")
            with self._container(client, image_id, folders, env) as container:
                yield _start_session(client, container)

    @contextlib.contextmanager
    def _container(
        self, client: docker.DockerClient, image_id: str, folders: Folders, env: Mapping[str, str]
    ) -> Iterator[Container]:
        with _sdk_errors("the container could not be created"):
            container = client.containers.create(
                image_id,
                ["python3", str(TOOLCHAIN_DIR / "server.py"), "--preload"],
                platform=PLATFORM,
                stdin_open=True,
                auto_remove=not self.keep_container,
                **container_limits(client, folders, env, self.memory_mib),
            )
        try:
            yield container
        finally:
            if self.keep_container:
                _stop(container)
                console.note(f"container kept: {container.name}")
            else:
                _remove(container)


def container_limits(
    client: docker.DockerClient, folders: Folders, env: Mapping[str, str], memory_mib: int
) -> dict[str, Any]:
    """Return the arguments of ``containers.create`` that make a container poor."""
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
    """Return ``uid:gid`` so that results belong to the caller.

    A rootless daemon maps its own user to uid 0 inside; there, 0 is the caller.
    """
    options = client.info().get("SecurityOptions") or []
    is_rootless = any(option.startswith("name=rootless") for option in options)
    return "0:0" if is_rootless else f"{os.getuid()}:{os.getgid()}"


def _bind(folder: Path, *, read_only: bool) -> Mount:
    return Mount(target=str(folder), source=str(folder), type="bind", read_only=read_only)


# --- the daemon -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def connect() -> Iterator[docker.DockerClient]:
    """Connect to the daemon that ``DOCKER_HOST`` or the current Docker context names.

    Raises:
        EngineError: none answers; the message says whether it is absent, not running or not permitted.
    """
    address, source = daemon_address()
    try:
        if address is None:
            client = docker.from_env(timeout=API_TIMEOUT_S)
        else:
            client = docker.DockerClient(base_url=address, timeout=API_TIMEOUT_S)
        client.ping()
    except (DockerException, requests.RequestException) as problem:
        raise _no_daemon(problem, source) from problem
    with contextlib.closing(client):
        yield client


def daemon_address() -> tuple[str | None, str]:
    """Return the daemon's address (None: the SDK's default) and, for messages, where it comes from."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        return None, f"DOCKER_HOST={host}"
    context = ContextAPI.get_current_context()
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
    return EngineError(
        f"the Docker daemon at {source} does not answer: {problem}",
        tip="check DOCKER_HOST and `docker context ls`, or use `--engine local`",
    )


def _errno(problem: BaseException | None) -> int | None:
    """Find the operating system's error behind the SDK's: it is wrapped three deep."""
    while problem is not None:
        if isinstance(problem, OSError) and problem.errno is not None:
            return problem.errno
        problem = problem.__cause__ or problem.__context__
    return None


@contextlib.contextmanager
def _sdk_errors(what: str) -> Iterator[None]:
    try:
        yield
    except APIError as problem:
        detail = problem.explanation or str(problem)
        tip = None
        if "bind source path does not exist" in detail:
            tip = "the daemon does not see this machine's folders: use one that runs on this machine"
        message = f"{what}: {detail}"
        raise EngineError(message, tip=tip) from problem
    except (DockerException, requests.RequestException) as problem:
        message = f"{what}: the Docker daemon went away: {problem}"
        raise EngineError(message) from problem


# --- the image --------------------------------------------------------------------------------------------


def find_image(client: docker.DockerClient, plan: ImagePlan) -> str | None:
    """Return the id of the image built from this plan, if it is there."""
    with _sdk_errors("images could not be listed"):
        try:
            image = client.images.get(plan.tag)
        except ImageNotFound:
            return None
    return str(image.id)


def _build_image(client: docker.DockerClient, plan: ImagePlan) -> str:
    with TemporaryFile() as context, _sdk_errors("the image could not be built"):
        write_context(plan, context)
        context.seek(0)
        _follow_build(
            client.api.build(
                fileobj=context,
                custom_context=True,
                tag=plan.tag,
                buildargs=dict(plan.build_args),
                labels=dict(plan.labels),
                platform=PLATFORM,
                rm=True,
                forcerm=True,
                decode=True,
            )
        )
    image_id = find_image(client, plan)
    if image_id is None:
        message = f"the build ended without the image {plan.tag}"
        raise BuildError(message)
    return image_id


def _follow_build(events: Iterator[dict[str, Any]]) -> None:
    current_step = "before the first step"
    last_lines: deque[str] = deque(maxlen=LAST_LINES)
    for event in events:
        if "error" in event:
            _raise_build_error(event, current_step, tuple(last_lines))
        for line in event.get("stream", "").splitlines():
            if line.startswith("Step "):
                current_step = line
            if line.strip():
                last_lines.append(line)
                console.note(f"   | {line}")


def _raise_build_error(event: Mapping[str, Any], step: str, last_lines: tuple[str, ...]) -> None:
    code = event.get("errorDetail", {}).get("code")
    if code == IntegrityError.exit_code:
        reason = next((line for line in reversed(last_lines) if "error:" in line), event["error"])
        message = f"the image was not built, something that goes into it is not what it should be: {reason}"
        raise IntegrityError(message, last_lines=last_lines)
    message = f"the image build failed at {step!r}: {event['error'].strip()}"
    raise BuildError(
        message,
        last_lines=last_lines,
        tip="is the base image reachable (`--base-image`), and PyPI? `doctor` looks at each",
    )


# --- one session ------------------------------------------------------------------------------------------


def _start_session(client: docker.DockerClient, container: Container) -> ServerSession:
    with _sdk_errors("the container could not be started"):
        channel = _AttachedChannel(client, container)
        exit_code = _exit_code_of(container)
        container.start()
    session = ServerSession(
        channel,
        toolchain_dir=TOOLCHAIN_DIR,
        why_gone=lambda: _why_gone(client, channel, exit_code),
    )
    session.wait_until_ready()
    return session


class _AttachedChannel:
    """The container's stdin and stdout, through the daemon; its stderr is kept for the obituary."""

    def __init__(self, client: docker.DockerClient, container: Container) -> None:
        self.stderr_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._attached: Any = client.api.attach_socket(
            str(container.id), params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        )
        # On a unix socket the SDK wraps the real one; only the real one can be written to.
        self._socket = getattr(self._attached, "_sock", self._attached)
        self._socket.settimeout(None)

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


def _exit_code_of(container: Container) -> Future[int]:
    """Wait for the container's exit code in the background; it is removed as soon as it ends."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="container-wait")
    future = executor.submit(lambda: int(container.wait(timeout=None, condition="next-exit")["StatusCode"]))
    executor.shutdown(wait=False)
    return future


def _why_gone(client: docker.DockerClient, channel: _AttachedChannel, exit_code: Future[int]) -> str:
    try:
        code = exit_code.result(timeout=EXIT_WAIT_S)
        client.ping()
    except (DockerException, requests.RequestException, FutureTimeoutError):
        return "the Docker daemon went away"
    meaning = EXIT_MEANINGS.get(code, "see its last lines")
    return "\n".join([f"its container ended with code {code} ({meaning})", *channel.stderr_lines])


def _remove(container: Container) -> None:
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass  # it ended and removed itself
    except APIError as problem:
        if problem.status_code != 409:  # 409: its removal is in progress
            console.warn(f"the container {container.name} could not be removed: {problem.explanation}")
    except (DockerException, requests.RequestException) as problem:
        console.warn(f"the container {container.name} may still be there, the daemon went away: {problem}")


def _stop(container: Container) -> None:
    with contextlib.suppress(DockerException, requests.RequestException):
        container.stop(timeout=1)
