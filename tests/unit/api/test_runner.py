"""What the methods of `Runner` that need no toolchain return and raise."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import runner
from runner import Runner
from runner.api.runner import _choices
from runner.errors import ConfigError, IntegrityError, UsageError
from runner.evidence.provenance.verify import ClaimState
from runner.recipes.recipe import load_recipe
from runner.recipes.settings import Nms, Settings
from runner.tflite.diff import Kind, Verdict
from tests.locations import DATA, TINY_DETECTOR, TINY_GRAPH

if TYPE_CHECKING:
    from pathlib import Path

FILE = TINY_DETECTOR / "fp32.run0.tflite"
OTHER_ORDER = TINY_DETECTOR / "fp32.run1.tflite"
OTHER_CONVERTER = TINY_DETECTOR / "fp32.tf2.1.tflite"


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="Runer"):
        runner.Runer  # type: ignore[attr-defined]  # noqa: B018


def test_an_unknown_engine_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="podman"):
        Runner(engine="podman")


def test_verify_reports_a_file_that_is_not_the_published_one() -> None:
    found = Runner().verify(FILE)
    assert not found.verdict.is_same_content


def test_verify_against_a_file_of_another_run() -> None:
    assert Runner().verify(str(FILE), against=OTHER_ORDER).verdict is Verdict.OTHER_KEY_ORDER


def test_verify_refuses_a_variant_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="fp16"):
        Runner().verify(FILE, variant="fp16")


def test_diff_compares_content() -> None:
    assert Runner().diff(FILE, OTHER_ORDER).means_the_same
    assert {it.kind for it in Runner().diff(FILE, OTHER_CONVERTER).differences} >= {Kind.METADATA}


def test_diff_refuses_files_of_different_kinds() -> None:
    with pytest.raises(UsageError, match="different kinds"):
        Runner().diff(FILE, TINY_GRAPH / "one.pb")


def test_inspect_refuses_what_is_no_tflite() -> None:
    with pytest.raises(IntegrityError):
        Runner().inspect(TINY_GRAPH / "one.pb")


def test_normalize_gives_the_same_file_for_every_run(tmp_path: Path) -> None:
    targets = [tmp_path / "one.tflite", tmp_path / "other.tflite"]
    for source, target in zip((FILE, OTHER_ORDER), targets, strict=True):
        Runner().normalize(source, target)
    assert targets[0].read_bytes() == targets[1].read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        Runner().normalize(FILE, targets[0])


def test_a_provenance_is_verified() -> None:
    report = Runner().verify_provenance(DATA / "old_provenance" / "fp32.json", file=FILE)
    assert ClaimState.DIFFERENT in {finding.state for finding in report.findings}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"variants": ["fp16"]}, "no variant 'fp16'"),
        (
            {"settings": replace(Runner().settings("fp32"), score_threshold=3.0)},
            "score_threshold = 3.0 is out of",
        ),
        ({"settings": replace(Runner().settings("fp32"), max_detections=0)}, "max_detections = 0 is out of"),
    ],
)
def test_convert_refuses_what_is_not_valid(tmp_path: Path, arguments: Any, complaint: str) -> None:  # noqa: ANN401
    with pytest.raises(UsageError, match=complaint):
        Runner().convert(model_dir=tmp_path, out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_convert_takes_one_variant_by_its_name(tmp_path: Path) -> None:
    shutil.copytree(DATA / "tiny_checkpoint" / "plain", tmp_path / "model" / "fp32")
    (tmp_path / "model" / "fp32" / "pipeline.config").write_text("model {}\n")
    with pytest.raises(ConfigError, match="fp32"):  # it is another model
        Runner().convert(model_dir=tmp_path / "model", out=tmp_path / "out", variants="fp32")


FLAT = """
title = "Two kinds"

[variants.slow]
inference_type = "FLOAT"
input_shape = [1, 8, 8, 3]
checkpoint_prefix = "model.ckpt-400000"

[variants.slow.settings]
max_detections = 20

[variants.fast]
inference_type = "FLOAT"
input_shape = [1, 8, 8, 3]

[variants.fast.settings]
nms = "fast"
score_threshold = 0.5
"""


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "recipe.toml").write_text(FLAT)
    return tmp_path / "flat"


def test_settings_are_those_of_a_recipes_variant(flat: Path) -> None:
    assert Runner().settings("slow", recipe=flat) == Settings(max_detections=20)
    assert Runner().settings("fast", recipe=str(flat)) == Settings(nms=Nms.FAST, score_threshold=0.5)
    assert Runner().settings("uint8").score_threshold == 0.3
    with pytest.raises(UsageError, match="flat has no variant 'fp32'"):
        Runner().settings("fp32", recipe=flat)


def test_only_settings_that_are_not_the_recipes_count_as_chosen(flat: Path) -> None:
    recipe = load_recipe(flat)
    slow = Runner().settings("slow", recipe=flat)
    assert _choices(slow, recipe, ("slow",)) == {}
    assert _choices(replace(slow, max_detections=3), recipe, ("slow",)) == {"max_detections": 3}
    assert _choices(slow, recipe, ("slow", "fast")).keys() == {"score_threshold", "nms", "max_detections"}


def test_convert_takes_a_recipe_by_its_folder_or_name(flat: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="flat has no variant 'fp32'"):
        Runner().convert(model_dir=tmp_path, out=tmp_path / "out", recipe=flat, variants="fp32")
    refused = "ssd_mobilenet_v1_quantized_300x300_coco14_sync_2018_07_03"
    with pytest.raises(ConfigError, match="cannot be converted"):
        Runner().convert(model_dir=tmp_path, out=tmp_path / "out", recipe=refused)


def test_verify_compares_with_the_recipe_that_is_named() -> None:
    found = Runner().verify(FILE, recipe="mlperf_mobile_v0_7_ssd_mobilenet_v2_float")
    assert "ssd_mobilenet_v2_300_float.tflite" in found.wanted


def test_prove_needs_a_recipe_with_a_published_graph() -> None:
    with pytest.raises(ConfigError, match="nothing to prove"):
        Runner(engine="local").prove(recipe="ssd_mobilenet_v2_coco_2018_03_29")


def test_check_takes_its_recipe_and_knows_files_of_convert(own_delivered: Path, flat: Path) -> None:
    with pytest.raises(UsageError, match="flat has no variant 'mine'"):
        Runner(engine="local").check(FILE, recipe=flat, variant="mine")
    (own_delivered / "tflite_graph.pb").unlink()
    with pytest.raises(UsageError, match=r"cannot read .*own/mine/tflite_graph"):
        Runner(engine="local").check(own_delivered)
