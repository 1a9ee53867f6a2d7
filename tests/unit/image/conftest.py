"""Fixtures of the tests about pins, roads and the build context."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT
from tests.unit.image.small_project import TREE, Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "docker", root / "docker", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT_ROOT / "Dockerfile", root)
    shutil.copy(PROJECT_ROOT / ".dockerignore", root)
    project = Project(
        root=root,
        pin_file=root / "models-research-pin.txt",
        manifest=root / "docker/manifests/small.manifest",
    )
    project.pin(TREE)
    project.point_to()
    return project
