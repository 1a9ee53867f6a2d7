"""Unit tests have their own cache, no daemon, and no network except loopback servers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NoReturn

import docker
import pytest

from tests.servers import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Serve


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


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove this machine's proxy settings, which must not apply to the servers of the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that answer by calling a function of the test; they end with the test."""
    with contextlib.ExitStack() as servers:
        yield lambda answer: servers.enter_context(running_server(answer))
