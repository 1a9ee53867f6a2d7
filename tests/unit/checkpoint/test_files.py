"""Finding a checkpoint in the places where users put it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.checkpoint.files import find_checkpoint, locate_checkpoint
from runner.errors import ConfigError, IntegrityError
from tests.locations import TINY_CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

    from runner.recipes.recipe import Recipe

PLAIN = TINY_CHECKPOINT / "plain" / "model.ckpt-400000"


def advice(model_dir: Path, recipe: Recipe) -> str:
    """Return message and tip of the error for a model directory."""
    with pytest.raises(ConfigError) as problem:
        locate_checkpoint(model_dir, recipe, recipe.variants["fp32"])
    return f"{problem.value.message} | {problem.value.tip}"


class TestModelDirectory:
    def test_files_are_found(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        files = locate_checkpoint(model_dir, tiny_recipe, tiny_recipe.variants["fp32"])
        assert files.config == model_dir / "fp32" / "pipeline.config"
        assert files.prefix == model_dir / "fp32" / "model.ckpt-400000"
        assert all(path.is_file() for path in files.paths)

    def test_folder_of_the_variant_is_corrected(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        assert f"--model-dir {model_dir} " in advice(model_dir / "fp32", tiny_recipe)

    def test_folder_around_is_corrected(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        assert f"--model-dir {model_dir} " in advice(model_dir.parent, tiny_recipe)

    def test_file_of_the_checkpoint_is_corrected(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        said = advice(model_dir / "fp32" / "pipeline.config", tiny_recipe)
        assert "is a file" in said
        assert f"--model-dir {model_dir} " in said

    def test_archive_gets_the_command_to_unpack_it(self, model_archive: Path, tiny_recipe: Recipe) -> None:
        assert f"`fetch --url {model_archive}`" in advice(model_archive, tiny_recipe)
        assert f"`fetch --url {model_archive}`" in advice(model_archive.parent, tiny_recipe)

    def test_missing_folder_is_reported(self, tmp_path: Path, tiny_recipe: Recipe) -> None:
        assert "does not exist" in (said := advice(tmp_path / "nowhere", tiny_recipe))
        assert "demo" in said

    def test_other_folder_is_described(self, tmp_path: Path, tiny_recipe: Recipe) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").touch()
        assert "it contains cat.jpg; --model-dir needs fp32/pipeline.config" in advice(
            tmp_path / "photos", tiny_recipe
        )

    def test_missing_config_is_named(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        (model_dir / "fp32" / "pipeline.config").unlink()
        assert "there is no " in (said := advice(model_dir, tiny_recipe))
        assert "pipeline.config" in said

    def test_missing_data_file_is_named(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        (model_dir / "fp32" / f"{PLAIN.name}.data-00000-of-00001").unlink()
        assert "data-00000-of-00001 is missing" in advice(model_dir, tiny_recipe)

    def test_another_prefix_is_offered(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        folder = model_dir / "fp32"
        for path in folder.glob("model.ckpt*"):
            path.rename(folder / path.name.replace("-400000", ""))
        assert "the prefix model.ckpt" in advice(model_dir, tiny_recipe)
        variant = replace(tiny_recipe.variants["fp32"], checkpoint_prefix="model.ckpt")
        found = locate_checkpoint(model_dir, tiny_recipe, variant)
        assert found.prefix == folder / "model.ckpt"

    def test_several_prefixes_are_listed(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        folder = model_dir / "fp32"
        (folder / f"{PLAIN.name}.index").rename(folder / "a.index")
        (folder / "b.index").touch()
        assert ": a, b" in advice(model_dir, tiny_recipe)

    def test_folder_without_checkpoint_is_reported(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        (model_dir / "fp32" / f"{PLAIN.name}.index").unlink()
        assert "there is no checkpoint in" in advice(model_dir, tiny_recipe)


class TestPrefix:
    @pytest.mark.parametrize("suffix", [".index", ".meta", ".data-00000-of-00001"])
    def test_file_instead_of_prefix_is_corrected(self, suffix: str, model_dir: Path) -> None:
        prefix = model_dir / "fp32" / PLAIN.name
        with pytest.raises(ConfigError, match="not its prefix") as problem:
            find_checkpoint(model_dir / "fp32" / "pipeline.config", prefix.with_name(prefix.name + suffix))
        assert problem.value.tip == f"use the prefix that all its files share: {prefix}"

    def test_folder_instead_of_prefix_names_the_prefix(self, model_dir: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder") as problem:
            find_checkpoint(model_dir / "fp32" / "pipeline.config", model_dir / "fp32")
        assert PLAIN.name in str(problem.value.tip)

    def test_first_format_is_recognised(self, model_dir: Path) -> None:
        (model_dir / "fp32" / "old.ckpt").write_bytes(b"\x00\x11\x0a\x0f")
        with pytest.raises(ConfigError, match="TensorFlow's V1 format"):
            find_checkpoint(model_dir / "fp32" / "pipeline.config", model_dir / "fp32" / "old.ckpt")

    def test_config_in_place_of_a_prefix_is_recognised(self, model_dir: Path) -> None:
        config = model_dir / "fp32" / "pipeline.config"
        config.write_text("model { }")
        with pytest.raises(ConfigError, match="is not a checkpoint: it contains text") as problem:
            find_checkpoint(config, config)
        assert PLAIN.name in str(problem.value.tip)

    def test_folder_in_place_of_a_config_is_recognised(self, model_dir: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder, not a config"):
            find_checkpoint(model_dir / "fp32", model_dir / "fp32" / PLAIN.name)

    def test_damaged_index_is_an_integrity_error(self, model_dir: Path) -> None:
        (model_dir / "fp32" / f"{PLAIN.name}.index").write_bytes(b"<html>")
        with pytest.raises(IntegrityError, match="not a valid checkpoint index"):
            find_checkpoint(model_dir / "fp32" / "pipeline.config", model_dir / "fp32" / PLAIN.name)
