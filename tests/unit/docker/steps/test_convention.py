"""Steps always print one JSON object to stdout; refusals exit with code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.unit.docker.steps.conftest import STEPS_DIR

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

STEP = """
import os
from pathlib import Path
from _step import Parser, InputError, run, whole_file

def work(options):
    print("chatter")
    os.write(1, b"chatter from C++\\n")
    if options.refuse:
        raise InputError("no", tip="yes")
    with whole_file(options.output) as partial:
        partial.write_text("whole")
        if options.fail:
            raise ZeroDivisionError
    return {"done": True}

parser = Parser("A step.")
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--refuse", action="store_true")
parser.add_argument("--fail", action="store_true")
run(parser, work)
"""


@pytest.fixture
def step(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    script = tmp_path / "step.py"
    script.write_text(STEP)

    def run_it(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, script, *arguments],
            env={**os.environ, "PYTHONPATH": str(STEPS_DIR)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run_it


def test_result_is_all_there_is_on_stdout(
    step: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = step("--output", str(tmp_path / "product"))
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"done": True}
    assert "chatter" in done.stderr
    assert "chatter from C++" in done.stderr
    assert (tmp_path / "product").read_text() == "whole"


def test_refusal_is_json_and_exits_2(
    step: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = step("--output", str(tmp_path / "product"), "--refuse")
    assert (done.returncode, json.loads(done.stdout)) == (2, {"error": "no", "tip": "yes"})


@pytest.mark.parametrize("arguments", [(), ("--output", "x", "--unknown"), ("--output", "x", "--refus")])
def test_invalid_command_line_is_a_refusal(
    step: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[str, ...]
) -> None:
    done = step(*arguments)
    assert done.returncode == 2
    assert "usage" in json.loads(done.stdout)["tip"]


def test_failure_leaves_nothing_behind(
    step: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = step("--output", str(tmp_path / "product"), "--fail")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ZeroDivisionError" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step.py"]


def test_output_that_cannot_be_written_is_a_refusal(
    step: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = step("--output", str(tmp_path / "missing" / "product"))
    assert done.returncode == 2
    assert "cannot be written: No such file" in json.loads(done.stdout)["error"]


def test_whole_folder_takes_the_place_of_the_old_one(
    load_step: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old").write_text("old")
    with load_step("_step").whole_folder(tmp_path / "made") as partial:
        (partial / "new").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["new"]


def test_failure_keeps_the_old_folder(load_step: Callable[[str], ModuleType], tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), load_step("_step").whole_folder(tmp_path / "made"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "old").read_text() == "old"
