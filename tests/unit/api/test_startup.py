"""What the API imports, and that it prints nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import json, sys
before = set(sys.modules)
{statements}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
with open({report!r}, "w") as file:
    json.dump(sorted(new - sys.stdlib_module_names), file)
"""
HEAVY = {"docker", "requests", "typer", "rich", "numpy", "httpx"}
FILE = str(TINY_DETECTOR / "fp32.run0.tflite")


def packages_imported_by(statements: str, folder: Path) -> set[str]:
    """Run statements in a separate program, which must print nothing."""
    report = folder / "modules.json"
    program = PROGRAM.format(statements=statements, report=str(report))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return set(json.loads(report.read_text()))


def test_importing_the_package_imports_nothing_else(tmp_path: Path) -> None:
    assert packages_imported_by("import runner; runner.errors.RunnerError", tmp_path) == {"runner"}


def test_a_runner_that_was_not_used_imports_little(tmp_path: Path) -> None:
    statements = "from runner import Runner\nwith Runner(): pass"
    assert packages_imported_by(statements, tmp_path).isdisjoint(HEAVY)


def test_looking_at_a_file_needs_no_engine_and_no_command_line(tmp_path: Path) -> None:
    statements = f"""
from runner import Runner
with Runner(engine="docker") as runner:
    runner.inspect({FILE!r})
    runner.verify({FILE!r})
    runner.diff({FILE!r}, {FILE!r})
    runner.normalize({FILE!r}, {str(tmp_path / "normal.tflite")!r})
"""
    assert packages_imported_by(statements, tmp_path).isdisjoint(HEAVY - {"numpy", "httpx"})
