"""The inputs of a local engine's environment, and the cache key computed from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runner.host.digests import files_digest
from runner.toolchain.catalog import load_toolchain
from runner.toolchain.pins import MODELS_PIN_FILE, PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.local.interpreter import Interpreter
    from runner.toolchain.catalog import ToolchainSpec
    from runner.toolchain.models_source import ModelsSource


FORMAT: Final = 1
"""Increase this number when the build procedure changes, so that older environments are not reused."""


BUILD_INPUTS: Final = (
    "docker/requirements.lock",
    "docker/requirements-sdist.lock",
    "docker/requirements-protoc.lock",
    "docker/models-research.pth",
    "docker/models_research.py",
    MODELS_PIN_FILE,
)
"""The files that the environment depends on, in addition to the manifests.

The scripts of the toolchain are not among them: they run from ``docker/`` and are not copied.
"""


@dataclass(frozen=True, kw_only=True)
class EnvironmentPlan:
    """The inputs of one environment; without a models tree, ``source`` and ``models_commit`` are None."""

    spec: ToolchainSpec = field(default_factory=load_toolchain)
    interpreter: Interpreter
    source: ModelsSource | None
    models_commit: str | None
    ca_bundle: Path | None = None
    root: Path = PROJECT_ROOT

    @property
    def key(self) -> str:
        """The cache key: a hash of all inputs."""
        inputs = {
            "format": FORMAT,
            "interpreter": str(self.interpreter.path),
            "version": self.interpreter.version,
            "source": None if self.source is None else self.source.kind,
            "commit": self.models_commit,
            "files": files_digest(self._files, self.root),
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _files(self) -> list[Path]:
        """The files that determine what is installed in the environment."""
        if self.source is None:
            return [self.root / self.spec.lock]
        manifests = sorted((self.root / "docker/manifests").iterdir())
        return [*(self.root / name for name in BUILD_INPUTS), *manifests]
