"""Facts about a model: the toolchain reads the same facts from the config as the recipe states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.convert.model_facts import obtain_facts, stated_facts
from runner.errors import ConfigError
from runner.scripts.run import ScriptOptions

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine
    from runner.recipes.recipe import Recipe

pytestmark = pytest.mark.any_engine


@pytest.fixture(autouse=True)
def options(tmp_path: Path) -> ScriptOptions:
    return ScriptOptions(log_dir=tmp_path / "logs")


@pytest.mark.parametrize("variant", ["fp32", "uint8"])
def test_what_the_recipe_states_is_what_the_config_says(
    engine: Engine, recipe: Recipe, stand_in_dir: Path, options: ScriptOptions, variant: str
) -> None:
    facts = obtain_facts(engine, stand_in_dir / variant / "pipeline.config", options)
    assert facts == stated_facts(recipe.variants[variant])


def test_a_config_is_read_once(
    engine: Engine, stand_in_dir: Path, options: ScriptOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stand_in_dir / "fp32" / "pipeline.config"
    facts = obtain_facts(engine, config, options)
    monkeypatch.setattr(type(engine), "open", lambda *_: pytest.fail("the toolchain was started again"))
    assert obtain_facts(engine, config, options) == facts


def test_another_config_is_read_again(
    engine: Engine, stand_in_dir: Path, options: ScriptOptions, tmp_path: Path
) -> None:
    text = (stand_in_dir / "fp32" / "pipeline.config").read_text()
    config = tmp_path / "other.config"
    config.write_text(text.replace("height: 320", "height: 256").replace("width: 320", "width: 192"))
    assert obtain_facts(engine, config, options).input_shape == (1, 256, 192, 3)


def test_a_config_that_cannot_be_exported_is_refused(
    engine: Engine, options: ScriptOptions, tmp_path: Path
) -> None:
    config = tmp_path / "other.config"
    config.write_text("model { faster_rcnn { num_classes: 3 } }\n")
    with pytest.raises(ConfigError, match="faster_rcnn"):
        obtain_facts(engine, config, options)
