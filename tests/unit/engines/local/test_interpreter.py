from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runner.engines.local.interpreter import Interpreter, find_interpreter
from runner.errors import EngineError

GOOD_ANSWER = {
    "executable": "/opt/python/bin/python3.7",
    "version": "3.7.17",
    "build": "GCC 12.2.0 default Nov 24 2026",
    "version_info": [3, 7],
    "implementation": "CPython",
    "platform": "linux",
    "machine": "x86_64",
    "bits": 64,
    "libc": "glibc",
    "missing": [],
}
FOUND = Interpreter(
    path=Path("/opt/python/bin/python3.7"), version="3.7.17", build="GCC 12.2.0 default Nov 24 2026"
)


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what this machine has installed."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("PYENV_ROOT", "ASDF_DATA_DIR", "RYE_HOME", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RUNNER_PYTHON", raising=False)


def install(folder: Path, answer: object = GOOD_ANSWER, name: str = "python3.7") -> Path:
    """Install a program that reports the given facts about itself, like an interpreter."""
    folder.mkdir(parents=True, exist_ok=True)
    executable = folder / name
    executable.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    executable.chmod(0o755)
    return executable


def test_no_interpreter_exits_3_and_says_how_to_get_one() -> None:
    with pytest.raises(EngineError, match=r"no CPython 3\.7") as caught:
        find_interpreter()
    assert caught.value.exit_code == 3
    for way in ("pyenv install 3.7", "conda create", "--python", "RUNNER_PYTHON"):
        assert way in (caught.value.tip or "")


@pytest.mark.parametrize(
    "folder",
    ["bin", "home/.pyenv/versions/3.7.17/bin", "home/.asdf/installs/python/3.7.17/bin", "conda/envs/old/bin"],
)
def test_an_interpreter_of_path_pyenv_asdf_or_conda_is_found(tmp_path: Path, folder: str) -> None:
    registry = tmp_path / "home/.conda/environments.txt"
    registry.parent.mkdir(parents=True)
    registry.write_text(f"{tmp_path}/conda/envs/gone\n{tmp_path}/conda/envs/old\n")
    install(tmp_path / folder)
    assert find_interpreter() == FOUND


def test_an_unusable_interpreter_does_not_hide_a_usable_one(tmp_path: Path) -> None:
    install(tmp_path / "bin", {**GOOD_ANSWER, "missing": ["ensurepip"]})
    install(tmp_path / "home/.pyenv/versions/3.7.17/bin")
    assert find_interpreter() == FOUND


def test_when_all_are_unusable_the_reason_of_each_is_given(tmp_path: Path) -> None:
    first = install(tmp_path / "bin", {**GOOD_ANSWER, "missing": ["ensurepip"]})
    second = install(tmp_path / "home/.pyenv/versions/3.7.17/bin", {**GOOD_ANSWER, "machine": "aarch64"})
    with pytest.raises(EngineError) as caught:
        find_interpreter()
    assert [str(first) in line and "ensurepip" in line for line in caught.value.last_lines] == [True, False]
    assert str(second) in caught.value.last_lines[1]


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        ({"implementation": "PyPy"}, "it is PyPy 3.7.17"),
        ({"version": "3.8.18", "version_info": [3, 8]}, "it is CPython 3.8.18"),
        ({"machine": "aarch64"}, "it is for linux aarch64"),
        ({"platform": "darwin"}, "it is for darwin x86_64"),
        ({"bits": 32}, "32-bit"),
        ({"libc": ""}, "glibc"),
        ({"missing": ["venv", "ssl"]}, "it lacks the modules venv, ssl"),
    ],
)
def test_an_interpreter_that_will_not_do_is_refused_with_the_reason(
    tmp_path: Path, difference: dict[str, object], reason: str
) -> None:
    asked_for = install(tmp_path / "elsewhere", {**GOOD_ANSWER, **difference})
    with pytest.raises(EngineError, match=r"cannot run the toolchain") as caught:
        find_interpreter(str(asked_for))
    assert reason in caught.value.message


def test_the_one_asked_for_comes_before_the_variable_and_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", {**GOOD_ANSWER, "version": "3.7.1"})
    named = install(tmp_path / "elsewhere", {**GOOD_ANSWER, "version": "3.7.2"})
    monkeypatch.setenv("RUNNER_PYTHON", str(named))
    assert find_interpreter().version == "3.7.2"
    assert find_interpreter("python3.7").version == "3.7.1"


@pytest.mark.parametrize("asked_for", ["/nowhere/python3.7", "no-such-python"])
def test_a_missing_interpreter_that_was_asked_for_is_named(asked_for: str) -> None:
    with pytest.raises(EngineError, match=rf"{asked_for} does not exist"):
        find_interpreter(asked_for)


def test_a_program_that_is_no_python_is_refused(tmp_path: Path) -> None:
    for number, said in enumerate(["hello", [1, 2]]):
        with pytest.raises(EngineError, match=r"not behave like a Python"):
            find_interpreter(str(install(tmp_path / str(number), said)))
    with pytest.raises(EngineError, match=r"code 1"):
        find_interpreter("/bin/false")


def test_the_python_that_runs_this_is_asked_for_real_and_too_new() -> None:
    with pytest.raises(EngineError, match=rf"it is CPython {sys.version_info[0]}\.{sys.version_info[1]}"):
        find_interpreter(sys.executable)
