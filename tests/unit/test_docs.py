"""Links in the documents lead to existing files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = sorted([*PROJECT_ROOT.glob("*.md"), *PROJECT_ROOT.glob("docs/*.md")])
ARCHITECTURE = PROJECT_ROOT / "docs/architecture.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", document.read_text("utf-8"))
    missing = [target for target, _ in targets if not (document.parent / target).exists()]
    assert missing == []


def test_the_architecture_lists_the_layers_of_the_contract_and_they_are_all_there_is() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    listing = text[text.index("    runner/ ") : text.index("    tests/unit/")].splitlines()[1:]
    # Two names on one line, or one with a slash; a description follows after more than one blank.
    listed = [
        name.rstrip("/") for line in listing for name in re.split(r" {3,}", line.strip())[0].split("  ")
    ]
    contract = (PROJECT_ROOT / "pyproject.toml").read_text("utf-8")
    layers = re.findall(r'^    "(\w+)",$', contract[contract.index("layers = [") :], flags=re.MULTILINE)
    assert listed == layers
    parts = (path for path in (PROJECT_ROOT / "runner").iterdir() if path.is_dir() or path.suffix == ".py")
    there = {path.stem for path in parts} - {"__init__", "__pycache__"}
    assert set(listed) == there
