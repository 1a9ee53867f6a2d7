"""A recipe as small as the checkpoint that fits it."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from runner.recipe import Recipe, load_recipe

TINY = Path(__file__).resolve().parents[2] / "data" / "tiny_checkpoint"


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Recipe:
    """A recipe with one variant, whose published checkpoint is the tiny one."""
    data_dir = tmp_path / "recipe" / "fp32"
    data_dir.mkdir(parents=True)
    shutil.copy(TINY / "plain" / "tensors.tsv", data_dir)
    published = load_recipe()
    variant = replace(published.variants["fp32"], data_dir=data_dir)
    return replace(
        published,
        archive_url="http://127.0.0.1:9/tiny_model.tar.gz",
        variants=MappingProxyType({"fp32": variant}),
    )


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model directory with the tiny checkpoint, in the archive's layout."""
    folder = tmp_path / "models" / "tiny_model"
    shutil.copytree(TINY / "plain", folder / "fp32")
    (folder / "fp32" / "tensors.tsv").unlink()
    (folder / "fp32" / "pipeline.config").write_text("model {}\n")
    return folder


@pytest.fixture
def model_archive(model_dir: Path, tmp_path: Path) -> Path:
    """The model directory as the archive a zoo would offer."""
    archive = tmp_path / "offered" / "model.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(model_dir, arcname="tiny_model")
    return archive


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a download shall go; its folder is not there yet."""
    return tmp_path / "new folder" / "model.tar.gz"
