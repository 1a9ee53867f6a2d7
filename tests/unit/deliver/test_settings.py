"""Each setting reaches every part of the program; a field that one part lacks fails here."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.convert.model_facts import stated_facts
from runner.convert.plan import checkpoint_inputs, plan_conversion
from runner.evidence.provenance.read import read_provenance
from runner.evidence.provenance.write import write_provenance
from runner.host.digests import sha256_of
from runner.proof.explain import explain
from runner.recipes.settings import (
    USES,
    Export,
    Nms,
    Settings,
    as_text,
    command_line,
    option_name,
    to_json,
)
from runner.tflite.model import read_model
from runner.tflite.structure import structure_problems
from runner.tflite.summary import summarise
from tests.altered import with_other_options
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Toolchain
    from runner.recipes.recipe import Recipe
    from tests.unit.fixtures.conversion import Convert

# Another value than the recipe's for each setting, and how the command line says it.
OTHERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "score_threshold": (0.25, ("--score-threshold", "0.25")),
    "nms_iou_threshold": (0.45, ("--nms-iou-threshold", "0.45")),
    "nms": (Nms.FAST, ("--nms", "fast")),
    "max_detections": (25, ("--max-detections", "25")),
    "export": (Export.TEMPLATE, ("--export", "template")),
    "keep_pbtxt": (True, ("--keep-pbtxt",)),
    "check": (False, ("--no-check",)),
}
NAMES = [it.name for it in fields(Settings)]


def changed(recipe: Recipe, name: str) -> Settings:
    return replace(recipe.variants["fp32"].settings, **{name: OTHERS[name][0]})


def test_every_setting_is_tried_here() -> None:
    assert sorted(OTHERS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_option_and_in_the_dry_run_and_in_the_cache_key(
    name: str,
    tiny_recipe: Recipe,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runner.recipes.recipe.load_recipe", lambda *_: tiny_recipe)

    def dry_run(*options: str) -> Any:  # noqa: ANN401 - JSON
        arguments = [
            "fp32",
            "--dry-run",
            "--json",
            "--model-dir",
            str(model_dir),
            "--out",
            str(tmp_path / "o"),
        ]
        result = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
        return json.loads(result.stdout)["conversions"][0]

    plain, other = dry_run(), dry_run(*OTHERS[name][1])
    assert other["settings"] == to_json(changed(tiny_recipe, name)) != plain["settings"]
    assert set(other["cache_keys"].values()).isdisjoint(plain["cache_keys"].values())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_in_the_provenance_and_in_the_command_that_explain_prints(
    name: str, convert: Convert, toolchain: Toolchain, tiny_recipe: Recipe
) -> None:
    conversion = convert("one")
    settings = changed(tiny_recipe, name)
    conversion = replace(conversion, plan=replace(conversion.plan, settings=settings))
    write_provenance(conversion, toolchain)
    path = conversion.folder / "provenance.json"
    assert read_provenance(path).request.settings == settings
    command = explain(path).commands[0].text
    assert command.endswith(" ".join(OTHERS[name][1]))


@pytest.mark.parametrize("name", NAMES)
def test_it_reaches_the_scripts_or_the_products_or_the_check(
    name: str, tiny_recipe: Recipe, model_dir: Path
) -> None:
    from runner.checkpoint.files import locate_checkpoint

    variant = tiny_recipe.variants["fp32"]
    facts = stated_facts(variant)
    assert facts is not None
    files = locate_checkpoint(model_dir, tiny_recipe, variant)
    checkpoint = checkpoint_inputs(files, model_dir, variant, sha256_of)
    settings, use = changed(tiny_recipe, name), USES[name]
    plan = plan_conversion(tiny_recipe, variant, checkpoint, facts, settings, speedups=())
    value = getattr(settings, name)
    encoded = use.encode(value) if use.encode else value
    if use.config_field is not None:
        assert f"{use.config_field}={as_text(encoded)}" in plan.commands.config
    elif use.export_flag is not None:
        assert f"--{use.export_flag}={as_text(encoded)}" in plan.commands.export
    else:  # what makes no other .tflite
        assert name in {"export", "keep_pbtxt", "check"}
        assert not use.changes_file


@pytest.mark.parametrize("name", [name for name in NAMES if USES[name].operator_option])
def test_verify_expects_it_of_the_detection_operator(name: str, tiny_recipe: Recipe) -> None:
    use = USES[name]
    content = (TINY_DETECTOR / "fp32.run0.tflite").read_bytes()
    value = OTHERS[name][0]
    encoded = use.encode(value) if use.encode else value
    assert use.operator_option is not None
    altered = summarise(read_model(with_other_options(content, {use.operator_option: encoded})))

    def named(recipe: Recipe) -> set[str]:
        return {problem.what for problem in structure_problems(altered, recipe, recipe.variants["fp32"])}

    what = f"post-processing option {use.operator_option}"
    assert what in named(tiny_recipe)
    assert what not in named(tiny_recipe.with_variants(settings=changed(tiny_recipe, name)))


def test_the_commands_options_are_named_after_the_settings() -> None:
    printed = CliRunner().invoke(app, ["build-all", "--help"]).stdout
    assert [name for name in NAMES if f"--{option_name(name)}" not in printed] == []


def test_settings_as_the_recipes_need_no_option(tiny_recipe: Recipe) -> None:
    settings = tiny_recipe.variants["fp32"].settings
    assert command_line(settings, settings) == []
