"""What `export-inference-graph` refuses before a toolchain starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.convert.inference_graph import LOG_NAME, PRODUCTS
from runner.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "model.ckpt-400000"


def run(*words: str | Path) -> BaseException | None:
    return (
        CliRunner().invoke(app, ["export-inference-graph", "--engine", "local", *map(str, words)]).exception
    )


def own(model_dir: Path) -> tuple[str | Path, ...]:
    folder = model_dir / "fp32"
    return ("--pipeline-config", folder / "pipeline.config", "--checkpoint", folder / PREFIX)


def test_a_recipe_with_several_variants_needs_one_named(model_dir: Path, tmp_path: Path) -> None:
    problem = run("--model-dir", model_dir, "--out", tmp_path / "out")
    assert isinstance(problem, UsageError)
    assert problem.tip == "name one with --variant: fp32, uint8"


@pytest.mark.parametrize("missing", ["--pipeline-config", "--checkpoint"])
def test_config_and_checkpoint_must_be_given_together(missing: str, model_dir: Path, tmp_path: Path) -> None:
    words = list(own(model_dir))
    at = words.index(missing)
    problem = run(*words[:at], *words[at + 2 :], "--out", tmp_path / "out")
    assert isinstance(problem, UsageError)
    assert "must be given together" in problem.message


def test_a_model_of_ones_own_has_no_variant(model_dir: Path, tmp_path: Path) -> None:
    problem = run(*own(model_dir), "--variant", "fp32", "--out", tmp_path / "out")
    assert isinstance(problem, UsageError)
    assert "cannot be combined with --recipe or --variant" in problem.message


def test_a_refused_variant_is_not_exported(tmp_path: Path) -> None:
    problem = run("--recipe", "spaghettinet_edgetpu_l_2021_10_13", "--out", tmp_path / "out")
    assert isinstance(problem, ConfigError)
    assert "issue 10320" in problem.message


@pytest.mark.parametrize("name", [*PRODUCTS, LOG_NAME])
def test_a_foreign_file_is_not_replaced(name: str, model_dir: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "out" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    problem = run(*own(model_dir), "--out", tmp_path / "out")
    assert isinstance(problem, UsageError)
    assert str(foreign) in problem.message
    assert foreign.read_text() == "mine"


@pytest.mark.parametrize("out", ["/etc/inference", "inside"])
def test_a_folder_that_may_not_be_mounted_is_no_output(out: str, model_dir: Path) -> None:
    folder = model_dir / "fp32" / out
    problem = run(*own(model_dir), "--out", folder)
    assert isinstance(problem, UsageError)
    assert not folder.exists()
