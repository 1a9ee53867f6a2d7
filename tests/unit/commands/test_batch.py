"""`batch --evaluate`: what it needs is checked before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import UsageError
from runner.evaluation.samples import write_samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A folder that looks like a training run."""
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "pipeline.config").touch()
    (folder / "model.ckpt-1.index").touch()
    return folder


def refusal(run_folder: Path, *arguments: str | Path) -> UsageError:
    out = run_folder.parent / "out"
    result = CliRunner().invoke(app, ["batch", str(run_folder), "--out", str(out), *map(str, arguments)])
    assert isinstance(result.exception, UsageError), result.exception
    assert not out.exists()
    return result.exception


def test_evaluate_needs_annotations_and_images(run_folder: Path) -> None:
    assert "--evaluate needs --annotations and --images" in refusal(run_folder, "--evaluate").message
    alone = refusal(run_folder, "--evaluate", "--images", run_folder)
    assert "--evaluate needs" in alone.message


def test_its_options_need_evaluate(run_folder: Path) -> None:
    assert "need --evaluate" in refusal(run_folder, "--limit", "3").message


def test_a_wrong_set_is_refused_before_anything_starts(run_folder: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "set", count=2, seed=0)
    (tmp_path / "set/images/000002.png").unlink()
    labelled = ("--annotations", tmp_path / "set/annotations.json", "--images", tmp_path / "set/images")
    problem = refusal(run_folder, "--evaluate", *labelled)
    assert "images[1] (id 2): there is no image" in problem.message
