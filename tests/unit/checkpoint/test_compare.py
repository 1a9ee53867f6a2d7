"""Comparing a checkpoint with the published one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner.checkpoint.compare import (
    CheckpointVerdict,
    check_checkpoint,
    digest_of_tensors,
    report_weights,
    require_fit,
    require_published,
)
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
    table = variant.tensor_table
    assert table is not None
    content = table.read_text()
    assert content.count(old) == 1
    table.write_text(content.replace(old, new))


class TestComparison:
    def test_published_values_give_one_line(self, variant: Variant) -> None:
        verdict = check_checkpoint(read_index(PLAIN), variant)
        assert verdict.is_published
        assert verdict.extra == ("text",)
        assert verdict.sentence == (
            "all 33 tensors are the published ones; ignored extra tensors, such as optimizer slots: 1"
        )

    def test_other_values_are_counted_and_fit(self, variant: Variant) -> None:
        rewrite_table(variant, "418f98b2", "418f98b3")
        verdict = check_checkpoint(read_index(PLAIN), variant)
        assert verdict.fits
        assert not verdict.is_published
        assert verdict.differing == ("Conv/biases",)
        assert (
            "not the published weights: of 33 tensors, 1 with other values (Conv/biases)" in verdict.sentence
        )

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


def verdict_with(**parts: Any) -> CheckpointVerdict:  # noqa: ANN401 - fields of a verdict
    verdict = CheckpointVerdict(matching=3, differing=(), missing=(), misshapen=(), extra=(), digest="")
    return replace(verdict, **parts)


class TestWhatIsAccepted:
    def test_published_weights_are_accepted_everywhere(
        self, variant: Variant, capsys: pytest.CaptureFixture[str]
    ) -> None:
        require_published(verdict_with(), PLAIN, variant)
        require_fit(verdict_with(), PLAIN, variant)
        report_weights(verdict_with(), PLAIN, variant)
        assert capsys.readouterr().err.count("all 3 tensors are the published ones") == 2

    def test_other_weights_are_a_warning_for_a_users_own(
        self, variant: Variant, capsys: pytest.CaptureFixture[str]
    ) -> None:
        require_fit(verdict_with(differing=("a",)), PLAIN, variant)
        assert capsys.readouterr().err == ""
        report_weights(verdict_with(differing=("a",)), PLAIN, variant)
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
            (verdict_with(missing=("Conv/act_quant/max", "Conv/weights_quant/min")), "a float checkpoint"),
            (verdict_with(misshapen=("a: …",)), "a checkpoint of this model"),
        ],
    )
    def test_the_tip_says_what_the_checkpoint_looks_like(
        self, verdict: CheckpointVerdict, tip: str, variant: Variant
    ) -> None:
        with pytest.raises(ConfigError) as problem:
            require_fit(verdict, PLAIN, variant)
        assert tip in str(problem.value.tip)

    def test_quantized_checkpoint_for_the_float_variant_is_refused(self, variant: Variant) -> None:
        extra = ("Conv/act_quant/max", "Conv/act_quant/min", "Conv/weights/Momentum")
        with pytest.raises(
            ConfigError, match=r"fp32 is converted as a float model: 2 quantization ranges"
        ) as problem:
            require_fit(verdict_with(extra=extra), PLAIN, variant)
        assert "--ignore-quantization" in str(problem.value.tip)


def test_the_recipes_tables_are_complete() -> None:
    sizes = {
        name: len(variant.tensor_table.read_text().splitlines()) - 1
        for name, variant in load_recipe().variants.items()
        if variant.tensor_table is not None
    }
    assert sizes == {"fp32": 430, "uint8": 832}
