"""Published command lines, pasted into `shell`: MLCommons' recipe, and the page of tensorflow/models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from runner.tflite import canonical
from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Program

RECIPE = PROJECT_ROOT / "docs" / "recipe.sh"
OUTPUTS = (
    "'TFLite_Detection_PostProcess','TFLite_Detection_PostProcess:1',"
    "'TFLite_Detection_PostProcess:2','TFLite_Detection_PostProcess:3'"
)
PUBLISHED_FLAGS = (
    "--input_type image_tensor",
    "--add_postprocessing_op=true --use_regular_nms=true --max_detections=10",
    "--input_shapes=1,320,320,3 --input_arrays=normalized_input_image_tensor",
    f"--output_arrays={OUTPUTS}",
)


def test_flags_of_the_recipe_are_the_published_ones() -> None:
    lines = RECIPE.read_text().splitlines()
    for flags in PUBLISHED_FLAGS:
        assert sum(flags in line for line in lines) == 2, flags
    assert any(line.endswith("--inference_type=FLOAT --allow_custom_ops") for line in lines)
    assert any(
        line.endswith(
            "--inference_type=QUANTIZED_UINT8 --allow_custom_ops --mean_values=128 --std_values=128"
        )
        for line in lines
    )


@pytest.mark.any_engine
def test_pasted_recipe_gives_the_same_files(
    program: Program, stand_in_dir: Path, converted: Converted, recipe: Recipe, tmp_path: Path
) -> None:
    out_dir = tmp_path / "out of the récipe"
    done = program("shell", "--model-dir", stand_in_dir, "--out", out_dir, stdin=RECIPE.read_text())
    assert done.exit_code == 0, done.stderr
    for name, result in converted.results.items():
        raw = out_dir / name / recipe.variants[name].file_name
        assert canonical.normalize_keys(raw, None).digests.sha256 == result["sha256"]


# https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/running_on_mobile_tensorflowlite.md,
# as printed. Its earlier versions called TOCO, the later ones tflite_convert.
EXPORT = """
object_detection/export_tflite_ssd_graph.py \\
--pipeline_config_path=$CONFIG_FILE \\
--trained_checkpoint_prefix=$CHECKPOINT_PATH \\
--output_directory=$OUTPUT_DIR \\
--add_postprocessing_op=true
"""
TOCO = """
bazel run {options} -- \\
--input_file=$OUTPUT_DIR/tflite_graph.pb \\
--output_file=$OUTPUT_DIR/detect.tflite \\
--input_shapes=1,300,300,3 \\
--input_arrays=normalized_input_image_tensor \\
--output_arrays={outputs} \\
"""
TFLITE_CONVERT = """
bazel run -c opt tensorflow/lite/python:tflite_convert -- \\
--enable_v1_converter \\
--graph_def_file=$OUTPUT_DIR/tflite_graph.pb \\
--output_file=$OUTPUT_DIR/detect.tflite \\
--input_shapes=1,300,300,3 \\
--input_arrays=normalized_input_image_tensor \\
--output_arrays={outputs} \\
"""
FLOAT = """--inference_type=FLOAT \\
--allow_custom_ops
"""
QUANTIZED = """--inference_type=QUANTIZED_UINT8 \\
--mean_values=128 \\
{std}=128 \\
--change_concat_input_ranges=false \\
--allow_custom_ops
"""
CONVERSIONS = {
    "--config=opt tensorflow/contrib/lite/toco:toco": TOCO,
    "--config=opt tensorflow/lite/toco:toco": TOCO,
    "-c opt tensorflow/lite/toco:toco": TOCO,
    "tflite_convert": TFLITE_CONVERT,
}


@pytest.mark.parametrize(
    ("variant", "ending"), [pytest.param("fp32", FLOAT, marks=pytest.mark.slow), ("uint8", QUANTIZED)]
)
@pytest.mark.slow
def test_pasted_page_of_tensorflow_models_gives_one_file(
    program: Program, stand_in_dir: Path, tmp_path: Path, variant: str, ending: str
) -> None:
    # The page's models have images of 300 x 300 pixels, and so can this one: it has no layer of fixed size.
    config = (stand_in_dir / variant / "pipeline.config").read_text()
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    (out_dir / "300.config").write_text(re.sub(r"(height|width): 320", r"\1: 300", config))
    lines = ["set -eu", "export CONFIG_FILE=$TFLITE_MODEL_DIR/300.config OUTPUT_DIR=$TFLITE_MODEL_DIR"]
    lines += [f"export CHECKPOINT_PATH=$TF_MODEL_DIR/{variant}/model.ckpt-400000", EXPORT]
    for number, (options, command) in enumerate(CONVERSIONS.items()):
        std = "--std_dev_values" if command is TFLITE_CONVERT else "--std_values"
        lines += [command.format(options=options, outputs=OUTPUTS) + ending.format(std=std)]
        lines += [f"mv $OUTPUT_DIR/detect.tflite $OUTPUT_DIR/{number}.tflite"]
    pasted = "\n".join(lines)
    done = program("shell", "--model-dir", stand_in_dir, "--out", out_dir, stdin=pasted)
    assert done.exit_code == 0, done.stderr
    files = [out_dir / f"{number}.tflite" for number in range(len(CONVERSIONS))]
    assert len({canonical.normalize_keys(file, None).digests.sha256 for file in files}) == 1


@pytest.mark.parametrize(
    "line",
    [
        "bazel build -c opt tensorflow/lite/toco:toco",
        "bazel run -c opt //tensorflow/lite/examples/android:tflite_demo -- --flag",
        "bazel run -c opt tensorflow/lite/toco:toco tensorflow/lite/toco:toco -- --flag",
        "bazel run",
        "bazel",
    ],
)
def test_other_lines_of_bazel_are_refused(program: Program, tmp_path: Path, line: str) -> None:
    done = program("exec", "--out", tmp_path, *line.split())
    assert done.exit_code == 2
    assert "bazel: " in done.stderr
    assert (
        "tip: the targets are tensorflow/lite/toco:toco, tensorflow/lite/python:tflite_convert" in done.stderr
    )
