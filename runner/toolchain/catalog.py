"""The toolchains that ship with the program: each is a folder in ``toolchains/`` with a ``toolchain.toml``.

The default toolchain has the export scripts and TOCO, and is built from the Dockerfile and ``docker/``. Any
other toolchain only has TOCO, and is built from its own lock file and the files in ``toolchains/toco-only``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import tomli
from msgspec import Meta

from runner.errors import ConfigError, UsageError
from runner.host.digests import files_digest
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.toolchain.files import toolchain_files
from runner.toolchain.pins import PINNED_IMAGE, PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

CATALOG: Final = "toolchains"
TOOLCHAIN_FILE: Final = "toolchain.toml"
TOCO_ONLY: Final = f"{CATALOG}/toco-only"
"""The folder with the files that all toolchains without the detection API share."""
SHARED: Final = ("docker/bin", "docker/server")
"""The folders of the default toolchain that the other toolchains use as well."""


class ToolchainSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a ``toolchain.toml``, and the name of its folder.

    ``base_image`` None means the image that the Dockerfile pins. ``models_pin`` is the file that pins the
    models tree; None means TOCO only. ``same_bytes_as`` are other versions of TensorFlow whose TOCO wrote the
    same bytes when it was measured. ``tflite_convert_flags`` make ``tflite_convert`` use TOCO.
    """

    name: str = ""
    title: str
    tensorflow: str
    lock: str
    min_runtime_version: str
    base_image: Annotated[str, Meta(pattern=f"^{PINNED_IMAGE}$")] | None = None
    models_pin: str | None = None
    same_bytes_as: tuple[str, ...] = ()
    tflite_convert_flags: tuple[str, ...] = ()

    @property
    def has_models_tree(self) -> bool:
        """Whether the toolchain has the export scripts, not only TOCO."""
        return self.models_pin is not None


def toolchain_names(root: Path = PROJECT_ROOT) -> tuple[str, ...]:
    """Return the names of the toolchains; the default one is the first."""
    names = {path.parent.name for path in (root / CATALOG).glob(f"*/{TOOLCHAIN_FILE}")}
    return (DEFAULT_TOOLCHAIN, *sorted(names - {DEFAULT_TOOLCHAIN}))


def other_toolchains() -> tuple[ToolchainSpec, ...]:
    """Return the toolchains that are built only on request."""
    return tuple(load_toolchain(name) for name in toolchain_names() if name != DEFAULT_TOOLCHAIN)


@cache
def load_toolchain(name: str = DEFAULT_TOOLCHAIN, root: Path = PROJECT_ROOT) -> ToolchainSpec:
    """Read the ``toolchain.toml`` of a toolchain.

    Raises:
        UsageError: there is no toolchain with this name.
        ConfigError: the file is invalid, or its lock file or its pin of the models tree is missing.
    """
    if name not in toolchain_names(root):
        raise UsageError(
            f"there is no toolchain {name!r}", tip=f"use one of {', '.join(toolchain_names(root))}"
        )
    path = root / CATALOG / name / TOOLCHAIN_FILE
    try:
        spec = msgspec.convert({**tomli.loads(path.read_text("utf-8")), "name": name}, ToolchainSpec)
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise ConfigError(f"{path} cannot be used: {problem}") from problem
    for what, file in (("lock", spec.lock), ("pin of the models tree", spec.models_pin)):
        if file is not None and not (root / file).is_file():
            raise ConfigError(f"{path}: there is no {what} {file}")
    if spec.has_models_tree != (name == DEFAULT_TOOLCHAIN):
        raise ConfigError(f"{path}: {DEFAULT_TOOLCHAIN} must have a models tree, and other toolchains none")
    return spec


def preload_flags(spec: ToolchainSpec, modules: tuple[str, ...]) -> tuple[str, ...]:
    """Return the flags for the toolchain server. Only the default toolchain preloads modules in it."""
    return ("--preload", *modules) if spec.has_models_tree else ()


def image_command(spec: ToolchainSpec) -> str:
    """Return the command and options of this program that build a toolchain."""
    return "image" if spec.name == DEFAULT_TOOLCHAIN else f"image --toolchain {spec.name}"


def toco_only_files(spec: ToolchainSpec, root: Path = PROJECT_ROOT) -> tuple[Path, ...]:
    """Return the files that a toolchain without the detection API is built from, in a fixed order."""
    shared = (root / file for file in toolchain_files(root) if file.parent.as_posix() in SHARED)
    own = (path for path in sorted((root / TOCO_ONLY).iterdir()) if path.is_file())
    return (root / spec.lock, root / CATALOG / spec.name / TOOLCHAIN_FILE, *own, *shared)


def toco_only_digest(spec: ToolchainSpec, root: Path = PROJECT_ROOT) -> str:
    """Return the sha256 over the sources of a toolchain without the detection API."""
    return files_digest(toco_only_files(spec, root), root)
