"""Finding a checkpoint where users put it, and comparing it with what was published."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.checkpoint.compare import (
    CheckpointVerdict,
    check_checkpoint,
    digest_of_tensors,
    require_fit,
    require_published,
    tell_of_weights,
)
from runner.checkpoint.files import find_checkpoint, locate_checkpoint
from runner.checkpoint.index import read_index
from runner.errors import ConfigError, IntegrityError
from runner.recipes.recipe import load_recipe
from tests.locations import TINY_CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

    from runner.recipes.recipe import Recipe, Variant

PLAIN = TINY_CHECKPOINT / "plain" / "model.ckpt-400000"


@pytest.fixture
def variant(tiny_recipe: Recipe) -> Variant:
    return tiny_recipe.variants["fp32"]


def rewrite_table(variant: Variant, old: str, new: str) -> None:
    content = variant.tensor_table.read_text()
    assert content.count(old) == 1
    variant.tensor_table.write_text(content.replace(old, new))


def advice(model_dir: Path, recipe: Recipe) -> str:
    """Give message and tip of the error that a model directory causes."""
    with pytest.raises(ConfigError) as problem:
        locate_checkpoint(model_dir, recipe, recipe.variants["fp32"])
    return f"{problem.value.message} | {problem.value.tip}"


class TestComparison:
    def test_published_values_give_one_line(self, variant: Variant) -> None:
        verdict = check_checkpoint(read_index(PLAIN), variant)
        assert verdict.is_published
        assert verdict.extra == ("text",)
        assert verdict.sentence == (
            "all 33 tensors are the published ones; 1 more, such as optimizer slots, do not matter"
        )

    def test_other_values_are_counted_and_fit(self, variant: Variant) -> None:
        rewrite_table(variant, "418f98b2", "418f98b3")
        verdict = check_checkpoint(read_index(PLAIN), variant)
        assert verdict.fits
        assert not verdict.is_published
        assert verdict.differing == ("Conv/biases",)
        assert "not the published weights: of 33 tensors 1 of other values (Conv/biases)" in verdict.sentence

    def test_missing_tensor_is_named(self, variant: Variant) -> None:
        rewrite_table(variant, "Conv/biases", "Conv/BatchNorm/beta")
        verdict = check_checkpoint(read_index(PLAIN), variant)
        assert not verdict.fits
        assert verdict.missing == ("Conv/BatchNorm/beta",)
        assert "Conv/biases" in verdict.extra

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("Conv/biases\tfloat32\t4", "Conv/biases\tfloat32\t8"),
            ("Conv/biases\tfloat32", "Conv/biases\tint32"),
        ],
    )
    def test_other_shape_or_dtype_is_named(self, old: str, new: str, variant: Variant) -> None:
        rewrite_table(variant, old, new)
        verdict = check_checkpoint(read_index(PLAIN), variant)
        assert not verdict.fits
        assert verdict.misshapen[0].startswith("Conv/biases: float32 [4] instead of ")

    def test_damaged_data_is_no_matter_of_values(self, tmp_path: Path, variant: Variant) -> None:
        shutil.copytree(TINY_CHECKPOINT / "plain", tmp_path / "damaged")
        shard = tmp_path / "damaged" / f"{PLAIN.name}.data-00000-of-00001"
        shard.write_bytes(b"\xff" + shard.read_bytes()[1:])
        with pytest.raises(IntegrityError, match="is damaged"):
            check_checkpoint(read_index(tmp_path / "damaged" / PLAIN.name), variant)

    def test_digest_sees_every_property_and_no_order(self) -> None:
        tensors = list(read_index(PLAIN).tensors.values())
        first = tensors[0]
        digests = {
            digest_of_tensors([other, *tensors[1:]])
            for other in (
                first,
                replace(first, name="other"),
                replace(first, dtype="int32"),
                replace(first, shape=(2, 2)),
                replace(first, masked_crc32c=1),
            )
        }
        assert len(digests) == 5
        assert digest_of_tensors(reversed(tensors)) == digest_of_tensors(tensors)
        assert digest_of_tensors([replace(first, offset=7), *tensors[1:]]) == digest_of_tensors(tensors)


def verdict_with(**parts: tuple[str, ...]) -> CheckpointVerdict:
    nothing: dict[str, tuple[str, ...]] = {"differing": (), "missing": (), "misshapen": (), "extra": ()}
    return CheckpointVerdict(matching=3, digest="", **{**nothing, **parts})


class TestWhatIsAccepted:
    def test_published_weights_are_accepted_everywhere(
        self, variant: Variant, capsys: pytest.CaptureFixture[str]
    ) -> None:
        require_published(verdict_with(), PLAIN, variant)
        require_fit(verdict_with(), PLAIN, variant)
        tell_of_weights(verdict_with(), PLAIN, variant)
        assert capsys.readouterr().err.count("all 3 tensors are the published ones") == 2

    def test_other_weights_are_a_warning_for_a_users_own(
        self, variant: Variant, capsys: pytest.CaptureFixture[str]
    ) -> None:
        require_fit(verdict_with(differing=("a",)), PLAIN, variant)
        assert capsys.readouterr().err == ""
        tell_of_weights(verdict_with(differing=("a",)), PLAIN, variant)
        assert "warning: " in (said := capsys.readouterr().err)
        assert "not the published weights" in said

    def test_other_weights_are_an_error_for_our_download(self, variant: Variant) -> None:
        with pytest.raises(IntegrityError, match="not the published weights"):
            require_published(verdict_with(differing=("a",)), PLAIN, variant)

    @pytest.mark.parametrize("part", ["missing", "misshapen"])
    def test_what_does_not_fit_is_never_accepted(self, part: str, variant: Variant) -> None:
        verdict = verdict_with(**{part: ("a",)})
        with pytest.raises(ConfigError, match="does not fit the variant fp32"):
            require_fit(verdict, PLAIN, variant)
        with pytest.raises(IntegrityError):
            require_published(verdict, PLAIN, variant)

    @pytest.mark.parametrize(
        ("verdict", "tip"),
        [
            (verdict_with(missing=("Conv/act_quant/max", "Conv/weights_quant/min")), "the float checkpoint"),
            (verdict_with(missing=("a",), extra=("_CHECKPOINTABLE_OBJECT_GRAPH",)), "TensorFlow 2"),
            (verdict_with(misshapen=("a: …",)), "a checkpoint of this very model"),
        ],
    )
    def test_the_tip_says_what_the_checkpoint_looks_like(
        self, verdict: CheckpointVerdict, tip: str, variant: Variant
    ) -> None:
        with pytest.raises(ConfigError) as problem:
            require_fit(verdict, PLAIN, variant)
        assert tip in str(problem.value.tip)

    def test_quantized_checkpoint_for_the_float_variant_is_doubted(
        self, variant: Variant, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tell_of_weights(verdict_with(differing=("a",), extra=("Conv/act_quant/max",)), PLAIN, variant)
        assert "is it the checkpoint of the quantized variant?" in capsys.readouterr().err


class TestModelDirectory:
    def test_files_are_found(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        files = locate_checkpoint(model_dir, tiny_recipe, tiny_recipe.variants["fp32"])
        assert files.config == model_dir / "fp32" / "pipeline.config"
        assert files.prefix == model_dir / "fp32" / "model.ckpt-400000"
        assert all(path.is_file() for path in (files.index, *files.shards))

    def test_folder_of_the_variant_is_corrected(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        assert f"--model-dir {model_dir} " in advice(model_dir / "fp32", tiny_recipe)

    def test_folder_around_is_corrected(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        assert f"--model-dir {model_dir} " in advice(model_dir.parent, tiny_recipe)

    def test_file_of_the_checkpoint_is_corrected(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        said = advice(model_dir / "fp32" / "pipeline.config", tiny_recipe)
        assert "is a file" in said
        assert f"--model-dir {model_dir} " in said

    def test_archive_is_told_how_to_unpack(self, model_archive: Path, tiny_recipe: Recipe) -> None:
        assert f"`fetch --url {model_archive}`" in advice(model_archive, tiny_recipe)
        assert f"`fetch --url {model_archive}`" in advice(model_archive.parent, tiny_recipe)

    def test_missing_folder_is_said_to_be_missing(self, tmp_path: Path, tiny_recipe: Recipe) -> None:
        assert "does not exist" in (said := advice(tmp_path / "nowhere", tiny_recipe))
        assert "demo" in said

    def test_other_folder_is_described(self, tmp_path: Path, tiny_recipe: Recipe) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").touch()
        assert "it holds cat.jpg; --model-dir wants fp32/pipeline.config" in advice(
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
        assert "its prefix is model.ckpt" in advice(model_dir, tiny_recipe)
        variant = tiny_recipe.variants["fp32"]
        found = locate_checkpoint(model_dir, tiny_recipe, variant, checkpoint_prefix="model.ckpt")
        assert found.prefix == folder / "model.ckpt"

    def test_several_prefixes_are_listed(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        folder = model_dir / "fp32"
        (folder / f"{PLAIN.name}.index").rename(folder / "a.index")
        (folder / "b.index").touch()
        assert "name one of the prefixes that are there: a, b" in advice(model_dir, tiny_recipe)

    def test_no_checkpoint_at_all_is_said(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        (model_dir / "fp32" / f"{PLAIN.name}.index").unlink()
        assert "there is no checkpoint at all" in advice(model_dir, tiny_recipe)


class TestPrefix:
    @pytest.mark.parametrize("suffix", [".index", ".meta", ".data-00000-of-00001"])
    def test_file_instead_of_prefix_is_corrected(self, suffix: str, model_dir: Path) -> None:
        prefix = model_dir / "fp32" / PLAIN.name
        with pytest.raises(ConfigError, match="not its prefix") as problem:
            find_checkpoint(model_dir / "fp32" / "pipeline.config", prefix.with_name(prefix.name + suffix))
        assert problem.value.tip == f"give the prefix that all its files share: {prefix}"

    def test_folder_instead_of_prefix_names_the_prefix(self, model_dir: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder") as problem:
            find_checkpoint(model_dir / "fp32" / "pipeline.config", model_dir / "fp32")
        assert PLAIN.name in str(problem.value.tip)

    def test_first_format_is_recognised(self, model_dir: Path) -> None:
        (model_dir / "fp32" / "old.ckpt").write_bytes(b"\x00\x11\x0a\x0f")
        with pytest.raises(ConfigError, match="TensorFlow's first format"):
            find_checkpoint(model_dir / "fp32" / "pipeline.config", model_dir / "fp32" / "old.ckpt")

    def test_config_in_place_of_a_prefix_is_recognised(self, model_dir: Path) -> None:
        config = model_dir / "fp32" / "pipeline.config"
        config.write_text("model { }")
        with pytest.raises(ConfigError, match="is no checkpoint: it holds text") as problem:
            find_checkpoint(config, config)
        assert PLAIN.name in str(problem.value.tip)

    def test_folder_in_place_of_a_config_is_recognised(self, model_dir: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder, not a config"):
            find_checkpoint(model_dir / "fp32", model_dir / "fp32" / PLAIN.name)

    def test_damaged_index_is_an_integrity_error(self, model_dir: Path) -> None:
        (model_dir / "fp32" / f"{PLAIN.name}.index").write_bytes(b"<html>")
        with pytest.raises(IntegrityError, match="no readable checkpoint index"):
            find_checkpoint(model_dir / "fp32" / "pipeline.config", model_dir / "fp32" / PLAIN.name)


def test_the_recipes_tables_are_complete() -> None:
    sizes = {
        name: len(variant.tensor_table.read_text().splitlines()) - 1
        for name, variant in load_recipe().variants.items()
    }
    assert sizes == {"fp32": 430, "uint8": 832}
