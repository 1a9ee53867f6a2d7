"""The commands about recipes, and `--recipe` of the commands that convert."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.convert.model_facts import ModelFacts
from runner.convert.new_recipe import find_models, recipe_text, write_recipe
from runner.errors import ConfigError, UsageError
from runner.recipes.recipe import RECIPES_DIR, load_recipe, recipe_names
from runner.recipes.status import evidence_of

if TYPE_CHECKING:
    from pathlib import Path

    from runner.recipes.recipe import Variant
    from runner.recipes.status import Evidence

FLAT = """
title = "A flat one"

[variants.quant]
inference_type = "QUANTIZED_UINT8"
input_shape = [1, 300, 300, 3]
checkpoint_prefix = "model.ckpt-400000"
mean_value = 128
std_value = 128
toco_flags = ["--change_concat_input_ranges=false"]
"""


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """The folder of a recipe with one variant, whose archive is flat."""
    folder = tmp_path / "flat"
    folder.mkdir()
    (folder / "recipe.toml").write_text(FLAT)
    return folder


def test_list_names_every_recipe_and_variant() -> None:
    rows = json.loads(CliRunner().invoke(app, ["recipes", "list", "--json"]).stdout)
    assert {row["recipe"] for row in rows} == set(recipe_names())
    printed = CliRunner().invoke(app, ["recipes", "list"]).stdout
    assert len(printed.splitlines()) == len(rows)
    assert "mobiledet_edgetpu" in printed


def test_show_prints_the_commands_in_both_dialects(flat: Path) -> None:
    printed = CliRunner().invoke(app, ["recipes", "show", str(flat)]).stdout
    assert "A flat one" in printed
    assert '"--trained_checkpoint_prefix=${TF_MODEL_DIR}/model.ckpt-400000"' in printed
    assert "--std_values=128" in printed
    assert "--change_concat_input_ranges=false" in printed


def test_show_of_the_published_recipe_has_the_published_flags() -> None:
    shown = json.loads(CliRunner().invoke(app, ["recipes", "show", "mobiledet_edgetpu", "--json"]).stdout)
    commands = shown["variants"]["uint8"]["commands"]
    assert "--input_shapes=1,320,320,3" in commands["toco"]
    assert "--change_concat_input_ranges=TRUE" in commands["tflite_convert"]


def test_show_has_the_published_accuracy_and_its_source() -> None:
    printed = CliRunner().invoke(app, ["recipes", "show", "mobiledet_edgetpu"]).stdout
    for value in (
        "mAP 0.285 on COCO 2017 val",
        "mAP 0.278 on COCO 2017 val",
        "mAP 0.259 on COCO 2014 minival",
    ):
        assert value in printed
    assert printed.count("the evaluator is not named") == 2


def test_show_has_every_address_of_the_archive(flat: Path) -> None:
    with (flat / "recipe.toml").open("a") as file:
        file.write('[archive]\nurls = ["https://example.org/a.tar.gz", "https://example.net/a.tar.gz"]\n')
    printed = CliRunner().invoke(app, ["recipes", "show", str(flat)]).stdout
    assert "archive: https://example.org/a.tar.gz\narchive: https://example.net/a.tar.gz\n" in printed


def test_list_reads_each_evidence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(variant: Variant) -> Evidence | None:
        read.append(variant.data_dir or RECIPES_DIR)
        return evidence_of(variant)

    monkeypatch.setattr("runner.recipes.status.evidence_of", counted)
    CliRunner().invoke(app, ["recipes", "list"], catch_exceptions=False)
    assert read
    assert len(read) == len(set(read))


def test_an_unknown_recipe_names_those_that_are_there() -> None:
    done = CliRunner().invoke(app, ["recipes", "show", "nothing"])
    assert isinstance(done.exception, ConfigError)
    assert "mobiledet_edgetpu" in str(done.exception.tip)


@pytest.mark.parametrize("command", ["build-all", "uint8"])
def test_a_recipe_with_one_flat_variant_is_planned(command: str, flat: Path, model_dir: Path) -> None:
    out = str(model_dir.parent / "out")
    words = [command, "--recipe", str(flat), "--model-dir", str(model_dir / "fp32"), "--out", out]
    done = CliRunner().invoke(app, [*words, "--dry-run", "--json"], catch_exceptions=False)
    (conversion,) = json.loads(done.stdout)["conversions"]
    assert conversion["variant"] == "quant"
    assert conversion["commands"]["toco"][-1] == "--change_concat_input_ranges=false"
    assert "quant/model.tflite" in conversion["products"]


FLOAT = ModelFacts(is_quantized=False, input_shape=(1, 96, 64, 3))
QUANTIZED = ModelFacts(is_quantized=True, input_shape=(1, 300, 300, 3))


def test_a_first_recipe_is_a_valid_one_for_each_model_found(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir / "fp32", model_dir / "uint8")
    float_model, quantized_model = find_models(model_dir)
    models = ((float_model, FLOAT), (quantized_model, QUANTIZED))
    write_recipe(tmp_path / "first", recipe_text("Mine", models, url="https://example.org/m.tar.gz"))
    recipe = load_recipe(tmp_path / "first")
    assert recipe.archive is not None
    assert {it.folder for it in recipe.variants.values()} == {"fp32", "uint8"}
    quantized = recipe.variants["uint8"]
    assert (quantized.input_shape, quantized.mean_value) == ((1, 300, 300, 3), 128)
    assert quantized.toco_flags == ("--change_concat_input_ranges=false",)
    assert quantized.checkpoint_prefix == "model.ckpt-400000"
    with pytest.raises(UsageError, match="already exists"):
        write_recipe(tmp_path / "first", "")


def test_a_flat_folder_has_one_model_and_an_empty_one_is_refused(model_dir: Path, tmp_path: Path) -> None:
    (model,) = find_models(model_dir / "fp32")
    assert (model.folder, model.checkpoint_prefix) == ("", "model.ckpt-400000")
    with pytest.raises(ConfigError, match=r"there is no pipeline\.config"):
        find_models(tmp_path)


def test_new_wants_one_source(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["recipes", "new", str(tmp_path / "it")])
    assert isinstance(done.exception, UsageError)
    missing = ["--archive", str(tmp_path / "none.tar")]
    done = CliRunner().invoke(app, ["recipes", "new", str(tmp_path / "it"), *missing])
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "it").exists()


def test_a_kind_that_a_recipe_lacks_is_named(flat: Path, model_dir: Path) -> None:
    words = ["fp32", "--recipe", str(flat), "--model-dir", str(model_dir / "fp32"), "--dry-run"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UsageError)
    assert "flat has no float variant" in done.exception.message
