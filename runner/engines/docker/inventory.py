"""List and remove the containers and images in a daemon that have our label. No others are touched."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from docker.errors import NotFound

from runner.engines.docker.container import LABEL
from runner.engines.docker.daemon import sdk_errors
from runner.toolchain.image_plan import IMAGE_NAME

if TYPE_CHECKING:
    import docker

RUNNING_STATES: Final = frozenset({"running", "restarting", "paused"})


@dataclass(frozen=True, kw_only=True)
class LabelledContainer:
    """A container with our label, in use by a run or left behind by one."""

    id: str
    name: str
    size_bytes: int
    is_running: bool


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image with our label. ``foreign_names`` are the image's names that others assigned."""

    id: str
    names: tuple[str, ...]
    foreign_names: tuple[str, ...]
    size_bytes: int


def labelled_containers(client: docker.DockerClient) -> tuple[LabelledContainer, ...]:
    """List the containers with our label, running or not.

    Raises:
        EngineError: the daemon refused the request, or the connection was lost.
    """
    with sdk_errors("containers could not be listed"):
        found: list[dict[str, Any]] = client.api.containers(all=True, size=True, filters={"label": LABEL})
    return tuple(
        LabelledContainer(
            id=it["Id"],
            name=it["Names"][0].lstrip("/") if it["Names"] else it["Id"][:12],
            size_bytes=it.get("SizeRw", 0),
            is_running=it["State"] in RUNNING_STATES,
        )
        for it in found
    )


def labelled_images(client: docker.DockerClient) -> tuple[LabelledImage, ...]:
    """List the images with our label. An image that others build from ours inherits the label, not the name.

    Raises:
        EngineError: the daemon refused the request, or the connection was lost.
    """
    with sdk_errors("images could not be listed"):
        found: list[dict[str, Any]] = client.api.images(filters={"label": LABEL})
    return tuple(_labelled_image(it) for it in found)


def _labelled_image(found: dict[str, Any]) -> LabelledImage:
    names = tuple(name for name in found.get("RepoTags") or () if name != "<none>:<none>")
    ours = tuple(name for name in names if name.startswith(f"{IMAGE_NAME}:"))
    return LabelledImage(
        id=found["Id"],
        names=ours,
        foreign_names=tuple(name for name in names if name not in ours),
        size_bytes=found["Size"],
    )


def remove_container(client: docker.DockerClient, container: LabelledContainer) -> None:
    """Remove a container that is not running, with its volumes.

    Raises:
        EngineError: the daemon refused the request, or the connection was lost.
    """
    with sdk_errors(f"the container {container.name} was not removed"), contextlib.suppress(NotFound):
        client.api.remove_container(container.id, v=True)


def remove_image(client: docker.DockerClient, image: LabelledImage) -> None:
    """Remove our names of an image; removing the last name removes the image itself.

    Raises:
        EngineError: the daemon refused, for example because a container uses the image, or the connection was
            lost.
    """
    for name in image.names or (image.id,):
        with sdk_errors(f"the image {name} was not removed"), contextlib.suppress(NotFound):
            client.api.remove_image(name)
