"""The verdicts and their reports; `diff` gives the same."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from runner.console import plain
from runner.errors import IdentityError, IntegrityError, UsageError
from runner.recipes.recipe import load_recipe
from runner.tflite.diff import Kind, Verdict, diff_models
from runner.tflite.key_orders import read_post_process_options, write_flexbuffer
from runner.tflite.model import read_model, read_model_file
from runner.tflite.reports import diff_lines, verification_lines
from runner.tflite.rewrite import write_wanted
from runner.tflite.verify import verify, verify_against
from tests.altered import (
    with_other_blob,
    with_other_layout,
    with_other_metadata,
    with_other_operator,
    with_other_options,
    with_other_scale,
    with_other_weight,
    with_other_zero_point,
    with_renamed_custom_operator,
)
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.recipes.recipe import Recipe

UINT8 = (TINY_DETECTOR / "uint8.run0.tflite").read_bytes()


def at(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "it.tflite"
    path.write_bytes(content)
    return path


def told(path: Path, recipe: Recipe) -> dict[str, tuple[str, str]]:
    found = verify(path, recipe)
    return {problem.what: (problem.expected, problem.found) for problem in found.problems}


def test_the_published_bytes_are_recognised(kind: str, tiny_recipe: Recipe) -> None:
    found = verify(TINY_DETECTOR / f"{kind}.run4.tflite", tiny_recipe)
    assert (found.verdict, found.variant) == (Verdict.SAME_BYTES, kind)


def test_another_key_order_gives_the_published_bytes(kind: str, tiny_recipe: Recipe, tmp_path: Path) -> None:
    source, target = TINY_DETECTOR / f"{kind}.tf2.1.tflite", tmp_path / "published.tflite"
    found = verify(source, tiny_recipe)
    assert (found.verdict, found.variant) == (Verdict.OTHER_METADATA, kind)
    assert any("--write OUT" in line for line in verification_lines(found, show_all=False))
    write_wanted(found, source, target)
    assert target.read_bytes() == (TINY_DETECTOR / f"{kind}.run4.tflite").read_bytes()
    assert verify(target, tiny_recipe).verdict is Verdict.SAME_BYTES


@pytest.mark.parametrize("alter", [with_other_weight, with_other_scale, with_other_zero_point])
def test_other_content_is_told_from_other_structure(
    alter: Callable[[bytes, str], bytes], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    path = at(tmp_path, alter(UINT8, CONV_WEIGHTS))
    found = verify(path, tiny_recipe)
    assert (found.verdict, found.problems, found.variant) == (Verdict.OTHER_CONTENT, (), "uint8")
    assert any("fetch --published" in line for line in verification_lines(found, show_all=False))
    with pytest.raises(IdentityError, match="was not written"):
        write_wanted(found, path, tmp_path / "published.tflite")
    assert not (tmp_path / "published.tflite").exists()


def test_with_the_published_file_the_differing_tensors_are_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    published = {name: TINY_DETECTOR / f"{name}.run4.tflite" for name in tiny_recipe.variants}
    path = at(tmp_path, with_other_weight(UINT8, CONV_WEIGHTS))
    found = verify(path, tiny_recipe, published_files=published)
    assert found.diff is not None
    assert [it.where for it in found.diff.differences] == [CONV_WEIGHTS]
    assert any(CONV_WEIGHTS in line for line in verification_lines(found, show_all=False))


def test_another_threshold_is_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = at(tmp_path, with_other_options(UINT8, {"nms_score_threshold": 0.5}))
    assert verify(path, tiny_recipe).verdict is Verdict.OTHER_STRUCTURE
    assert list(told(path, tiny_recipe)) == ["post-processing option nms_score_threshold"]


def test_another_number_of_detections_is_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = at(tmp_path, with_other_options(UINT8, {"max_detections": 100}))
    assert told(path, tiny_recipe) == {"post-processing option max_detections": ("10", "100")}


def test_other_operators_are_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = at(tmp_path, with_other_operator(UINT8))
    assert told(path, tiny_recipe) == {"number of LOGISTIC": ("1", "0"), "number of TANH": ("0", "1")}


def test_the_metadata_of_no_known_toco_is_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = at(tmp_path, with_other_metadata(UINT8))
    assert told(path, tiny_recipe) == {"TOCO version (min_runtime_version)": ("1.5.0 or 1.14.0", "9.9.9")}
    assert verify(path, tiny_recipe).verdict is Verdict.OTHER_CONTENT


def test_missing_post_processing_is_named(tiny_recipe: Recipe) -> None:
    problems = told(TINY_DETECTOR / "no_post_processing.tflite", tiny_recipe)
    assert problems["post-processing"][1] == "no post-processing operator"
    assert "outputs" in problems


def test_unreadable_options_are_wrong_options(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = at(tmp_path, with_other_blob(UINT8, b"\xff" * 316))
    assert verify(path, tiny_recipe).verdict is Verdict.OTHER_STRUCTURE
    assert "FlexBuffer" in told(path, tiny_recipe)["post-processing"][1]


def test_another_custom_operator_is_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    problems = told(at(tmp_path, with_renamed_custom_operator(UINT8)), tiny_recipe)
    assert {"post-processing", "number of Somete_Detection_PostProcess"} <= set(problems)


def test_the_other_variant_is_of_another_kind(tiny_recipe: Recipe) -> None:
    found = verify(TINY_DETECTOR / "fp32.run0.tflite", tiny_recipe, variant_name="uint8")
    assert {problem.what for problem in found.problems} == {"input", "kind of quantization"}


def test_the_real_recipe_does_not_take_the_tiny_detector() -> None:
    problems = told(TINY_DETECTOR / "uint8.run0.tflite", load_recipe())
    assert problems["number of CONV_2D"] == ("66", "3")
    assert problems["post-processing option num_classes"] == ("90", "2")


def test_an_unknown_variant_is_a_usage_error(tiny_recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="no variant 'int4'"):
        verify(TINY_DETECTOR / "uint8.run0.tflite", tiny_recipe, variant_name="int4")


def test_a_damaged_file_is_an_integrity_error(tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        verify(at(tmp_path, UINT8[:3000]), tiny_recipe)
    with pytest.raises(IntegrityError):
        verify_against(TINY_DETECTOR / "uint8.run0.tflite", at(tmp_path, UINT8[:3000]), tiny_recipe)


def test_a_recipe_that_knows_nothing_published_still_judges(tiny_recipe: Recipe) -> None:
    variants = {name: replace(it, published=None) for name, it in tiny_recipe.variants.items()}
    unknown = replace(tiny_recipe, structure=None, variants=MappingProxyType(variants))
    assert verify(TINY_DETECTOR / "uint8.run4.tflite", unknown).verdict is Verdict.OTHER_CONTENT


def test_against_a_file_its_own_bytes_are_the_same(tiny_recipe: Recipe) -> None:
    found = verify_against(
        TINY_DETECTOR / "uint8.run1.tflite", TINY_DETECTOR / "uint8.run1.tflite", tiny_recipe
    )
    assert found.verdict is Verdict.SAME_BYTES
    assert "not a published file" in found.wanted


def test_a_reference_that_is_the_published_file_is_recognised(tiny_recipe: Recipe) -> None:
    found = verify_against(
        TINY_DETECTOR / "uint8.run1.tflite", TINY_DETECTOR / "uint8.run4.tflite", tiny_recipe
    )
    assert found.verdict is Verdict.OTHER_KEY_ORDER
    assert "the published mobiledet_qat.tflite" in found.wanted


def test_against_a_file_another_key_order_gives_its_bytes(tiny_recipe: Recipe, tmp_path: Path) -> None:
    source, reference = TINY_DETECTOR / "uint8.run0.tflite", TINY_DETECTOR / "uint8.tf2.1.tflite"
    found = verify_against(source, reference, tiny_recipe)
    assert found.verdict is Verdict.OTHER_METADATA
    write_wanted(found, source, tmp_path / "out.tflite")
    assert (tmp_path / "out.tflite").read_bytes() == reference.read_bytes()


@pytest.mark.parametrize(
    ("content", "verdict", "kind", "where"),
    [
        (with_other_weight(UINT8, CONV_WEIGHTS), Verdict.OTHER_CONTENT, Kind.WEIGHTS, CONV_WEIGHTS),
        (with_other_scale(UINT8, CONV_WEIGHTS), Verdict.OTHER_CONTENT, Kind.SCALE, CONV_WEIGHTS),
        (
            with_other_zero_point(UINT8, CONV_WEIGHTS),
            Verdict.OTHER_CONTENT,
            Kind.ZERO_POINT,
            CONV_WEIGHTS,
        ),
        (
            with_other_options(UINT8, {"nms_score_threshold": 0.5}),
            Verdict.OTHER_STRUCTURE,
            Kind.OPTION,
            "TFLite_Detection_PostProcess.nms_score_threshold",
        ),
        (with_other_operator(UINT8), Verdict.OTHER_STRUCTURE, Kind.OPERATOR, "TANH -> classes"),
        (with_other_metadata(UINT8), Verdict.OTHER_METADATA, Kind.METADATA, "min_runtime_version"),
    ],
    ids=["weight", "scale", "zero point", "threshold", "operator", "metadata"],
)
def test_against_a_file_one_alteration_is_named_exactly(
    content: bytes, verdict: Verdict, kind: Kind, where: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    found = verify_against(at(tmp_path, content), TINY_DETECTOR / "uint8.run3.tflite", tiny_recipe)
    assert found.verdict is verdict
    assert found.diff is not None
    assert [(it.kind, it.where) for it in found.diff.differences] == [(kind, where)]


@pytest.mark.parametrize(
    "content",
    [
        UINT8,
        (TINY_DETECTOR / "uint8.run3.tflite").read_bytes(),
        (TINY_DETECTOR / "uint8.tf2.1.tflite").read_bytes(),
        (TINY_DETECTOR / "fp32.run0.tflite").read_bytes(),
        with_other_layout(UINT8),
        with_other_metadata(UINT8),
        with_other_weight(UINT8, CONV_WEIGHTS),
        with_other_operator(UINT8),
    ],
)
def test_diff_gives_the_same_verdict(content: bytes, tiny_recipe: Recipe, tmp_path: Path) -> None:
    path, reference = at(tmp_path, content), TINY_DETECTOR / "uint8.run3.tflite"
    found, diff = (
        verify_against(path, reference, tiny_recipe),
        diff_models(*map(read_model_file, (path, reference))),
    )
    assert (found.verdict, found.diff) == (diff.verdict, diff)
    verified, compared = (
        list(verification_lines(found, show_all=False)),
        list(diff_lines(diff, show_all=False)),
    )
    assert verified[2:] == compared[1:]
    assert diff.verdict is Verdict.SAME_BYTES or compared[0] in verified[1]


def test_an_order_read_from_the_reference_can_be_written(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Google's own files have orders that no TOCO built from public source writes."""
    options = read_post_process_options(read_model(UINT8))
    assert options is not None
    order = tuple(sorted(options.order))
    assert order not in options.possible_orders
    reference = at(tmp_path, with_other_blob(UINT8, write_flexbuffer(order, options.values)))
    for name in ("uint8.run1", "uint8.tf2.1"):
        found = verify_against(TINY_DETECTOR / f"{name}.tflite", reference, tiny_recipe)
        assert found.verdict.is_same_content
        assert found.wanted_content == reference.read_bytes()


def test_the_same_content_in_another_layout_cannot_be_written(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path, reference = at(tmp_path, with_other_layout(UINT8)), TINY_DETECTOR / "uint8.run0.tflite"
    found = verify_against(path, reference, tiny_recipe)
    assert (found.verdict, found.wanted_content) == (Verdict.OTHER_LAYOUT, None)
    assert not any("--write" in line for line in verification_lines(found, show_all=False))
    with pytest.raises(IdentityError, match="was not written"):
        write_wanted(found, path, tmp_path / "out.tflite")


def test_the_json_contains_no_bytes(tiny_recipe: Recipe) -> None:
    entry = plain(verify(TINY_DETECTOR / "uint8.run1.tflite", tiny_recipe))
    assert isinstance(entry, dict)
    assert entry["verdict"] == Verdict.OTHER_KEY_ORDER.value
    assert "wanted_content" not in entry
