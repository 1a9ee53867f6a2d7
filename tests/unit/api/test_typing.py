"""A program that uses the API passes `mypy --strict`; a wrong call does not."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
from pathlib import Path

import runner
from runner import Runner
from runner.api.types import CheckReport, Result, Settings, Verification
from runner.errors import RunnerError, ScriptError


def convert(model_dir: Path) -> list[str]:
    with Runner(engine="auto", timeout_s=600) as it:
        results: tuple[Result, ...] = it.convert(model_dir=model_dir, out="build", variants=["fp32"])
        reports: dict[Path, CheckReport] = it.check("build")
        found: Verification = it.verify(results[0].file)
        settings: Settings = it.settings("fp32")
        print(found.verdict.is_same_content, settings.max_detections, it.prove().holds, runner.__version__)
        print(it.diff("a.tflite", "b.tflite").means_the_same, it.inspect("a.tflite").converter)
        print(it.normalize("a.tflite", "b.tflite").note, all(each.passed for each in reports.values()))
        print(it.verify_provenance("build/fp32/provenance.json").sentence)
    return [result.digests.sha256 for result in results]


try:
    convert(Path("model"))
except ScriptError as problem:
    print(problem.script_exit_code, problem.log)
except RunnerError as problem:
    print(problem.message, problem.tip, runner.errors.RunnerError.exit_code)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the package in addition to this Python's packages."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "runner").symlink_to(PROJECT_ROOT / "runner")
    (site_packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def mypy(python: Path, program: str, folder: Path) -> tuple[int, str]:
    # A name of its own: mypy's cache takes another program of the same name, size and second for this one.
    (folder / f"{folder.name}.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", f"--python-executable={python}"]
    command += [f"--cache-dir={python.parent.parent / 'mypy'}", f"{folder.name}.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_program_that_uses_the_api_passes(python: Path, tmp_path: Path) -> None:
    assert mypy(python, PROGRAM, tmp_path) == (0, "Success: no issues found in 1 source file\n")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ('Runner().convert(model_dir=1, out="build")', "[arg-type]"),
        ('Runner().convert(out="build", threshold=0.3)', "[call-arg]"),
        ('Runner().verify("x").verdict.is_sane_content', "[attr-defined]"),
        ("import runner; runner.Runer", "[attr-defined]"),
    ],
)
def test_a_wrong_call_does_not_pass(python: Path, tmp_path: Path, wrong: str, complaint: str) -> None:
    code, printed = mypy(python, f"from runner import Runner\n{wrong}\n", tmp_path)
    assert code == 1
    assert complaint in printed
