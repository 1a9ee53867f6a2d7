"""Look at a daemon before anything is built or run on it: what ``doctor`` asks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import requests
from docker.errors import APIError, DockerException, ImageNotFound

from runner.engines.docker.container import LABEL, remove_container
from runner.engines.docker.daemon import daemon_address, sdk_errors
from runner.engines.docker.image import PLATFORM

if TYPE_CHECKING:
    import docker

LOOK_TIMEOUT_S: Final = 20
MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class DaemonFacts:
    """What a daemon says of itself. ``source`` is where its address comes from."""

    source: str
    version: str
    architecture: str
    memory_mib: int
    storage_dir: str
    is_rootless: bool
    remaps_users: bool
    is_remote: bool


@dataclass(frozen=True, kw_only=True)
class LookInside:
    """The text of /proc/cpuinfo in a container, or the problem that kept it from running."""

    cpuinfo: str = ""
    problem: str | None = None


def read_daemon(client: docker.DockerClient) -> DaemonFacts:
    """Ask a daemon what it is.

    Raises:
        EngineError: it refused, or went away.
    """
    with sdk_errors("the daemon does not say what it is"):
        info = client.info()
    _, source = daemon_address()
    options = info.get("SecurityOptions") or []
    return DaemonFacts(
        source=source,
        version=str(info.get("ServerVersion", "unknown")),
        architecture=str(info.get("Architecture", "unknown")),
        memory_mib=int(info.get("MemTotal", 0)) // MIB,
        storage_dir=str(info.get("DockerRootDir", "")),
        is_rootless=any(option.startswith("name=rootless") for option in options),
        remaps_users=any(option.startswith("name=userns") for option in options),
        is_remote=not str(client.api.base_url).startswith(("http+docker://", "npipe://")),
    )


def find_named_image(client: docker.DockerClient, name: str) -> str | None:
    """Return the id of an image, if the daemon has it."""
    with sdk_errors("images could not be listed"):
        try:
            return str(client.images.get(name).id)
        except ImageNotFound:
            return None


def why_not_in_registry(client: docker.DockerClient, name: str) -> str | None:
    """Let the daemon ask the registry for an image; None when it could be pulled."""
    try:
        client.images.get_registry_data(name)
    except (DockerException, requests.RequestException) as problem:
        return problem.explanation if isinstance(problem, APIError) else type(problem).__name__
    return None


def look_inside(client: docker.DockerClient, image_id: str) -> LookInside:
    """Read /proc/cpuinfo in a container of this image, as the toolchain would see it."""
    container = None
    try:
        container = client.containers.create(
            image_id,
            ["cat", "/proc/cpuinfo"],
            platform=PLATFORM,
            network_mode="none",
            labels={LABEL: "doctor"},
        )
        container.start()
        code = int(container.wait(timeout=LOOK_TIMEOUT_S)["StatusCode"])
        text = container.logs().decode(errors="replace")
    except (DockerException, requests.RequestException) as problem:
        return LookInside(problem=problem.explanation if isinstance(problem, APIError) else str(problem))
    finally:
        if container is not None:
            with contextlib.suppress(requests.RequestException):
                remove_container(container)
    if code != 0:
        return LookInside(problem=f"`cat /proc/cpuinfo` ended with code {code}: {text.strip()}")
    return LookInside(cpuinfo=text)
