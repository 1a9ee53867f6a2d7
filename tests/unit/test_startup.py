"""Commands import no heavy modules that they do not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIST_IMPORTS = """
import json, sys
from runner.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
HEAVY = {
    *("docker", "rich", "httpx", "requests", "numpy", "ai_edge_litert"),
    "runner.tflite.schema",  # 20 000 lines, and numpy
    "pydantic",  # what later Typers read options with
}


def modules_imported_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS, *arguments], capture_output=True, text=True, check=False
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("build-all", "--help"),
        ("--version",),
        ("build-all", "--timeout-s=9", "--model-dir=none"),
    ],
)
def test_reading_the_command_line_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert modules_imported_by(*arguments).isdisjoint(HEAVY)


@pytest.mark.parametrize("command", [(), ("build-all",), ("convert",), ("recipes",)])
def test_help_does_not_import_the_format_of_recipes(command: tuple[str, ...]) -> None:
    assert "msgspec" not in modules_imported_by(*command, "--help")


def test_help_of_the_program_imports_no_command() -> None:
    imported = {it for it in modules_imported_by("--help") if it.startswith("runner.commands.")}
    assert imported == {"runner.commands.groups"}


def test_taking_a_conversion_from_the_cache_needs_nothing_heavy() -> None:
    modules = "runner.deliver.request, runner.checkpoint.files"
    code = f"import json, sys\nimport {modules}\n"
    code += "print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)).isdisjoint(HEAVY)


def test_reading_a_model_loads_no_runtime() -> None:
    """The schema is a file of a package that loads its native library when it is imported."""
    code = "import sys, runner.tflite.model\n"
    code += "print('ai_edge_litert' in sys.modules, open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")
    assert "libLiteRt" not in done.stdout
