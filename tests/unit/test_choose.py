from __future__ import annotations

import gc
import socket
import threading
import warnings
from typing import TYPE_CHECKING

import docker
import pytest

from runner.engines.choose import EngineOptions, automatic_choice, choose_engine, usable_engines
from runner.engines.docker import DockerEngine
from runner.engines.local import LocalEngine
from runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REAL_FROM_ENV = docker.from_env
OPTIONS = EngineOptions(models="pypi", base_image="py37", memory_mib=1000, keep_container=True, python="py")


@pytest.fixture(autouse=True)
def automatic_again() -> Iterator[None]:
    yield
    automatic_choice.cache_clear()
    with warnings.catch_warnings():
        # The SDK forgets the socket of a connection that fails.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def without_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_daemon: None) -> None:  # noqa: ARG001
    use_real_sdk(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")


@pytest.fixture
def with_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_daemon: None) -> Iterator[None]:  # noqa: ARG001
    """Answer every request as a daemon answers a ping."""
    use_real_sdk(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")
    body = b'{"ApiVersion": "1.41", "Version": "20.10"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/d.sock")
    listener.listen()

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(head + body)

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def use_real_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "from_env", REAL_FROM_ENV)


def test_auto_takes_docker_when_a_daemon_answers_and_says_why(
    with_daemon: None,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert choose_engine("auto", OPTIONS).name == "docker"
    assert capsys.readouterr() == ("", "engine: docker (a Docker daemon answers)\n")


def test_auto_takes_local_when_none_answers_and_says_why(
    without_daemon: None,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert choose_engine("auto", OPTIONS).name == "local"
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("engine: local (no Docker daemon: nothing listens at DOCKER_HOST=")
    assert shown.err.count("\n") == 1


def test_auto_asks_and_says_it_once(without_daemon: None, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    choose_engine("auto", OPTIONS)
    choose_engine("auto", OPTIONS)
    assert capsys.readouterr().err.count("engine: ") == 1


def test_an_engine_asked_for_by_name_is_taken_without_asking_anybody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert choose_engine("docker", OPTIONS) == DockerEngine(
        models="pypi", base_image="py37", memory_mib=1000, keep_container=True
    )
    assert choose_engine("local", OPTIONS) == LocalEngine(models="pypi", python="py")
    assert capsys.readouterr() == ("", "")


def test_an_unknown_engine_exits_2_and_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="--engine podman") as caught:
        choose_engine("podman", OPTIONS)
    assert caught.value.exit_code == 2
    assert "auto, docker, local" in (caught.value.tip or "")


def test_usable_engines_are_those_with_a_daemon_or_an_interpreter(
    with_daemon: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNNER_PYTHON", "/nowhere/python3.7")
    assert usable_engines() == ("docker",)


def test_a_machine_with_neither_has_no_usable_engine(
    without_daemon: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNNER_PYTHON", "/nowhere/python3.7")
    assert usable_engines() == ()
