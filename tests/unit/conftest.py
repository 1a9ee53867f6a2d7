"""Unit tests see no daemon, no network but their own loopback servers, and a cache of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import docker
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a unit test reached for the Docker daemon")

    monkeypatch.setattr(docker, "from_env", refuse)
    monkeypatch.setattr(docker, "DockerClient", refuse)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNNER_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("TF_MODEL_DIR", "TFLITE_MODEL_DIR", "RUNNER_ENGINE", "RUNNER_MODELS"):
        monkeypatch.delenv(name, raising=False)
