"""`pyproject.toml` names what the program imports, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

import tomli

from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def imported_by(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def distribution_of(module: str) -> str:
    """Return the package that holds a module; `google` is a folder that several packages share."""
    top = module.split(".", maxsplit=1)[0]
    if module.startswith("google_crc32c"):
        return "google-crc32c"
    return re.sub(r"[_.]", "-", packages_distributions()[top][0]).lower()


def test_what_is_imported_is_what_is_named() -> None:
    modules = {name for path in (PROJECT_ROOT / "runner").rglob("*.py") for name in imported_by(path)}
    outside = {name for name in modules if name.split(".")[0] not in sys.stdlib_module_names | {"runner"}}
    project = tomli.loads((PROJECT_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {re.split(r"[<>=; \[]", requirement)[0] for requirement in project["dependencies"]}
    assert {distribution_of(module) for module in outside} == named
