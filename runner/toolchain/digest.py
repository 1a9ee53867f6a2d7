"""Compute one digest over all inputs of the toolchain, whatever the engine.

It covers lock files, pins, manifests, the scripts in ``docker/`` and the commit of tensorflow/models. It does
not cover the engine, the base image or the source of the tree. Toolchains with equal digests are expected to
produce equal files.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from runner.host.digests import files_digest
from runner.toolchain.catalog import toco_only_digest
from runner.toolchain.files import toolchain_files
from runner.toolchain.pins import MODELS_PIN_FILE, PROJECT_ROOT, PYTHON_PIN_FILE, load_models_pin

if TYPE_CHECKING:
    from pathlib import Path

    from runner.toolchain.catalog import ToolchainSpec

SOURCE_SUFFIXES: Final = frozenset({"", ".lock", ".manifest", ".pth", ".py", ".sh"})
"""Suffixes of the files in ``docker/`` that are included; ``.in`` files are not."""


def toolchain_digest(models_commit: str, root: Path = PROJECT_ROOT) -> str:
    """Return the sha256 over the toolchain's sources and the commit of its models tree."""
    overall = hashlib.sha256(models_commit.encode())
    overall.update(files_digest(toolchain_sources(root), root).encode())
    return overall.hexdigest()


def digest_of(spec: ToolchainSpec, models_commit: str | None, root: Path = PROJECT_ROOT) -> str:
    """Return the sha256 over the sources of any toolchain; only the default one has a models tree."""
    if models_commit is None:
        return toco_only_digest(spec, root)
    return toolchain_digest(models_commit, root)


def candidate_toolchain_digests(
    models: str, root: Path = PROJECT_ROOT, *, commit: str | None = None
) -> tuple[str, ...]:
    """Return the digest for every allowed source of tensorflow/models, the preferred one first.

    No network request is made, so it is not known which source is reachable. All sources produce the same
    files. ``commit`` is the commit that the models tree must have; None allows every pinned commit.

    Raises:
        UsageError: as `candidate_sources`.
    """
    from runner.toolchain.models_source import candidate_sources

    pin = load_models_pin(root)
    commits = dict.fromkeys(it.commit(pin) for it in candidate_sources(models, pin, commit=commit))
    return tuple(toolchain_digest(commit, root) for commit in commits)


def toolchain_sources(root: Path = PROJECT_ROOT) -> tuple[Path, ...]:
    """Return the toolchain's source files in a fixed order."""
    under_docker = (
        file for file in toolchain_files(root) if file.parts[0] == "docker" and file.suffix in SOURCE_SUFFIXES
    )
    return (root / MODELS_PIN_FILE, root / PYTHON_PIN_FILE, *(root / file for file in under_docker))
