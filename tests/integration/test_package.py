"""The wheel and the sdist: built, installed into clean environments, and used from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from uv import find_uv_bin

from runner.deliver.plan import program_digest
from runner.evidence.provenance.read import Role
from runner.recipes.recipe import RECIPES_DIR
from runner.toolchain.files import CA_BUNDLE, packaged_files
from runner.toolchain.image_plan import candidate_plans
from runner.toolchain.pins import BUNDLE, PROJECT_ROOT
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from tests.integration.conftest import Program

pytestmark = pytest.mark.any_engine


@dataclass(frozen=True, kw_only=True)
class Package:
    """One build of the project."""

    wheel: Path
    sdist: Path


def uv(*arguments: str | Path, env: dict[str, str] | None = None) -> None:
    subprocess.run([find_uv_bin(), *arguments], check=True, env={**os.environ, **(env or {})})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The wheel and the sdist, each built from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--sdist", "--wheel", "--out-dir", out, PROJECT_ROOT)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Package(wheel=wheel, sdist=sdist)


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An environment with the program and nothing from the checkout."""

    folder: Path

    def run(self, *command: str | Path, cwd: Path) -> str:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            cwd=cwd,
            env={**env, "RUNNER_CACHE_MIB": "0"},  # what the test starts is to be done, not remembered
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=["wheel", pytest.param("sdist", marks=pytest.mark.slow)])
def installed(
    request: pytest.FixtureRequest, package: Package, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    folder = tmp_path_factory.mktemp("installed") / "venv"
    source = {"wheel": package.wheel, "sdist": package.sdist}[request.param]
    uv("venv", "--quiet", folder)
    python = ("--python", folder / "bin/python")
    uv("pip", "install", "--quiet", *python, "--constraints", PROJECT_ROOT / "requirements.lock", source)
    uv("pip", "check", "--quiet", *python)
    return Installed(folder=folder)


def test_the_wheel_has_the_toolchain_inside_the_program(package: Package) -> None:
    """There is no top-level ``docker``, which would shadow the Docker SDK."""
    with zipfile.ZipFile(package.wheel) as wheel:
        files = {Path(name) for name in wheel.namelist()}
        scripts = {Path(it.filename).name for it in wheel.infolist() if it.external_attr >> 16 & 0o100}
    metadata = package.wheel.name.replace("-py3-none-any.whl", ".dist-info")
    assert {file.parts[0] for file in files} == {"runner", metadata}
    bundled = {file.relative_to(BUNDLE) for file in files if file.is_relative_to(BUNDLE)}
    assert bundled == {Path(file) for file in packaged_files()}
    assert {"toco", "export_tflite_ssd_graph.py"} <= scripts


def test_the_wheel_has_the_recipes_with_the_checkpoints_that_ship(package: Package) -> None:
    recipes = {path.relative_to(PROJECT_ROOT) for path in RECIPES_DIR.rglob("*") if path.is_file()}
    assert any(path.name == "model.ckpt.index" for path in recipes)
    with zipfile.ZipFile(package.wheel) as wheel:
        assert recipes <= {Path(name) for name in wheel.namelist()}


def test_a_wheel_of_the_sdist_is_the_same_and_has_nothing_of_the_machine_that_built_it(
    package: Package, tmp_path: Path
) -> None:
    # Not with `tarfile`: what it warns of or lacks depends on the patch release of Python.
    subprocess.run(["tar", "-xf", package.sdist, "-C", tmp_path], check=True)
    (unpacked,) = tmp_path.iterdir()
    for name in (CA_BUNDLE, "docker/server/__pycache__/server.cpython-37.pyc"):
        (unpacked / name).parent.mkdir(exist_ok=True)
        (unpacked / name).write_text("of this machine")
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", unpacked)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.read_bytes() == package.wheel.read_bytes()


def test_an_editable_installation_uses_the_files_of_the_checkout(tmp_path: Path) -> None:
    uv("venv", "--quiet", tmp_path)
    python = ("--python", tmp_path / "bin/python")
    uv("pip", "install", "--quiet", "--no-deps", *python, "--editable", PROJECT_ROOT)
    assert not list(tmp_path.rglob("_toolchain"))


DIGESTS = """
from runner.deliver.plan import program_digest
from runner.toolchain.image_plan import candidate_plans
print(program_digest(), *(plan.tag for plan in candidate_plans()))
"""


def test_an_installed_program_is_the_one_of_the_checkout(
    installed: Installed, program: Program, tmp_path: Path
) -> None:
    """They have the same version, toolchain and image tags, and they share the cache."""
    assert installed.run("mobiledet-runner", "--version", cwd=tmp_path) == program("--version").stdout
    assert installed.run("python", "-m", "runner", "--help", cwd=tmp_path).startswith("Usage: ")
    digests = installed.run("python", "-c", DIGESTS, cwd=tmp_path).split()
    assert digests == [program_digest(), *(plan.tag for plan in candidate_plans())]


@pytest.mark.engine("local")
def test_an_installed_program_converts_the_stand_in(
    installed: Installed, tmp_path: Path, program: Program
) -> None:
    engine = ("--engine", program.engine_name)
    done = installed.run("mobiledet-runner", "demo", *engine, "--out", "out", "--json", cwd=tmp_path)
    assert {it["variant"]: it["sha256"] for it in json.loads(done)} == FINAL_SHA256
    provenance = ("verify", "--provenance", "out/fp32/provenance.json", "--json")
    report = json.loads(installed.run("mobiledet-runner", *provenance, cwd=tmp_path))
    states = {finding["role"]: finding["state"] for finding in report["findings"]}
    assert [states[role.value] for role in (Role.TOOLCHAIN, Role.LOCK, Role.MANIFEST)] == ["same"] * 3
    explained = installed.run("mobiledet-runner", "explain", "out/fp32", cwd=tmp_path)
    assert "docker/requirements.lock" in explained


@pytest.mark.engine("docker")
def test_an_installed_program_uses_the_image_of_the_checkout(
    installed: Installed, tmp_path: Path, program: Program
) -> None:
    base = os.environ.get("RUNNER_BASE_IMAGE")
    options = () if base is None else ("--base-image", base)
    found = installed.run("mobiledet-runner", "image", "--engine", "docker", *options, cwd=tmp_path)
    assert found == program("image").stdout
