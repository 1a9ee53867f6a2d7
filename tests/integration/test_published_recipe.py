"""The recipe as MLCommons published it, run from a pasted file, gives what `build-all` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.tflite import canonical
from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Program

RECIPE = PROJECT_ROOT / "docs" / "recipe.sh"
PUBLISHED_FLAGS = (
    "--input_type image_tensor",
    "--add_postprocessing_op=true --use_regular_nms=true --max_detections=10",
    "--input_shapes=1,320,320,3 --input_arrays=normalized_input_image_tensor",
    "--output_arrays='TFLite_Detection_PostProcess','TFLite_Detection_PostProcess:1',"
    "'TFLite_Detection_PostProcess:2','TFLite_Detection_PostProcess:3'",
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


def test_pasted_recipe_gives_the_same_files(
    program: Program, stand_in_dir: Path, converted: Converted, recipe: Recipe, tmp_path: Path
) -> None:
    out_dir = tmp_path / "out of the récipe"
    done = program("shell", "--model-dir", stand_in_dir, "--out", out_dir, stdin=RECIPE.read_text())
    assert done.exit_code == 0, done.stderr
    for name, result in converted.results.items():
        raw = out_dir / name / recipe.variants[name].file_name
        assert canonical.settle(raw, None).digests.sha256 == result["sha256"]
