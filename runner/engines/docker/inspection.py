"""Inspect a Docker daemon and its images without building or running the toolchain (``doctor``, ``auto``)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import requests
from docker.errors import APIError, DockerException, ImageNotFound

from runner.engines.base import Availability
from runner.engines.docker.container import LABEL, remove_container
from runner.engines.docker.daemon import daemon_address, sdk_errors
from runner.engines.docker.image import PLATFORM, find_first_image

if TYPE_CHECKING:
    import docker

    from runner.toolchain.image_plan import ImagePlan

CPUINFO_TIMEOUT_S: Final = 20
MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class DaemonFacts:
    """What a daemon reports about itself. ``source`` states where the daemon's address comes from."""

    source: str
    version: str
    architecture: str
    memory_mib: int
    is_rootless: bool
    remaps_users: bool
    is_remote: bool


@dataclass(frozen=True, kw_only=True)
class ContainerCpuinfo:
    """The text of /proc/cpuinfo in a container, or the reason why the container could not run."""

    cpuinfo: str = ""
    problem: str | None = None


def read_daemon(client: docker.DockerClient) -> DaemonFacts:
    """Ask a daemon for its facts.

    Raises:
        EngineError: the daemon refused the request, or the connection was lost.
    """
    with sdk_errors("the daemon's information could not be read"):
        info = client.info()
    _, source = daemon_address()
    options = info.get("SecurityOptions") or []
    return DaemonFacts(
        source=source,
        version=str(info.get("ServerVersion", "unknown")),
        architecture=str(info.get("Architecture", "unknown")),
        memory_mib=int(info.get("MemTotal", 0)) // MIB,
        is_rootless=any(option.startswith("name=rootless") for option in options),
        remaps_users=any(option.startswith("name=userns") for option in options),
        is_remote=not str(client.api.base_url).startswith(("http+docker://", "npipe://")),
    )


@dataclass(frozen=True, kw_only=True)
class ImagesFound:
    """Which of the images that the engine needs exist locally.

    ``plan`` and ``toolchain_id`` are None if the toolchain image is not built yet. ``registry_problem`` is
    the reason why the base image cannot be pulled. It is None if the base image can be pulled, or if one of
    the two images exists locally, so that the registry is not asked.
    """

    plan: ImagePlan | None
    toolchain_id: str | None
    base_name: str
    base_id: str | None
    registry_problem: str | None

    @property
    def base_state(self) -> str:
        """The base image's name, and whether it exists locally or can be pulled."""
        if self.base_id is not None:
            return f"{self.base_name} exists locally"
        if self.toolchain_id is not None:
            return f"{self.base_name} is missing but not needed: the toolchain image is built"
        if self.registry_problem is None:
            return f"{self.base_name} can be pulled from its registry"
        return f"{self.base_name} does not exist locally and cannot be pulled: {self.registry_problem}"

    @property
    def availability(self) -> Availability:
        """Whether the toolchain can run here, or be built."""
        if self.plan is not None:
            return Availability(can_run=True, reason=f"the toolchain image {self.plan.tag} exists")
        can_run = self.registry_problem is None
        tip = "pass a local image that has Python 3.7 as --base-image, or use `--engine local`"
        return Availability(
            can_run=can_run, reason=f"the base image {self.base_state}", tip=None if can_run else tip
        )


def find_images(client: docker.DockerClient, plans: tuple[ImagePlan, ...]) -> ImagesFound:
    """Look for the toolchain image of any of these plans and for their common base image.

    Raises:
        EngineError: the daemon refused the request, or the connection was lost.
    """
    plan, toolchain_id = find_first_image(client, plans) or (None, None)
    base_name = plans[0].base_image
    base_id = _find_named_image(client, base_name)
    is_registry_needed = toolchain_id is None and base_id is None
    return ImagesFound(
        plan=plan,
        toolchain_id=toolchain_id,
        base_name=base_name,
        base_id=base_id,
        registry_problem=_why_not_in_registry(client, base_name) if is_registry_needed else None,
    )


def _find_named_image(client: docker.DockerClient, name: str) -> str | None:
    with sdk_errors("images could not be listed"):
        try:
            return str(client.images.get(name).id)
        except ImageNotFound:
            return None


def _why_not_in_registry(client: docker.DockerClient, name: str) -> str | None:
    """Let the daemon ask the registry for an image; return why it cannot be pulled, or None if it can."""
    try:
        client.images.get_registry_data(name)
    except requests.Timeout:
        return f"its registry did not answer within {client.api.timeout} s"
    except (DockerException, requests.RequestException) as problem:
        return problem.explanation if isinstance(problem, APIError) else type(problem).__name__
    return None


def read_cpuinfo(client: docker.DockerClient, image_id: str) -> ContainerCpuinfo:
    """Read /proc/cpuinfo in a container of this image, as the toolchain sees it."""
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
        code = int(container.wait(timeout=CPUINFO_TIMEOUT_S)["StatusCode"])
        text = container.logs().decode(errors="replace")
    except (DockerException, requests.RequestException) as problem:
        return ContainerCpuinfo(
            problem=problem.explanation if isinstance(problem, APIError) else str(problem)
        )
    finally:
        if container is not None:
            with contextlib.suppress(requests.RequestException):
                remove_container(container)
    if code != 0:
        return ContainerCpuinfo(problem=f"`cat /proc/cpuinfo` ended with code {code}: {text.strip()}")
    return ContainerCpuinfo(cpuinfo=text)
