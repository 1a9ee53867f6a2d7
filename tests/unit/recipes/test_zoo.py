"""Peculiarities of the TF1 zoo's models, and how the shipped recipes handle them."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runner.checkpoint.fetch import fetch_model
from runner.cli import app
from runner.recipes.recipe import RECIPES_DIR, InferenceType, load_recipe
from runner.recipes.settings import Nms
from runner.toolchain.digest import toolchain_digest
from runner.toolchain.pins import load_models_pin
from tests.locations import TINY_CHECKPOINT
from tests.unit.fixtures.checkpoint import model_dir  # noqa: F401 - a fixture of the tests here

if TYPE_CHECKING:
    from pathlib import Path

CONCAT = "--change_concat_input_ranges=false"
PIN = load_models_pin()


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync_2018_07_03", "6084"),
        ("ssd_resnet50_v1_fpn_shared_box_predictor_640x640_coco14_sync_2018_07_03", "6084"),
        ("ssd_mobilenet_v2_mnasfpn_shared_box_predictor_320x320_coco_sync_2020_05_18", "8524"),
        ("ssd_mobilenet_v2_oid_v4_2018_12_12", "8148"),
        ("ssdlite_mobilenet_edgetpu_coco_quant", "login"),
    ],
)
def test_a_model_with_complaints_is_planned_with_a_warning(name: str, defect: str, tmp_path: Path) -> None:
    (variant,) = load_recipe(name).variants.values()
    assert any(defect in sentence for sentence in variant.known_defects), variant.known_defects
    model = tmp_path / "model"
    shutil.copytree(TINY_CHECKPOINT / "sharded", model)
    (model / "pipeline.config").write_text("model {}\n")
    words = ["build-all", "--recipe", str(with_shape(name, tmp_path)), "--model-dir", str(model), "--dry-run"]
    words += ["--checkpoint-prefix", "model.ckpt-7", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert defect in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("name", "commits"),
    [
        ("spaghettinet_edgetpu_s_2021_10_13", {PIN.pypi.commit}),
        ("ssd_mobilenet_v2_oid_v4_2018_12_12", {PIN.github.commit, PIN.pypi.commit}),
    ],
)
def test_a_recipe_can_name_its_models_tree(name: str, commits: set[str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(TINY_CHECKPOINT / "sharded", model)
    (model / "pipeline.config").write_text("model {}\n")
    words = ["build-all", "--recipe", str(with_shape(name, tmp_path)), "--model-dir", str(model), "--dry-run"]
    words += ["--checkpoint-prefix", "model.ckpt-7", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (planned,) = json.loads(done.stdout)["conversions"]
    assert set(planned["cache_keys"]) == {toolchain_digest(commit) for commit in commits}


def with_shape(name: str, tmp_path: Path) -> Path:
    """Copy a recipe, and state the shape that the toolchain would read from the config."""
    folder = tmp_path / name
    shutil.copytree(RECIPES_DIR / name, folder)
    file = folder / "recipe.toml"
    text = file.read_text("utf-8")
    if "input_shape" not in text:
        file.write_text(text.replace("inference_type =", "input_shape = [1, 8, 8, 3]\ninference_type =", 1))
    return folder


@pytest.mark.parametrize(
    ("name", "prefixes", "folders"),
    [
        ("ssd_mobilenet_v2_coco_2018_03_29", {"model.ckpt"}, {""}),
        ("ssdlite_mobiledet_cpu_320x320_coco_2020_05_19", {"model.ckpt-400000"}, {""}),
        ("ssdlite_mobiledet_dsp_320x320_coco_2020_05_19", {"model.ckpt-400000"}, {"fp32", "uint8"}),
        ("mobiledet_edgetpu", {"model.ckpt-400000"}, {"fp32", "uint8"}),
    ],
)
def test_prefix_and_folders_are_those_of_the_archive(
    name: str, prefixes: set[str], folders: set[str]
) -> None:
    variants = load_recipe(name).variants.values()
    assert {it.checkpoint_prefix for it in variants} == prefixes
    assert {it.folder for it in variants} == folders


def test_the_folder_in_an_archive_may_have_another_name(
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """For example ssdlite_mobilenet_edgetpu_coco_quant."""
    name = "ssdlite_mobilenet_edgetpu_coco_quant"
    flat = (model_dir / "fp32").rename(tmp_path / "another name")
    for path in sorted(flat.glob("model.ckpt-400000.*")):
        path.rename(path.with_name(path.name.replace("-400000", "")))
    archive = tmp_path / "archive.tar"
    subprocess.run(["tar", "-C", tmp_path, "-cf", archive, flat.name], check=True)
    model = fetch_model(load_recipe(name), source=str(archive))
    assert model.model_dir.name == name
    assert (model.model_dir / "pipeline.config").is_file()


def test_v0_7_has_its_own_flags_and_starts_where_it_did() -> None:
    (uint8,) = load_recipe("mlperf_mobile_v0_7_ssd_mobilenet_v2_uint8").variants.values()
    assert uint8.starts_from == "tflite_graph.pb"
    assert CONCAT in uint8.toco_flags
    assert (uint8.mean_value, uint8.std_value) == (128, 128)
    (float_,) = load_recipe("mlperf_mobile_v0_7_ssd_mobilenet_v2_float").variants.values()
    assert float_.inference_type is InferenceType.FLOAT
    assert (float_.starts_from, float_.settings.nms) == ("checkpoint", Nms.REGULAR)
    assert CONCAT in float_.toco_flags


def test_arms_float_file_is_known_by_sha1_and_size_because_its_sha256_was_misquoted() -> None:
    (variant,) = load_recipe("arm_ml_zoo_ssd_mobilenet_v1_fp32").variants.values()
    published = variant.published
    assert published is not None
    assert published.digests == {"sha1": "5bd511fc17ec7bfe9cd0f51bdec1537b874f52d2"}
    assert published.size_bytes == 27286108


def test_map_on_other_data_sets_is_listed_separately() -> None:
    datasets = {it.dataset for it in load_recipe().variants["fp32"].accuracy}
    assert datasets == {"COCO 2017 val", "COCO 2014 minival"}
