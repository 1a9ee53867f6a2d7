"""``--engine auto`` with a real Docker daemon: which images must exist for it to choose Docker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from typing import TYPE_CHECKING, Any

import docker
import pytest

from runner.engines.choose import EngineOptions, choose_engine
from runner.engines.docker.engine import DockerEngine
from tests.servers import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.engines.base import Engine
    from tests.servers import Request

pytestmark = pytest.mark.engine("docker")


@pytest.fixture
def local_image() -> Iterator[str]:
    """A base image that only this daemon has and on which no toolchain image was built."""
    name = "mobiledet-runner-test-base:1"
    with contextlib.closing(docker.from_env()) as client:
        client.api.import_image_from_data(b"", repository="mobiledet-runner-test-base", tag="1")
        yield name
        client.images.remove(name)


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry on loopback that has only the image ``base:1``."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    ).encode()
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(config),
                "digest": digest_of(config),
            },
            "layers": [],
        }
    ).encode()
    contents = {
        "/v2/": ("application/json", b"{}"),
        "/v2/base/manifests/1": (kind, manifest),
        f"/v2/base/manifests/{digest_of(manifest)}": (kind, manifest),
        f"/v2/base/blobs/{digest_of(config)}": ("application/octet-stream", config),
    }

    def answer(request: Request) -> None:
        media_type, body = contents.get(request.path, ("application/json", b""))
        request.send_response(200 if body else 404)
        request.send_header("Content-Type", media_type)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Docker-Content-Digest", digest_of(body))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    with running_server(answer) as url:
        yield url.removeprefix("http://")


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def chosen(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[str, str]:  # noqa: ANN401
    """Return the engine that ``auto`` chooses, and the line that states why."""
    engine = choose_engine("auto", EngineOptions(**options))
    return engine.name, capsys.readouterr().err


def test_a_toolchain_image_that_is_built_is_enough(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(engine, DockerEngine)
    name, line = chosen(capsys, base_image=engine.base_image)
    assert name == "docker"
    assert line.startswith("engine: docker (the toolchain image mobiledet-runner:")


def test_a_base_image_that_is_there_is_enough(local_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen(capsys, base_image=local_image) == (
        "docker",
        f"engine: docker (the base image {local_image} exists locally)\n",
    )


def test_a_base_image_that_can_be_pulled_is_enough(registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, line = chosen(capsys, base_image=f"{registry}/base:1")
    assert name == "docker"
    assert f"{registry}/base:1 can be pulled" in line


def test_an_image_that_the_registry_does_not_have_leads_to_the_local_engine(
    registry: str, python37: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, line = chosen(capsys, base_image=f"{registry}/base:2", python=str(python37))
    assert name == "local"
    assert "without the isolation of a container" in line
    assert f"{registry}/base:2" in line
    assert "cannot be pulled" in line


def test_a_registry_that_is_not_reachable_leads_to_the_local_engine(
    python37: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, line = chosen(capsys, base_image="127.0.0.1:9/base:1", python=str(python37))
    assert name == "local"
    assert "cannot be pulled" in line


def test_a_registry_that_never_answers_times_out(
    python37: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runner.engines.docker.engine.ANSWER_TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        name, line = chosen(capsys, base_image=f"{address}/base:1", python=str(python37))
    assert name == "local"
    assert "its registry did not answer within 2 s" in line
