"""The format of recipe.toml: what is read, and how an error names its place in the file."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from runner.errors import ConfigError
from runner.recipes.recipe import (
    DEFAULT_RECIPE,
    RECIPES_DIR,
    Dialect,
    InferenceType,
    load_recipe,
    recipe_names,
)
from runner.recipes.recipe_file import SCHEMA_FILE, json_schema, read_recipe_file
from runner.recipes.settings import USES, Nms, Settings

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """
title = "Mine"

[variants.float]
inference_type = "FLOAT"
"""
QUANTIZED = """
title = "Mine"

[archive]
url = "https://example.org/mine.tar.gz"

[variants.quant]
inference_type = "QUANTIZED_UINT8"
input_shape = [1, 300, 300, 3]
folder = "inner/quant"
checkpoint_prefix = "model.ckpt-7"
mean_value = 128
std_value = 128
config_remove = ["model.ssd.feature_extractor.batch_norm_trainable"]
export_flags = ["--detections_per_class=50"]
toco_flags = ["--change_concat_input_ranges=false"]
known_defects = ["It is slow."]
file_name = "mine.tflite"

[variants.quant.settings]
nms = "fast"
nms_iou_threshold = 0.6
max_detections = 20

[variants.quant.config_set]
"model.ssd.num_classes" = 3
"model.ssd.feature_extractor.type" = "ssd_mobilenet_v1"

[variants.quant.published]
sha1 = "1f9c945db9e32c33e5b91539f756a8fbef636405"
size_bytes = 6898880

[[variants.quant.accuracy]]
metric = "mAP"
value = 0.18
dataset = "COCO14 minival"
source = "the zoo's page"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    return made


def refusal(folder: Path, text: str) -> str:
    """Return message and tip of the error that a recipe.toml gives, without the path of the file."""
    (folder / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError) as problem:
        read_recipe_file(folder)
    assert problem.value.message.startswith(str(folder / "recipe.toml"))
    return f"{problem.value.message} | {problem.value.tip}".replace(f"{folder / 'recipe.toml'}: ", "")


def test_the_smallest_recipe_has_all_defaults(folder: Path) -> None:
    (folder / "recipe.toml").write_text(SMALLEST)
    recipe = read_recipe_file(folder)
    (variant,) = recipe.variants.values()
    assert (recipe.name, recipe.title, recipe.archive, recipe.structure) == ("mine", "Mine", None, None)
    assert (variant.folder, variant.checkpoint_prefix, variant.input_shape) == ("", "model.ckpt", None)
    assert (variant.settings, variant.published, variant.tensor_table) == (Settings(), None, None)


def test_every_key_arrives(folder: Path) -> None:
    (folder / "recipe.toml").write_text(QUANTIZED)
    variant = read_recipe_file(folder).variants["quant"]
    assert variant.inference_type is InferenceType.QUANTIZED_UINT8
    assert variant.settings == Settings(nms=Nms.FAST, nms_iou_threshold=0.6, max_detections=20)
    assert variant.config_set["model.ssd.num_classes"] == 3
    assert variant.published is not None
    assert variant.published.size_bytes == 6898880
    assert variant.accuracy[0].value == 0.18
    given = tomli.loads(QUANTIZED)["variants"]["quant"]
    for key in given.keys() - {"inference_type", "settings", "published", "accuracy"}:
        value = getattr(variant, key)
        assert (list(value) if isinstance(value, tuple) else value) == given[key], key


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "Mine"', 'titel = "Mine"', "$.titel: there is no such key | did you mean title?"),
        ("mean_value", "mean_vale", ".mean_vale: there is no such key | did you mean mean_value?"),
        ('nms = "fast"', 'nmz = "fast"', "$.variants.quant.settings.nmz: there is no such key"),
        ("metric", "metrik", "$.variants.quant.accuracy[0].metrik: there is no such key"),
        ('title = "Mine"', "", "$.title: this key is missing"),
        ('inference_type = "QUANTIZED_UINT8"', "", "$.variants.quant.inference_type: this key is missing"),
        ('url = "https', 'xurl = "https', "$.archive.xurl: there is no such key | did you mean url?"),
        ('title = "Mine"', "title = 3", "$.title: expected `str`, got `int`"),
        ("mean_value = 128", 'mean_value = "128"', "$.variants.quant.mean_value: expected `float"),
        ("[1, 300, 300, 3]", "[1, 300, 300]", "$.variants.quant.input_shape: expected `array` of length 4"),
        ('nms = "fast"', 'nms = "quick"', "$.variants.quant.settings.nms: invalid enum value 'quick'"),
        ("threshold = 0.6", "threshold = 1.6", ".settings.nms_iou_threshold: expected `float` <= 1.0"),
        ('"1f9c945d', '"1f9c', "$.variants.quant.published.sha1: expected `str` matching regex"),
        ('"inner/quant"', '"../quant"', "$.variants.quant.folder: expected `str` matching regex"),
        ('"mine.tflite"', '"a/b.tflite"', "$.variants.quant.file_name: expected `str` matching regex"),
        ("std_value = 128", "", "$.variants.quant: a quantized variant needs mean_value and std_value"),
        ("size_bytes = 6898880", "", None),
        ('sha1 = "1f9c945db9e32c33e5b91539f756a8fbef636405"', "", ".published: at least one digest"),
        ("[archive]", "[archive", "is not valid TOML"),
    ],
)  # fmt: skip
def test_an_error_names_its_place(folder: Path, old: str, new: str, said: str | None) -> None:
    assert QUANTIZED.count(old) == 1
    text = QUANTIZED.replace(old, new)
    if said is None:
        (folder / "recipe.toml").write_text(text)
        read_recipe_file(folder)
    else:
        assert said in refusal(folder, text)


