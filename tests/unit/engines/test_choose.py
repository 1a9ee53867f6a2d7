"""The choice of the engine; tests/integration/test_choose.py tests it with a real daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker
import pytest

from runner.engines.choose import EngineOptions, choose_engine, first_that_can_run
from runner.engines.docker.engine import DockerEngine
from runner.engines.local.engine import LocalEngine
from runner.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

REAL_FROM_ENV = docker.from_env
OPTIONS = EngineOptions(models="pypi", base_image="py37", memory_mib=1000, keep_container=True, python="py")


@pytest.fixture
def without_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_daemon: None) -> None:  # noqa: ARG001
    monkeypatch.setattr(docker, "from_env", REAL_FROM_ENV)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")


@pytest.fixture
def interpreter(python37: Path) -> EngineOptions:
    return EngineOptions(python=str(python37))


@pytest.mark.parametrize(
    ("can_run", "taken"),
    [
        ({"docker": True, "local": True}, "docker"),
        ({"docker": True, "local": False}, "docker"),
        ({"docker": False, "local": True}, "local"),
        ({"docker": False, "local": False}, None),
    ],
)
def test_the_first_engine_that_can_run_is_taken(can_run: dict[str, bool], taken: str | None) -> None:
    assert first_that_can_run(can_run.__getitem__) == taken


@pytest.mark.usefixtures("without_daemon")
def test_auto_without_a_daemon_takes_local_and_reports_why_and_that_it_does_not_isolate(
    interpreter: EngineOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose_engine("auto", interpreter).name == "local"
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("engine: local, without the isolation of a container (no Docker daemon: ")
    assert shown.err.count("\n") == 1


@pytest.mark.usefixtures("without_daemon")
def test_auto_looks_and_reports_once(interpreter: EngineOptions, capsys: pytest.CaptureFixture[str]) -> None:
    choose_engine("auto", interpreter)
    choose_engine("auto", interpreter)
    assert capsys.readouterr().err.count("engine: ") == 1


@pytest.mark.usefixtures("without_daemon")
def test_auto_on_a_machine_with_neither_exits_3_with_a_way_out_for_each(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        choose_engine("auto", EngineOptions(python=str(tmp_path / "python3.7")))
    assert caught.value.exit_code == 3
    assert "no Docker daemon" in caught.value.message
    assert "python3.7 does not exist" in caught.value.message
    assert "install and start Docker" in (caught.value.tip or "")
    assert "pyenv install" in (caught.value.tip or "")


def test_auto_with_an_invalid_option_reports_that_and_asks_no_daemon() -> None:
    with pytest.raises(UsageError, match="/nowhere"):
        choose_engine("auto", EngineOptions(models="/nowhere"))


def test_an_engine_named_by_the_user_is_used_without_a_check(
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
