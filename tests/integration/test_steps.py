"""The toolchain's steps, run by the engine as in a conversion."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.locations import DATA

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine
    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Answer, Steps

pytestmark = pytest.mark.any_engine

PREFIX = "model.ckpt-400000"
THRESHOLD = "model.ssd.post_processing.batch_non_max_suppression.score_threshold"


@pytest.fixture
def fp32_config(stand_in_dir: Path) -> str:
    return (stand_in_dir / "fp32" / "pipeline.config").read_text()


@pytest.fixture
def uint8_config(stand_in_dir: Path) -> str:
    return (stand_in_dir / "uint8" / "pipeline.config").read_text()


def test_edited_copy_differs_in_the_threshold_only(steps: Steps, fp32_config: str) -> None:
    answer = steps.check_config(fp32_config, "--set", f"{THRESHOLD}=0.3", "--quantized", "false")
    assert answer.value["changes"] == [{"field": THRESHOLD, "from": 1e-8, "to": 0.3}]
    copy = (steps.folder / "copy.config").read_text()
    assert copy == fp32_config.replace("score_threshold: 1e-08", "score_threshold: 0.3")
    assert (steps.folder / "asked.config").read_text() == fp32_config


POST_PROCESSING = "model.ssd.post_processing"


@pytest.mark.parametrize(
    ("field", "value", "before", "after"),
    [
        (f"{POST_PROCESSING}.batch_non_max_suppression.iou_threshold", "0.55", 0.6, 0.55),
        (f"{POST_PROCESSING}.batch_non_max_suppression.max_detections_per_class", "7", 100, 7),
        (f"{POST_PROCESSING}.batch_non_max_suppression.use_static_shapes", "false", True, False),
        (f"{POST_PROCESSING}.score_converter", "SOFTMAX", "SIGMOID", "SOFTMAX"),
        ("model.ssd.feature_extractor.type", "ssd_mobilenet_v2", "ssd_mobiledet_edgetpu", "ssd_mobilenet_v2"),
    ],
)
def test_any_field_of_one_value_can_be_set(
    steps: Steps, fp32_config: str, field: str, value: str, before: object, after: object
) -> None:
    answer = steps.check_config(fp32_config, "--set", f"{field}={value}")
    assert answer.value["changes"] == [{"field": field, "from": before, "to": after}]


def test_setting_what_is_there_is_no_change(steps: Steps, fp32_config: str) -> None:
    assert steps.check_config(fp32_config, "--set", f"{THRESHOLD}=1e-08").value["changes"] == []


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("model.ssd.no_such=1", "Ssd has no field 'no_such'"),
        ("model.sdd.num_classes=1", "DetectionModel has no field 'sdd'"),
        ("model.ssd=1", "has no field 'ssd'"),
        ("model.ssd.num_classes.more=1", "has no field 'num_classes'"),
        ("train_config.data_augmentation_options.x=1", "has no field 'data_augmentation_options'"),
        ("model.ssd.num_classes=many", "'many' is not a valid value of model.ssd.num_classes"),
        (f"{POST_PROCESSING}.score_converter=SIGMOIDAL", "'SIGMOIDAL' is not a valid value"),
        ("model.ssd.num_classes", "'' is not a valid value"),
    ],
)
def test_an_invalid_field_or_value_is_named(steps: Steps, fp32_config: str, edit: str, words: str) -> None:
    assert words in steps.check_config(fp32_config, "--set", edit).refusal


def test_without_output_the_config_is_described_and_nothing_is_written(
    steps: Steps, fp32_config: str
) -> None:
    config = steps.folder / "only-read.config"
    config.write_text(fp32_config)
    before = sorted(steps.folder.iterdir())
    answer = steps.run("pipeline_config.py", "--input", config)
    assert (answer.value["output"], answer.value["input_height"]) == (None, 320)
    assert sorted(steps.folder.iterdir()) == before


def test_config_is_described(steps: Steps, uint8_config: str) -> None:
    value = steps.check_config(uint8_config, "--quantized", "true").value
    assert value["changes"] == []
    assert value["feature_extractor"] == "ssd_mobiledet_edgetpu"
    assert (value["input_height"], value["input_width"], value["input_channels"]) == (320, 320, 3)
    assert (value["num_classes"], value["is_quantized"], value["quantization_delay"]) == (90, True, 10000)


def test_withdrawn_field_is_left_out_and_recorded(steps: Steps, fp32_config: str) -> None:
    asked = fp32_config.replace("min_depth: 16", "min_depth: 16\n      batch_norm_trainable: true", 1)
    (change,) = steps.check_config(asked).value["changes"]
    assert change["field"] == "SsdFeatureExtractor.batch_norm_trainable"
    assert (steps.folder / "copy.config").read_text() == fp32_config


UNKNOWN = "model.ssd.feature_extractor.of_tomorrow"


@pytest.fixture
def strange_config(fp32_config: str) -> str:
    """A config with two fields that no detection API has."""
    block = "of_tomorrow { a: 'x }' b: 1 } # }"
    assert "model {\n" in fp32_config
    return fp32_config.replace("min_depth: 16", f"min_depth: 16 {block}\n", 1) + "by_nobody: [1, 2]\n"


def test_unknown_fields_are_dropped_on_request_and_recorded(
    steps: Steps, strange_config: str, fp32_config: str
) -> None:
    first, second = steps.check_config(strange_config, "--drop-unknown-fields").value["changes"]
    assert first["field"] == "SsdFeatureExtractor.of_tomorrow"
    assert second["field"] == "TrainEvalPipelineConfig.by_nobody"
    assert second["from"] == f"line {len(strange_config.splitlines())}"
    assert "--drop-unknown-fields" in first["why"]
    assert (steps.folder / "copy.config").read_text() == fp32_config


def test_an_unknown_field_that_is_named_is_removed_and_no_other(
    steps: Steps, strange_config: str, fp32_config: str
) -> None:
    assert "no field by_nobody" in steps.check_config(strange_config, "--remove", UNKNOWN).refusal
    both = ("--remove", UNKNOWN, "--remove", "by_nobody")
    assert len(steps.check_config(strange_config, *both).value["changes"]) == 2
    assert (steps.folder / "copy.config").read_text() == fp32_config


def test_a_field_of_the_same_name_elsewhere_is_not_removed(steps: Steps, strange_config: str) -> None:
    elsewhere = ("--remove", "model.ssd.of_tomorrow", "--remove", "by_nobody")
    assert "no field of_tomorrow" in steps.check_config(strange_config, *elsewhere).refusal


def test_known_fields_and_messages_can_be_removed(steps: Steps, fp32_config: str) -> None:
    score_converter, train_config = f"{POST_PROCESSING}.score_converter", "train_config"
    changes = steps.check_config(fp32_config, "--remove", score_converter, "--remove", train_config).value[
        "changes"
    ]
    assert changes == [
        {"field": score_converter, "from": "SIGMOID", "to": None},
        {"field": train_config, "from": "set", "to": None},
    ]
    assert "train_config" not in (steps.folder / "copy.config").read_text()


def test_removing_what_is_not_there_is_no_change_and_a_wrong_path_is_named(
    steps: Steps, fp32_config: str
) -> None:
    assert steps.check_config(fp32_config, "--remove", "graph_rewriter.quantization").value["changes"] == []
    assert "has no field 'sdd'" in steps.check_config(fp32_config, "--remove", "model.sdd.x").refusal


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "min_depth: 16",
            "min_depth: 16 foo_bar: 1",
            "line 13: this tensorflow/models tree has no field foo_bar",
        ),
        ('"ssd_mobiledet_edgetpu"', '"ssd_mobilenet_v2_keras"', "TensorFlow 2 detection API"),
        (
            '"ssd_mobiledet_edgetpu"',
            '"ssd_nobody_knows"',
            "this one has: embedded_ssd_mobilenet_v1, ssd_incept",
        ),
        ("height: 320", "height: 0", "fixed_shape_resizer has height 0"),
        ("width: 320", 'width: "a"', "line 7: "),
        ("faster_rcnn_box_coder", "keypoint_box_coder", "the box coder is keypoint_box_coder"),
        ("max_total_detections: 100", "max_total_detections: 10", "max_detections_per_class (100) is above"),
        ("model {", "model { {", "line 1: "),
    ],
)
def test_config_that_cannot_be_exported_is_refused(
    steps: Steps, fp32_config: str, old: str, new: str, said: str
) -> None:
    assert old in fp32_config
    assert said in steps.check_config(fp32_config.replace(old, new, 1)).refusal
    assert not (steps.folder / "copy.config").exists()


def test_other_resizer_is_named(steps: Steps, fp32_config: str) -> None:
    fixed = "fixed_shape_resizer {\n        height: 320\n        width: 320\n      }"
    other = fp32_config.replace(fixed, "keep_aspect_ratio_resizer { min_dimension: 320 }")
    assert "the image resizer is keep_aspect_ratio_resizer" in steps.check_config(other).refusal


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("model { faster_rcnn { num_classes: 3 } }", "this is a faster_rcnn model"),
        ("model { faster_rcnn { num_classes: 3 unknown: 1 } }", "this is a faster_rcnn model"),
        ("train_config { batch_size: 1 }", "describes no model"),
        ("", "is empty"),
        ("hello world", "line 1: "),
    ],
)
def test_config_of_something_else_is_refused(steps: Steps, config: str, said: str) -> None:
    assert said in steps.check_config(config).refusal


def test_tree_that_knows_the_network_is_named(steps: Steps, engine: Engine, fp32_config: str) -> None:
    asked = fp32_config.replace('"ssd_mobiledet_edgetpu"', '"ssd_spaghettinet" spaghettinet_arch_name: "s"')
    answer = steps.check_config(asked)
    if str(engine.prepare().models_commit).startswith("3564634"):
        assert answer.value["feature_extractor"] == "ssd_spaghettinet"
    else:
        assert "it needs a tensorflow/models commit of October 2021 or later" in answer.refusal


def test_kind_of_config_has_to_be_the_kind_asked_for(
    steps: Steps, fp32_config: str, uint8_config: str
) -> None:
    assert "no graph_rewriter" in steps.check_config(fp32_config, "--quantized", "true").refusal
    assert "has a graph_rewriter" in steps.check_config(uint8_config, "--quantized", "false").refusal
    four_bits = uint8_config.replace("weight_bits: 8", "weight_bits: 4")
    assert "only 8 and 8" in steps.check_config(four_bits, "--quantized", "true").refusal


@pytest.mark.parametrize("flag", [f"--set={THRESHOLD}=1.5", f"--set={THRESHOLD}=nan", "--max-detections=0"])
def test_number_that_makes_no_sense_is_refused(steps: Steps, fp32_config: str, flag: str) -> None:
    assert "must be at least" in steps.check_config(fp32_config, flag).refusal


def test_config_is_never_edited_in_place(steps: Steps, fp32_config: str) -> None:
    config = steps.folder / "pipeline.config"
    config.write_text(fp32_config)
    answer = steps.run(
        "pipeline_config.py", "--input", config, "--output", config, "--set", f"{THRESHOLD}=0.3"
    )
    assert "the same file" in answer.refusal
    assert config.read_text() == fp32_config


@pytest.mark.parametrize(("variant", "variables"), [("fp32", 430), ("uint8", 832)])
def test_checkpoint_fits_its_config(steps: Steps, stand_in_dir: Path, variant: str, variables: int) -> None:
    answer = check_fit(steps, stand_in_dir / variant, stand_in_dir / variant)
    assert answer.value["variables"] == variables
    assert answer.value["extra_variables"] == 0


def test_float_checkpoint_with_quantized_config_is_refused(steps: Steps, stand_in_dir: Path) -> None:
    refusal = check_fit(steps, stand_in_dir / "uint8", stand_in_dir / "fp32").refusal
    assert "402 of 832 variables" in refusal
    assert "act_quant/max: missing" in refusal
    assert "only quantization ranges are missing" in refusal


def test_quantized_checkpoint_with_float_config_is_counted(steps: Steps, stand_in_dir: Path) -> None:
    value = check_fit(steps, stand_in_dir / "fp32", stand_in_dir / "uint8").value
    assert (value["extra_variables"], value["unused_quantization_ranges"]) == (402, 402)


def test_damaged_index_is_refused(steps: Steps, stand_in_dir: Path) -> None:
    copy = steps.folder / "damaged"
    shutil.copytree(stand_in_dir / "fp32", copy)
    index = copy / f"{PREFIX}.index"
    index.write_bytes(index.read_bytes()[:5000])
    assert "cannot be read" in check_fit(steps, copy, copy).refusal


def check_fit(steps: Steps, config_dir: Path, checkpoint_dir: Path) -> Answer:
    config, prefix = config_dir / "pipeline.config", checkpoint_dir / PREFIX
    return steps.run("check_checkpoint.py", "--pipeline-config", config, "--checkpoint-prefix", prefix)


@pytest.mark.slow
def test_stand_in_with_optimizer_slots_still_fits(steps: Steps, recipe: Recipe) -> None:
    flags = ("--recipe-dir", str(recipe.data_dir), "--variant", "fp32", "--output", steps.folder)
    made = steps.run("stand_in.py", *flags, "--optimizer-slots").value
    assert (made["tensors"], made["optimizer_slots"]) == (430, 267)
    assert "DETECTIONS MEAN NOTHING" in (steps.folder / "fp32" / "README.txt").read_text()
    assert check_fit(steps, steps.folder / "fp32", steps.folder / "fp32").value["extra_variables"] == 267


def test_stand_in_replaces_nobodys_folder(steps: Steps, recipe: Recipe) -> None:
    (steps.folder / "fp32").mkdir()
    (steps.folder / "fp32" / "thesis.txt").write_text("mine")
    flags = ("--recipe-dir", str(recipe.data_dir), "--variant", "fp32", "--output", steps.folder)
    assert "not a stand-in" in steps.run("stand_in.py", *flags).refusal
    assert (steps.folder / "fp32" / "thesis.txt").read_text() == "mine"


OWN_CONFIG = DATA / "three_classes" / "pipeline.config"


def make_from_config(steps: Steps, config: str, *flags: str) -> Answer:
    source = steps.folder / "own.config"
    source.write_text(config)
    target = steps.folder / "own"
    return steps.run("stand_in.py", "--pipeline-config", source, "--output", target, *flags)


@pytest.mark.slow
def test_stand_in_is_made_from_a_config_alone(steps: Steps) -> None:
    config = OWN_CONFIG.read_text() + "\neval_config { a_field_of_another_tree: true }\n"
    made = make_from_config(steps, config, "--prefix-name", "model.ckpt").value
    assert made["checkpoint_prefix"] == str(steps.folder / "own" / "model.ckpt")
    assert (steps.folder / "own" / "pipeline.config").read_text() == config
    assert "model that pipeline.config describes" in (steps.folder / "own" / "README.txt").read_text()
    again = make_from_config(steps, config).value
    assert again["tensors_sha256"] == made["tensors_sha256"]
    assert again["checkpoint_prefix"].endswith("/model.ckpt-200000")
    other = make_from_config(steps, config, "--seed", "1").value
    assert other["tensors_sha256"] != made["tensors_sha256"]


def test_stand_in_of_another_kind_of_model_is_refused(steps: Steps) -> None:
    assert (
        "not the config of an SSD"
        in make_from_config(steps, "model { faster_rcnn { num_classes: 3 } }").refusal
    )


def test_stand_in_is_made_from_one_thing(steps: Steps, recipe: Recipe) -> None:
    assert recipe.data_dir is not None
    flags = ("--recipe-dir", recipe.data_dir, "--pipeline-config", OWN_CONFIG, "--output", steps.folder)
    assert "not allowed with argument" in steps.run("stand_in.py", *flags).refusal
