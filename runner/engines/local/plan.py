"""The inputs of a local engine's environment, and the cache key computed from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.host.digests import files_digest
from runner.toolchain.pins import MODELS_PIN_FILE, PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.local.interpreter import Interpreter
    from runner.toolchain.models_source import ModelsSource


FORMAT: Final = 1
"""Increase it when the build procedure changes, so that older environments are not reused."""


BUILD_INPUTS: Final = (
    "docker/requirements.lock",
    "docker/requirements-sdist.lock",
    "docker/requirements-protoc.lock",
    "docker/models-research.pth",
    "docker/models_research.py",
    MODELS_PIN_FILE,
)
"""The files that the environment depends on, in addition to the manifests. Scripts run from ``docker/``."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentPlan:
    """The inputs of one environment."""

    interpreter: Interpreter
    source: ModelsSource
    models_commit: str
    ca_bundle: Path | None = None
    root: Path = PROJECT_ROOT

    @property
    def key(self) -> str:
        """The cache key: a hash of all inputs."""
        manifests = sorted((self.root / "docker/manifests").iterdir())
        inputs = {
            "format": FORMAT,
            "interpreter": str(self.interpreter.path),
            "version": self.interpreter.version,
            "source": self.source.kind,
            "commit": self.models_commit,
            "files": files_digest([*(self.root / name for name in BUILD_INPUTS), *manifests], self.root),
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
