"""The local engine on a machine without a CPython 3.7, with an archive from a server on loopback.

The archive is made from the CPython 3.7 of this machine, in the layout of the real one, which tests cannot
reach.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runner.engines.local.interpreter import find_interpreter
from runner.engines.local.own_python import find_own_python, install_python
from runner.toolchain.pins import DOCKERFILE, MODELS_PIN_FILE, PROJECT_ROOT, PYTHON_PIN_FILE, load_python_pin
from tests.loopback import send
from tests.python_archive import NAME, pack_installed, pin_text
from tests.servers import running_server
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Request

pytestmark = pytest.mark.engine("local")


@dataclass(frozen=True, kw_only=True)
class BareMachine:
    """A checkout that pins the stand-in archive, and a user without a CPython 3.7."""

    checkout: Path
    home: Path

    @property
    def env(self) -> dict[str, str]:
        hidden = ("PYENV_ROOT", "ASDF_DATA_DIR", "CONDA_PREFIX", "RUNNER_PYTHON", "RUNNER_ENGINE")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        return {
            **kept,
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "PYTHONPATH": str(self.checkout),
            "RUNNER_CACHE_DIR": str(self.home / "cache"),
        }

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runner", *arguments],
            cwd=self.home,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    installed = find_interpreter().path.resolve()
    target = tmp_path_factory.mktemp("archive") / NAME
    pack_installed(installed.parents[1], target)
    return target.read_bytes()


@pytest.fixture
def machine(archive: bytes, tmp_path: Path) -> Iterator[BareMachine]:
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    for name in ("runner", "docker", "toolchains"):
        shutil.copytree(PROJECT_ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (DOCKERFILE, MODELS_PIN_FILE):
        shutil.copy(PROJECT_ROOT / name, checkout)
    home.mkdir()

    def answer(request: Request) -> None:
        send(request, archive)

    with running_server(answer) as url:
        version = find_interpreter().version
        (checkout / PYTHON_PIN_FILE).write_text(pin_text(archive, version=version, url=url))
        yield BareMachine(checkout=checkout, home=home)


@pytest.mark.slow
def test_the_demo_gives_the_same_bytes_on_an_interpreter_of_its_own(machine: BareMachine) -> None:
    before = machine.run("doctor", "--engine", "local", "--json")
    (found,) = (it for it in json.loads(before.stdout)["findings"] if it["subject"] == "interpreter")
    assert found["state"] == "ok"
    assert "can be installed from http://127.0.0.1" in found["text"]

    done = machine.run("demo", "--engine", "local", "--out", str(machine.home / "out"), "--json")
    assert done.returncode == 0, done.stderr
    assert {it["variant"]: it["sha256"] for it in json.loads(done.stdout)} == FINAL_SHA256
    assert done.stderr.count("-> install CPython 3.7") == 1

    statement = json.loads((machine.home / "out/fp32/provenance.json").read_text())
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    (interpreter,) = (it for it in dependencies if it["annotations"]["role"] == "interpreter")
    pin = load_python_pin(machine.checkout)
    assert interpreter["name"] == f"CPython {pin.version}"
    assert interpreter["digest"]["archiveSha256"] == pin.sha256
    assert interpreter["annotations"]["build"] == pin.build

    after = machine.run("doctor", "--engine", "local")
    assert after.stdout.splitlines()[-1] == "ready: engine local, its toolchain is built"
    assert str(machine.home / "cache/pythons") in machine.run("clean", "--dry-run").stdout


def test_without_the_permission_to_install_one_it_says_so_and_exits_3(machine: BareMachine) -> None:
    done = machine.run("image", "--engine", "local", RUNNER_PYTHON_DOWNLOAD="never")
    assert done.returncode == 3
    assert "RUNNER_PYTHON_DOWNLOAD=never" in done.stderr
    assert not (machine.home / "cache/pythons").exists()


INSTALL = """
from runner.engines.local.own_python import install_python
from runner.toolchain.pins import load_python_pin
install_python(load_python_pin())
"""


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(it, marks=pytest.mark.slow) for it in range(2, 10))])
def test_an_installation_killed_at_a_random_moment_is_never_taken_for_whole(
    machine: BareMachine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("RUNNER_CACHE_DIR", machine.env["RUNNER_CACHE_DIR"])
    pin = load_python_pin(machine.checkout)
    started_s = time.monotonic()
    install_python(pin)
    longest_s = time.monotonic() - started_s + 0.5  # and the start of a program
    shutil.rmtree(machine.home / "cache")

    process = subprocess.Popen(
        [sys.executable, "-c", INSTALL], env=machine.env, cwd=machine.home, stderr=subprocess.DEVNULL
    )
    time.sleep(random.Random(seed).uniform(0.0, longest_s))
    process.kill()
    process.wait()
    left = find_own_python(pin)
    assert left is None or imports_ssl(left)
    whole = install_python(pin)
    assert imports_ssl(whole)
    assert left in (None, whole)
    attempts = [path for path in whole.parents[3].iterdir() if path.is_dir()]
    assert attempts == [whole.parents[2]]


def imports_ssl(executable: Path) -> bool:
    command = [str(executable), "-I", "-c", "import ctypes, ensurepip, ssl, venv, zlib"]
    return subprocess.run(command, check=False).returncode == 0
