"""Find or build the toolchain image."""

from __future__ import annotations

from collections import deque
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

from docker.errors import ImageNotFound

from runner import console
from runner.engines.docker.daemon import sdk_errors
from runner.errors import BuildError, DiskFullError, IntegrityError
from runner.host import disk
from runner.toolchain.image_plan import write_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import docker

    from runner.toolchain.image_plan import ImagePlan

PLATFORM: Final = "linux/amd64"
LAST_LINES: Final = 25


def find_image(client: docker.DockerClient, plan: ImagePlan) -> str | None:
    """Return the id of the image built from this plan, or None."""
    with sdk_errors("images could not be listed"):
        try:
            image = client.images.get(plan.tag)
        except ImageNotFound:
            return None
    return str(image.id)


def find_first_image(client: docker.DockerClient, plans: Iterable[ImagePlan]) -> tuple[ImagePlan, str] | None:
    """Return the first plan whose image exists, with the image's id, or None."""
    found = ((plan, find_image(client, plan)) for plan in plans)
    return next(((plan, image_id) for plan, image_id in found if image_id is not None), None)


def build_image(client: docker.DockerClient, plan: ImagePlan) -> str:
    """Build the image of a plan and return its id; the build output is printed live.

    Raises:
        BuildError: a step failed.
        DiskFullError: the daemon's disk is full.
        IntegrityError: an input of the build is not the pinned one.
    """
    with TemporaryFile() as context, sdk_errors("the image could not be built"):
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
        raise BuildError(f"the build reported no error, but there is no image {plan.tag}")
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
        raise IntegrityError(
            f"the image was not built, because one of its inputs is not the pinned one: {reason}",
            last_lines=last_lines,
        )
    message = f"the image build failed at {step!r}: {event['error'].strip()}"
    if disk.is_reported("\n".join((*last_lines, message))):
        tip = "free some space on the disk of the Docker daemon: `docker system df` shows what it uses"
        raise DiskFullError(message, tip=tip, last_lines=last_lines)
    raise BuildError(
        message,
        last_lines=last_lines,
        tip="check that the base image (`--base-image`) and PyPI are reachable; `doctor` checks both",
    )
