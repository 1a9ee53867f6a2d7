"""The host's checkpoint reader, on full-size checkpoints that the toolchain wrote."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.checkpoint.compare import CheckpointVerdict, check_model
from runner.checkpoint.files import locate_checkpoint
from runner.scripts.run import Script, ScriptOptions, run_step

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Session
    from runner.recipes.recipe import Recipe

pytestmark = pytest.mark.any_engine

COUNTS = {"fp32": 430, "uint8": 832}


def check(model_dir: Path, recipe: Recipe, name: str) -> CheckpointVerdict:
    variant = recipe.variants[name]
    files = locate_checkpoint(model_dir, recipe, variant)
    return check_model(files, variant)


@pytest.mark.parametrize("name", COUNTS)
def test_a_stand_in_has_the_published_variables_and_other_values(
    name: str, stand_in_dir: Path, recipe: Recipe
) -> None:
    verdict = check(stand_in_dir, recipe, name)
    assert verdict.fits
    assert not verdict.is_published
    assert verdict.extra == ()
    assert verdict.matching + len(verdict.differing) == COUNTS[name]
    assert verdict.sentence.startswith(f"not the published weights: of {COUNTS[name]} tensors")


def test_quantization_ranges_of_a_stand_in_are_the_published_ones(stand_in_dir: Path, recipe: Recipe) -> None:
    differing = check(stand_in_dir, recipe, "uint8").differing
    assert not [name for name in differing if re.search(r"_quant/(min|max)$", name)]


def test_a_float_checkpoint_for_uint8_is_told_apart(
    stand_in_dir: Path, recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "uint8").symlink_to(stand_in_dir / "fp32")
    assert len(check(tmp_path, recipe, "uint8").missing) == 402


def test_optimizer_slots_are_counted_and_do_not_matter(
    session: Session, recipe: Recipe, stand_in_dir: Path, workspace: Path
) -> None:
    model_dir = workspace / "with slots"
    argv = [str(session.toolchain_dir / "steps" / "stand_in.py"), "--recipe-dir", str(recipe.data_dir)]
    argv += ["--variant", "fp32", "--output", str(model_dir), "--optimizer-slots"]
    made = run_step(
        session,
        Script(
            name="stand_in.py",
            argv=tuple(argv),
            log_name="slots.log",
            options=replace(ScriptOptions(log_dir=workspace), label="fp32"),
        ),
    )
    verdict = check(model_dir, recipe, "fp32")
    assert verdict.fits
    assert len(verdict.extra) == made["optimizer_slots"] > 200
    assert verdict.differing == check(stand_in_dir, recipe, "fp32").differing
    assert f"optimizer slots: {len(verdict.extra)}" in verdict.sentence
