"""The layer contract of pyproject.toml, as `make lint` enforces it: an upward import does not pass."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.toolchain.pins import PROJECT_ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that the contract covers."""
    shutil.copytree(
        PROJECT_ROOT / "runner", tmp_path / "runner", ignore=shutil.ignore_patterns("__pycache__", "catalog")
    )
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_all_imports_run_downwards(copy: Path) -> None:
    code, printed = lint(copy)
    assert code == 0, printed


@pytest.mark.parametrize(
    "planted",
    [
        "from runner.commands import options",
        "if TYPE_CHECKING:\n    from runner.commands import options",
        "def late() -> None:\n    from runner.commands import options",
    ],
    ids=["at the top", "for types only", "in a function"],
)
def test_an_upward_import_is_refused_and_named(copy: Path, planted: str) -> None:
    with (copy / "runner/host/cpu.py").open("a") as module:
        module.write(f"\n\n{planted}\n")
    code, printed = lint(copy)
    assert code != 0
    assert "runner.host.cpu -> runner.commands.options" in printed


def test_a_module_that_no_layer_names_is_refused(copy: Path) -> None:
    (copy / "runner/utils.py").write_text("")
    code, printed = lint(copy)
    assert code != 0
    assert "utils" in printed
