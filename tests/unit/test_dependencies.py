"""`pyproject.toml` names what the program imports, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
from itertools import chain
from typing import TYPE_CHECKING

import tomli

from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


DISTRIBUTIONS = {"PIL": "pillow"}
"""The distributions whose modules have another name."""


def imported_by(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_what_is_imported_is_what_is_named() -> None:
    modules = {name for path in (PROJECT_ROOT / "runner").rglob("*.py") for name in imported_by(path)}
    outside = {name.partition(".")[0] for name in modules} - {*sys.stdlib_module_names, "runner"}
    project = tomli.loads((PROJECT_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    named = {re.split(r"[<>=; \[]", requirement)[0] for requirement in requirements}
    assert {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in outside} == named