def test_the_recipes_of_others_name_toolchain_and_dialect() -> None:
    others = [name for name in recipe_names() if name.startswith(("arm_", "mlperf_mobile_v0_7"))]
    variants = [(name, it) for name in others for it in load_recipe(name).variants.values()]
    assert len(variants) == 4
    for name, variant in variants:
        assert variant.toolchain == ("tf1.15" if name.startswith("arm_") else "tf2.3")
        assert variant.dialect is Dialect.TFLITE_CONVERT


def test_two_variants_with_one_copy_are_refused(folder: Path) -> None:
    one = '\n[variants.{}]\ninference_type = "FLOAT"\ncopy_name = "it.tflite"\n'
    said = refusal(folder, 'title = "Two"' + one.format("a") + one.format("b"))
    assert "$.variants.a.copy_name: another variant" in said
    assert "it.tflite" in said


def test_a_missing_excerpt_is_named(folder: Path) -> None:
    text = f"""
{SMALLEST}
[[graph_differences]]
models_commit = "{"0" * 40}"
excerpt = "excerpt.pbtxt"
difference = "some nodes"
"""
    assert "$.graph_differences[0].excerpt: there is no file excerpt.pbtxt" in refusal(folder, text)


def test_a_missing_table_of_a_variants_folder_is_named(folder: Path) -> None:
    (folder / "float").mkdir()
    assert "tensors.tsv is missing" in refusal(folder, SMALLEST)
    (folder / "float" / "stand_in.toml").touch()  # evidence of a checkpoint that was made from the table
    assert "tensors.tsv is missing" in refusal(folder, SMALLEST)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_recipe_is_loaded_from_its_folder(folder: Path, as_file: bool) -> None:
    (folder / "recipe.toml").write_text(SMALLEST)
    assert load_recipe(str(folder / "recipe.toml" if as_file else folder)).title == "Mine"


def test_what_is_no_recipe_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recipe 'mobiledet'") as problem:
        load_recipe("mobiledet")
    assert DEFAULT_RECIPE in str(problem.value.tip)
    with pytest.raises(ConfigError, match=r"is not a recipe: it has no recipe\.toml"):
        load_recipe(folder)


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe(name).name == name


def test_a_folder_of_the_same_name_does_not_hide_a_shipped_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(RECIPES_DIR / DEFAULT_RECIPE, tmp_path / DEFAULT_RECIPE)
    monkeypatch.chdir(tmp_path)
    assert load_recipe(DEFAULT_RECIPE).data_dir == RECIPES_DIR / DEFAULT_RECIPE


def test_the_schema_that_ships_is_that_of_the_types() -> None:
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == json.loads(json.dumps(json_schema()))


def test_the_schema_has_the_settings_with_their_bounds() -> None:
    properties: dict[str, Any] = json_schema()["$defs"]["SettingsTable"]["properties"]
    assert sorted(properties) == sorted(name for name, use in USES.items() if use.changes_file)
    threshold = properties["score_threshold"]
    assert (threshold["minimum"], threshold["maximum"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("keys", "urls"),
    [
        ('url = "http://a/x.tar.gz"', ("http://a/x.tar.gz",)),
        ('urls = ["http://a/x.tar.gz", "http://b/y"]', ("http://a/x.tar.gz", "http://b/y")),
        ('url = "http://a/x.tar.gz"\nurls = ["http://b/y"]', ("http://a/x.tar.gz", "http://b/y")),
    ],
)
def test_an_archive_has_one_address_or_several(keys: str, urls: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(f"{SMALLEST}\n[archive]\n{keys}\n")
    archive = read_recipe_file(tmp_path).archive
    assert archive is not None
    assert archive.urls == urls


def test_an_archive_without_an_address_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(f"{SMALLEST}\n[archive]\nsize_bytes = 3\n")
    with pytest.raises(ConfigError, match=r"\$\.archive: url or urls is needed"):
        read_recipe_file(tmp_path)


def test_a_recipe_that_ships_its_checkpoints_needs_no_table_of_them(folder: Path) -> None:
    (folder / "float").mkdir()
    assert "float/tensors.tsv is missing" in refusal(folder, SMALLEST)
    (folder / "recipe.toml").write_text('ships_checkpoint = true\nlabels = ["a", "b"]\n' + SMALLEST)
    recipe = read_recipe_file(folder)
    assert recipe.ships_checkpoint
    assert recipe.labels == ("a", "b")
