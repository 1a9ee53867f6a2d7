"""Where the config of a file comes from, and what of its conversion is read from the file itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.errors import ConfigError, UsageError
from runner.proof.recovery.file_tensors import read_file_tensors
from runner.proof.recovery.source import find_source
from runner.recipes.settings import Nms
from runner.tflite.model import read_model
from tests.altered import with_other_options
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    from runner.proof.recovery.source import ModelSource

UINT8 = (TINY_DETECTOR / "uint8.run0.tflite").read_bytes()
RECIPE = """title = "a detector"

[variants.quantized]
inference_type = "QUANTIZED_UINT8"
mean_value = 128
std_value = 128
"""


def source_of(content: bytes, *, recipe: Path | None = None, config: Path | None = None) -> ModelSource:
    model = read_model(content)
    name = None if recipe is None else str(recipe)
    return find_source(model, read_file_tensors(model), recipe=name, config=config)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.config"
    path.write_text("model {}\n")
    return path


def recipe_with_structure(folder: Path, structure: str) -> Path:
    """A recipe whose config describes an architecture, and the record of a conversion of it."""
    data = folder / "quantized"
    data.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (data / "pipeline.config").write_text("model {}\n")
    (data / "synthetic.toml").write_text(f'structure = "{structure}"\n')
    return folder


def test_with_a_config_everything_else_is_read_from_the_file(config: Path) -> None:
    changes = {"max_classes_per_detection": 2, "detections_per_class": 50, "max_detections": 20}
    source = source_of(
        with_other_options(UINT8, {**changes, "use_regular_nms": False, "nms_score_threshold": 0.25}),
        config=config,
    )
    variant = source.variant
    assert (source.title, source.published) == (str(config), None)
    assert variant.export_flags == ("--max_classes_per_detection=2", "--detections_per_class=50")
    assert (variant.settings.max_detections, variant.settings.nms) == (20, Nms.FAST)
    assert variant.settings.score_threshold == 0.25
    assert (variant.mean_value, variant.std_value, variant.input_shape) == (128, 128, (1, 8, 8, 3))
    assert variant.config_set == {}


def test_a_recipe_is_found_by_the_structure_of_its_kernels(tmp_path: Path) -> None:
    structure = read_file_tensors(read_model(UINT8)).structure
    folder = recipe_with_structure(tmp_path / "mine", structure)
    source = source_of(UINT8, recipe=folder)
    assert source.title == "the recipe mine, variant quantized"
    assert source.config == folder / "quantized" / "pipeline.config"
    assert source.variant.config_set == {"model.ssd.num_classes": 2}


def test_a_recipe_of_another_structure_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has other variables than"):
        source_of(UINT8, recipe=recipe_with_structure(tmp_path / "other", "0" * 64))


def test_a_file_that_no_recipe_fits_needs_a_config() -> None:
    with pytest.raises(ConfigError, match="no recipe with a config fits") as caught:
        source_of(UINT8)
    assert "--pipeline-config" in str(caught.value.tip)


def test_recipe_and_config_together_are_a_usage_error(config: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be combined"):
        source_of(UINT8, recipe=tmp_path, config=config)


def test_a_config_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no config"):
        source_of(UINT8, config=tmp_path / "none.config")
