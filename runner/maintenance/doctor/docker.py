"""Check the Docker daemon, its images, and the processor that a container sees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.engines.choose import DOCKER
from runner.errors import EngineError, UsageError
from runner.host.cpu import cpu_flags
from runner.maintenance.doctor.findings import (
    EngineCheck,
    Finding,
    Question,
    State,
    refused,
)
from runner.maintenance.doctor.local import NEEDED_MEMORY_MIB, avx_finding, other_finding
from runner.toolchain.catalog import other_toolchains
from runner.toolchain.image_plan import candidate_plans
from runner.toolchain.models_source import tree_text

if TYPE_CHECKING:
    from docker import DockerClient

    from runner.engines.docker.inspection import DaemonFacts, ImagesFound
    from runner.toolchain.catalog import ToolchainSpec


CONNECT_TIMEOUT_S: Final = 10


def check_docker(question: Question) -> EngineCheck:
    """Check the daemon, its images, and the processor inside a container."""
    from runner.engines.docker import inspection
    from runner.engines.docker.daemon import connect

    try:
        plans = candidate_plans(base_image=question.base_image, models=question.models)
        with connect(timeout_s=CONNECT_TIMEOUT_S) as client:
            facts = inspection.read_daemon(client)
            images = inspection.find_images(client, plans)
            findings = (
                daemon_finding(facts),
                users_finding(facts),
                _base_image(images),
                _toolchain_image(images),
                *(_other_image(client, question, spec) for spec in other_toolchains()),
                _processor_inside(client, images.toolchain_id or images.base_id),
            )
            can_run, is_built = images.availability.can_run, images.toolchain_id is not None
            return EngineCheck(findings=findings, can_run=can_run, is_built=is_built)
    except UsageError as problem:
        return EngineCheck(findings=(refused("toolchain image", problem),), can_run=False)
    except EngineError as problem:
        return EngineCheck(findings=(refused("Docker daemon", problem),), can_run=False)


def daemon_finding(facts: DaemonFacts) -> Finding:
    """Check where a daemon runs, its architecture and its memory."""
    about = f"version {facts.version}, {facts.architecture}, {facts.memory_mib} MiB of memory, {facts.source}"
    if facts.is_remote:
        return Finding(
            subject="Docker daemon",
            state=State.WARNING,
            text=about,
            remedy="use a daemon on this machine: over a network, it usually cannot see your folders",
        )
    if facts.architecture not in ("x86_64", "amd64"):
        return Finding(
            subject="Docker daemon",
            state=State.WARNING,
            text=f"{about}; the toolchain is for x86-64 and is emulated there",
            remedy="use an x86-64 machine if you can: emulation is slow and needs an emulator with AVX",
        )
    if 0 < facts.memory_mib < NEEDED_MEMORY_MIB:
        remedy = f"give Docker at least {NEEDED_MEMORY_MIB} MiB, or convert one variant at a time"
        return Finding(subject="Docker daemon", state=State.WARNING, text=about, remedy=remedy)
    return Finding(subject="Docker daemon", text=about)


def users_finding(facts: DaemonFacts) -> Finding:
    """Check whether files that a container writes will belong to the caller."""
    if facts.remaps_users:
        return Finding(
            subject="users",
            state=State.PROBLEM,
            text="the daemon maps users to other ids (userns-remap), which cannot write to your folders",
            remedy="use a rootless daemon, a daemon without userns-remap, or `--engine local`",
        )
    if facts.is_rootless:
        text = "the daemon is rootless: uid 0 in the container is your user, so results belong to you"
    else:
        text = f"the toolchain runs as you ({os.getuid()}:{os.getgid()}), and results belong to you"
    return Finding(subject="users", text=text)


def _toolchain_image(images: ImagesFound) -> Finding:
    text = "not built yet; the first run builds it, or run `image` now"
    if images.plan is not None:
        text = f"{images.plan.tag} is built ({tree_text(images.plan.source, images.plan.models_commit)})"
    return Finding(subject="toolchain image", text=text)


def _other_image(client: DockerClient, question: Question, spec: ToolchainSpec) -> Finding:
    from runner.engines.docker.image import find_first_image

    plans = candidate_plans(toolchain=spec.name, base_image=question.base_image)
    found = find_first_image(client, plans)
    return other_finding(spec, DOCKER, None if found is None else found[0].tag)


def _base_image(images: ImagesFound) -> Finding:
    return Finding(
        subject="base image",
        state=State.GOOD if images.availability.can_run else State.PROBLEM,
        text=images.base_state,
        remedy=images.availability.tip,
        only_for_building=True,
    )


def _processor_inside(client: DockerClient, image_id: str | None) -> Finding:
    from runner.engines.docker import inspection

    subject = "processor in a container"
    if image_id is None:
        return Finding(
            subject=subject,
            state=State.WARNING,
            text="not checked, because there is no image to run",
        )
    inside = inspection.read_cpuinfo(client, image_id)
    if inside.problem is not None:
        return Finding(
            subject=subject,
            state=State.PROBLEM,
            text=f"cannot run a container: {inside.problem}",
            remedy="try `docker run hello-world`, and see the daemon's log",
        )
    return avx_finding(subject, cpu_flags(inside.cpuinfo))
