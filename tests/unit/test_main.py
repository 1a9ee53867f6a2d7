"""Starting the program with a Python that has nothing installed."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_a_python_without_our_packages_is_told_the_one_command_that_sets_it_up(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-m", "runner", "--help"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (command,) = re.findall(r"try: (make \S+ \S+ \w+),", done.stderr)
    assert command == f"make -C {PROJECT} venv"
    target = subprocess.run([*command.split(), "--dry-run"], capture_output=True, text=True, check=False)
    assert target.returncode == 0, target.stderr


def test_the_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "--version"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)
