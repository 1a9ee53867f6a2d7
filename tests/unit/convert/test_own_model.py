"""A recipe for the user's own model: its defaults, their overrides, and the resulting plan."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from runner.convert.model_facts import ModelFacts
from runner.convert.own_model import OwnModel, own_recipe
from runner.deliver.plan import PlanRequest, make_plan
from runner.errors import ConfigError, UsageError
from runner.host.digests import sha256_of
from runner.recipes.recipe import InferenceType
from runner.recipes.settings import Nms, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.deliver.plan import Plan
    from runner.recipes.recipe import Variant

PREFIX = "model.ckpt-400000"
FLOAT = ModelFacts(is_quantized=False, input_shape=(1, 96, 64, 3))
QUANTIZED = ModelFacts(is_quantized=True, input_shape=(1, 300, 300, 3))
CONCAT = "--change_concat_input_ranges=false"


def variant_of(facts: ModelFacts, **given: Any) -> Variant:  # noqa: ANN401 - fields of OwnModel
    model = OwnModel(**{"name": "model", "checkpoint_prefix": PREFIX, **given})
    (variant,) = own_recipe(model, facts).variants.values()
    return variant


def test_a_float_model_has_no_quantized_input() -> None:
    variant = variant_of(FLOAT)
    assert (variant.inference_type, variant.input_shape) == (InferenceType.FLOAT, (1, 96, 64, 3))
    assert (variant.mean_value, variant.std_value, variant.toco_flags) == (None, None, ())
    assert variant.settings == Settings(nms=Nms.FAST)
    assert variant.settings.max_detections == 10


def test_a_quantized_model_is_converted_as_tensorflow_models_says() -> None:
    variant = variant_of(QUANTIZED)
    assert (variant.inference_type, variant.mean_value, variant.std_value) == (
        InferenceType.QUANTIZED_UINT8,
        128,
        128,
    )
    assert variant.toco_flags == (CONCAT,)


def test_everything_can_be_overridden() -> None:
    flags = ("--change_concat_input_ranges=true", "--drop_control_dependency=true")
    variant = variant_of(QUANTIZED, mean_value=127.0, std_value=64.0, toco_flags=flags, name="mine")
    assert (variant.mean_value, variant.std_value, variant.toco_flags) == (127, 64, flags)
    assert (variant.file_name, variant.raw_name) == ("mine.tflite", "mine.raw.tflite")


def test_a_quantized_model_can_be_converted_as_float() -> None:
    variant = variant_of(QUANTIZED, inference_type=InferenceType.FLOAT)
    assert variant.inference_type is InferenceType.FLOAT
    assert (variant.mean_value, variant.std_value, variant.toco_flags) == (None, None, ())
    assert variant.has_quantized_graph


def test_another_size_is_an_edit_of_the_config() -> None:
    variant = variant_of(FLOAT, input_shape=(1, 160, 192, 3))
    assert variant.input_shape == (1, 160, 192, 3)
    assert {field.rpartition(".")[2]: value for field, value in variant.config_set.items()} == {
        "height": 160,
        "width": 192,
    }
    assert variant_of(FLOAT, input_shape=FLOAT.input_shape).config_set == {}


@pytest.mark.parametrize(
    ("flag", "said", "tip"),
    [
        ("--mean_values=3", "--mean_values is set by `convert` itself", "use --mean-value"),
        ("--input_shapes=1,2,2,3", "--input_shapes is set by `convert` itself", "use --input-shape"),
        ("--inference_type=FLOAT", "--inference_type is set by `convert` itself", "use --inference-type"),
        ("--output_arrays=a", "--output_arrays is set by `convert` itself", "`toco`"),
        ("nonsense", "'nonsense' is not a flag of toco", "two dashes"),
    ],
)
def test_an_invalid_flag_or_one_of_ours_is_refused(flag: str, said: str, tip: str) -> None:
    with pytest.raises(UsageError) as problem:
        variant_of(QUANTIZED, toco_flags=(flag,))
    assert said in problem.value.message
    assert tip in str(problem.value.tip)


def test_quantized_input_of_a_float_model_is_refused() -> None:
    with pytest.raises(UsageError, match="the config describes a float model"):
        variant_of(FLOAT, mean_value=128.0)


# --- the plan ---------------------------------------------------------------------------------------------


def planned(
    folder: Path,
    config: Path,
    out_dir: Path,
    choices: Mapping[str, object] | None = None,
    **given: Any,  # noqa: ANN401 - fields of OwnModel
) -> Plan:
    model = OwnModel(**{"name": "model", "checkpoint_prefix": PREFIX, **given})
    asked = PlanRequest(
        recipe=own_recipe(model, QUANTIZED),
        variants=(model.name,),
        model_dir=folder,
        pipeline_config=config,
        out_dir=out_dir,
        choices=choices or {},
        speedups=(),
        toolchains=("one",),
    )
    return make_plan(asked, sha256_of=sha256_of, read_facts=lambda *_: QUANTIZED)


@pytest.fixture
def folder(model_dir: Path) -> Path:
    """A folder with a checkpoint and a config."""
    return model_dir / "fp32"


def test_all_products_are_in_the_output_directory_itself(folder: Path, tmp_path: Path) -> None:
    plan = planned(folder, folder / "pipeline.config", tmp_path / "out")
    assert plan.products(plan.conversions[0]) == (
        "pipeline.config",
        "tflite_graph.pb",
        "model.raw.tflite",
        "model.tflite",
        "export.log",
        "toco.log",
        "provenance.json",
    )


def test_the_commands_are_those_of_a_model_of_ones_own(folder: Path, tmp_path: Path) -> None:
    plan = planned(folder, folder / "pipeline.config", tmp_path / "out", {"score_threshold": 0.4})
    config, export, toco = plan.conversions[0].commands.all
    assert config[1:5] == (
        *("--input", "${TF_MODEL_DIR}/pipeline.config"),
        *("--output", "${TFLITE_MODEL_DIR}/pipeline.config"),
    )
    assert config[-1].endswith("score_threshold=0.4")
    assert f"--trained_checkpoint_prefix=${{TF_MODEL_DIR}}/{PREFIX}" in export
    assert "--use_regular_nms=false" in export
    assert {"--input_shapes=1,300,300,3", "--mean_values=128", "--std_values=128", CONCAT} <= set(toco)


def test_a_config_elsewhere_is_mounted_by_itself(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "configs" / "my.config"
    config.parent.mkdir()
    shutil.move(folder / "pipeline.config", config)
    plan = planned(folder, config, tmp_path / "out")
    assert plan.read_only == (folder, config)
    (conversion,) = plan.conversions
    assert conversion.commands.config[2] == "${PIPELINE_CONFIG}"
    assert conversion.checkpoint.config.name == "${PIPELINE_CONFIG}"


def test_unknown_fields_are_dropped_only_on_request(folder: Path, tmp_path: Path) -> None:
    config = folder / "pipeline.config"
    assert (
        "--drop-unknown-fields" not in planned(folder, config, tmp_path / "o").conversions[0].commands.config
    )
    plan = planned(folder, config, tmp_path / "o", drop_unknown_fields=True)
    assert plan.conversions[0].commands.config[-1] == "--drop-unknown-fields"


def test_each_option_and_the_config_are_part_of_the_key(folder: Path, tmp_path: Path) -> None:
    config = folder / "pipeline.config"

    def key(choices: Mapping[str, object] | None = None, **given: Any) -> str:  # noqa: ANN401 - OwnModel
        name = given.get("name", "model")
        return planned(folder, config, tmp_path / "o", choices, **given).keys[name]["one"][0]

    keys = [
        key(),
        key({"nms": Nms.REGULAR}),
        key(name="mine"),
        key(mean_value=127.0),
        key(toco_flags=("--change_concat_input_ranges=true",)),
        key(drop_unknown_fields=True),
        key(inference_type=InferenceType.FLOAT),
        key(ignore_quantization=True),
        key(input_shape=(1, 320, 300, 3)),
    ]
    with config.open("a") as file:
        file.write("# another\n")
    assert len({*keys, key()}) == len(keys) + 1


def test_a_missing_config_or_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*nowhere\.config"):
        planned(folder, tmp_path / "nowhere.config", tmp_path / "out")
    with pytest.raises(ConfigError, match="not its prefix"):
        planned(folder, folder / "pipeline.config", tmp_path / "out", checkpoint_prefix=f"{PREFIX}.index")
