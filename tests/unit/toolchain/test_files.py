"""The files of the toolchain, and the digest over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.toolchain.digest import toolchain_digest
from runner.toolchain.files import CA_BUNDLE, LOCAL_MODELS, toolchain_files

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "Dockerfile",
    "cpython-pin.txt",
    "docker/bin/toco",
    "docker/manifests/a.manifest",
    "docker/requirements.in",
    "docker/requirements.lock",
    "docker/server/server.py",
    "models-research-pin.txt",
)


EARLIER = "c63712bf6c1f476cb217895734a3e05f0443aa16b02de4a5315142599ab49455"


def write_project(root: Path) -> None:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")


def test_what_one_machine_has_and_bytecode_are_no_files_of_the_toolchain(tmp_path: Path) -> None:
    write_project(tmp_path)
    for name in (CA_BUNDLE, LOCAL_MODELS, "docker/server/__pycache__/server.cpython-311.pyc", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not the toolchain's")
    assert tuple(map(str, toolchain_files(tmp_path))) == FILES


def test_the_digest_of_equal_files_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """It names the toolchain in every provenance and in the cache."""
    write_project(tmp_path)
    assert toolchain_digest("c" * 40, tmp_path) == EARLIER
