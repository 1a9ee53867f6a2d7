"""The Docker engine: run the toolchain in a container."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from runner import console
from runner.engines.base import DEFAULT_MEMORY_MIB, Availability, Preload, Toolchain
from runner.engines.docker.container import (
    MODELS_DIR,
    SCRATCH_DIR,
    TOOLCHAIN_DIR,
    container_limits,
    remove_container,
    running_session,
    stop_container,
)
from runner.engines.docker.daemon import connect, sdk_errors
from runner.engines.docker.image import PLATFORM, build_image, find_first_image
from runner.engines.docker.inspection import find_images
from runner.engines.docker.terminal import run_attached
from runner.errors import EngineError
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.toolchain.catalog import image_command, load_toolchain, preload_flags
from runner.toolchain.digest import digest_of
from runner.toolchain.image_plan import candidate_plans, plan_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import docker
    from docker.models.containers import Container

    from runner.engines.base import Folders
    from runner.engines.session import ServerSession
    from runner.toolchain.catalog import ToolchainSpec
    from runner.toolchain.image_plan import ImagePlan

ANSWER_TIMEOUT_S: Final = 20
"""How long the daemon, or a registry that it asks, may take to answer whether an image exists."""


@dataclass(kw_only=True)
class DockerEngine:
    """The reference engine: the toolchain image, and one container per session."""

    toolchain: str = DEFAULT_TOOLCHAIN
    """The name of a folder of ``toolchains/``."""
    base_image: str | None = None
    """If None, the pinned base image is used."""
    models: str = "auto"
    """Where tensorflow/models comes from: auto, github, pypi, or a path."""
    models_commit: str | None = None
    """The commit of tensorflow/models to use; if None, any pinned commit."""
    ca_bundle: Path | None = None
    memory_mib: int = DEFAULT_MEMORY_MIB
    keep_container: bool = False
    name: str = field(default="docker", init=False)
    is_isolated: bool = field(default=True, init=False)
    _image: tuple[ImagePlan, str] | None = field(default=None, init=False, repr=False)

    def with_toolchain(self, name: str) -> DockerEngine:
        """Return the same engine for another toolchain.

        Raises:
            UsageError: there is no toolchain with this name.
        """
        return replace(self, toolchain=load_toolchain(name).name)

    def with_models_commit(self, commit: str) -> DockerEngine:
        """Return the same engine with this commit of tensorflow/models, whatever ``auto`` would choose."""
        return replace(self, models_commit=commit)

    def availability(self) -> Availability:
        """Return whether the toolchain image exists, or its base image exists or can be pulled.

        Raises:
            UsageError: ``models`` or ``ca_bundle`` is invalid.
        """
        plans = self._candidate_plans()
        try:
            with connect(timeout_s=ANSWER_TIMEOUT_S) as client:
                return find_images(client, plans).availability
        except EngineError as problem:
            return Availability(can_run=False, reason=problem.message, tip=problem.tip)

    def is_built(self) -> bool:
        """Return whether the toolchain image exists.

        Raises:
            EngineError: no daemon answers.
        """
        with connect(timeout_s=ANSWER_TIMEOUT_S) as client:
            return self._find(client) is not None

    def prepare(self) -> Toolchain:
        """Find the image or build it.

        Raises:
            EngineError: no daemon answers.
            BuildError: a step of the build failed.
            IntegrityError: an input of the build is not the pinned one.
        """
        with connect() as client:
            plan, image_id = self._image = self._find(client) or self._build(client)
        return Toolchain(
            engine=self.name,
            name=plan.spec.name,
            id=image_id,
            digest=digest_of(plan.spec, plan.models_commit, plan.root),
            base=plan.base_image,
            models_source=plan.source,
            models_commit=plan.models_commit,
        )

    @contextlib.contextmanager
    def open(
        self,
        folders: Folders,
        env: Mapping[str, str],
        *,
        preload: Preload = Preload.DETECTION_API,
    ) -> Iterator[ServerSession]:
        """Start a container with these folders; at the end, remove it, or with ``keep_container`` stop it.

        Raises:
            EngineError: there is no daemon or no image, or the container could not be started.
        """
        server = str(TOOLCHAIN_DIR / "server" / "server.py")
        command = ["python", server, *preload_flags(self._spec, preload.modules)]
        with (
            connect() as client,
            self._container(client, command, folders, env) as container,
            running_session(client, container) as session,
        ):
            yield session

    def attach(self, argv: tuple[str, ...], folders: Folders, env: Mapping[str, str]) -> int:
        """Run a command on the caller's own terminal or pipes and return its exit code.

        Raises:
            EngineError: as ``open``.
        """
        is_tty = sys.stdin.isatty() and sys.stdout.isatty()
        work_dir = MODELS_DIR if self._spec.has_models_tree else SCRATCH_DIR
        more = {"tty": is_tty, "init": True, "working_dir": str(work_dir)}
        # A shell that waits for a command does not forward signals, so signal its whole process group.
        env = {**env, "TINI_KILL_PROCESS_GROUP": "1"}
        with connect() as client, self._container(client, list(argv), folders, env, **more) as container:
            return run_attached(client, container, is_tty=is_tty)

    @property
    def _spec(self) -> ToolchainSpec:
        return load_toolchain(self.toolchain)

    def _candidate_plans(self) -> tuple[ImagePlan, ...]:
        return candidate_plans(
            toolchain=self.toolchain,
            base_image=self.base_image,
            models=self.models,
            models_commit=self.models_commit,
            ca_bundle=self.ca_bundle,
        )

    def _find(self, client: docker.DockerClient) -> tuple[ImagePlan, str] | None:
        """Return the first image that exists, built from any allowed source of the models tree."""
        return find_first_image(client, self._candidate_plans())

    def _build(self, client: docker.DockerClient) -> tuple[ImagePlan, str]:
        plan = plan_image(
            toolchain=self.toolchain,
            base_image=self.base_image,
            models=self.models,
            models_commit=self.models_commit,
            ca_bundle=self.ca_bundle,
        )
        what = f"TOCO of {plan.spec.title}" if plan.source is None else f"models from {plan.source}"
        with console.step(f"build the toolchain image {plan.tag} ({what})"):
            return plan, build_image(client, plan)

    @contextlib.contextmanager
    def _container(
        self,
        client: docker.DockerClient,
        command: list[str],
        folders: Folders,
        env: Mapping[str, str],
        **more: Any,  # noqa: ANN401 - further arguments of the SDK
    ) -> Iterator[Container]:
        image = self._image or self._find(client)
        if image is None:
            raise EngineError(
                "the toolchain image does not exist", tip=f"run `{image_command(self._spec)}` to build it"
            )
        with sdk_errors("the container could not be created"):
            container = client.containers.create(
                image[1],
                command,
                platform=PLATFORM,
                stdin_open=True,
                auto_remove=not self.keep_container,
                **container_limits(client, folders, env, self.memory_mib),
                **more,
            )
        try:
            yield container
        finally:
            if self.keep_container:
                stop_container(container)
                console.note(f"container kept: {container.name}")
            else:
                remove_container(container)
