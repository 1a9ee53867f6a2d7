from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.errors import DiskFullError, UsageError
from runner.evidence.check.clipping import ClippedInput
from runner.evidence.check.compare import ConcatSetting, Discrepancy, SettingSource
from runner.evidence.check.files import Pair, _copied, find_pairs, for_provenance, lines, sentence
from runner.evidence.check.run import CheckReport, OutputDifference
from runner.recipes.recipe import load_recipe
from tests.disks import small_disk
from tests.locations import DATA

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = load_recipe()
PASSED = CheckReport(
    variant="fp32",
    convolutions=93,
    quantized_tensors=0,
    images=2,
    seed=0,
    has_random_weights=False,
    image_spread=1.0,
    concat=ConcatSetting(change_concat_input_ranges=None, source=SettingSource.FILE),
    clipped=(),
    findings=(),
    differences=(
        OutputDifference(output="boxes", runtime="LiteRT", largest=6e-4, unit="in reals", limit=1e-2),
    ),
)
CLIPPED = ClippedInput(
    concatenation="concat_1",
    input="BoxPredictor_1/Reshape_1",
    own=(-10.68, 1.699),
    kept=(-10.69, 1.214),
    largest_score=0.771,
    largest_own_score=0.845,
)


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    """An output directory as conversions leave it, including the copies."""
    for name, variant in RECIPE.variants.items():
        (tmp_path / name).mkdir()
        for target in (tmp_path / name / variant.file_name, tmp_path / str(variant.copy_name)):
            shutil.copy(DATA / "tiny_detector" / f"{name}.run0.tflite", target)
        (tmp_path / name / "tflite_graph.pb").write_bytes(b"graph")
    return tmp_path


@pytest.mark.as_root
def test_a_full_disk_is_not_blamed_on_the_file_that_is_copied(out_dir: Path, tmp_path: Path) -> None:
    file = out_dir / "fp32" / "mobiledet.tflite"
    with small_disk(tmp_path / "full", "nr_inodes=1") as small, pytest.raises(DiskFullError, match="is full"):
        _copied(file, small / "copies")


def test_an_output_directory_is_all_its_variants(out_dir: Path) -> None:
    pairs = find_pairs(out_dir, RECIPE)
    assert [(pair.variant.name, pair.graph) for pair in pairs] == [
        ("fp32", out_dir / "fp32" / "tflite_graph.pb"),
        ("uint8", out_dir / "uint8" / "tflite_graph.pb"),
    ]


def test_a_variants_folder_is_that_variant(out_dir: Path) -> None:
    (pair,) = find_pairs(out_dir / "uint8", RECIPE)
    assert (pair.variant.name, pair.tflite) == ("uint8", out_dir / "uint8" / "mobiledet_qat.tflite")


@pytest.mark.parametrize("name", ["fp32", "uint8"])
def test_a_copy_has_the_graph_of_what_it_is_a_copy_of(out_dir: Path, name: str) -> None:
    (pair,) = find_pairs(out_dir / str(RECIPE.variants[name].copy_name), RECIPE)
    assert (pair.variant.name, pair.graph) == (name, out_dir / name / "tflite_graph.pb")


def test_a_named_graph_is_taken(out_dir: Path, tmp_path: Path) -> None:
    (pair,) = find_pairs(out_dir / "fp32" / "mobiledet.tflite", RECIPE, graph=tmp_path / "other.pb")
    assert pair.graph == tmp_path / "other.pb"


def test_a_file_without_graph_is_a_usage_error(out_dir: Path) -> None:
    (out_dir / "fp32" / "tflite_graph.pb").unlink()
    with pytest.raises(UsageError, match=r"no frozen graph tflite_graph\.pb beside"):
        find_pairs(out_dir / "fp32" / "mobiledet.tflite", RECIPE)


def test_an_empty_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no converted file"):
        find_pairs(tmp_path, RECIPE)


def test_an_unknown_variant_is_a_usage_error(out_dir: Path) -> None:
    with pytest.raises(UsageError, match="int4"):
        find_pairs(out_dir, RECIPE, variant_name="int4")


def test_a_passed_check_reports_what_was_compared_and_the_limit() -> None:
    assert "93 convolutions" in sentence(PASSED)
    assert "by at most 0.001" in sentence(PASSED)


def test_a_quantized_check_says_that_outputs_are_not_judged() -> None:
    unjudged = replace(PASSED.differences[0], unit="steps", limit=None)
    assert "without a limit" in sentence(replace(PASSED, quantized_tensors=219, differences=(unjudged,)))


def test_a_quantized_check_on_images_says_within_which_limit() -> None:
    judged = replace(PASSED.differences[0], unit="steps", limit=16.0)
    report = replace(PASSED, quantized_tensors=219, seed=None, differences=(judged,))
    assert "by at most 16 (boxes) quantization steps" in sentence(report)


@pytest.mark.parametrize(
    ("value", "source", "said"),
    [
        (
            True,
            SettingSource.PLAN,
            "change_concat_input_ranges=true (known from the conversion's TOCO command)",
        ),
        (False, SettingSource.FILE, "change_concat_input_ranges=false (known from the file)"),
        (None, SettingSource.FILE, "either value of change_concat_input_ranges"),
    ],
)
def test_a_quantized_check_reports_the_flag_of_toco(
    value: bool | None, source: SettingSource, said: str
) -> None:
    concat = ConcatSetting(change_concat_input_ranges=value, source=source)
    assert said in sentence(replace(PASSED, quantized_tensors=219, concat=concat))


def test_clipping_is_reported_and_recorded(tmp_path: Path) -> None:
    concat = ConcatSetting(change_concat_input_ranges=True, source=SettingSource.PROVENANCE)
    report = replace(PASSED, quantized_tensors=219, concat=concat, clipped=(CLIPPED,))
    pair = Pair(variant=RECIPE.variants["uint8"], tflite=tmp_path / "m.tflite", graph=tmp_path / "g.pb")
    assert "1 input of concat_1 clipped: scores at most 0.771 instead of 0.845" in sentence(report)
    assert for_provenance(report)["clipped"] == [CLIPPED.sentence]
    assert f"  {CLIPPED.sentence}" in list(lines(report, pair))


def test_a_provenance_holds_nothing_measured() -> None:
    other_machine = replace(PASSED, differences=(replace(PASSED.differences[0], largest=7e-4),))
    assert for_provenance(PASSED) == for_provenance(other_machine)


def test_a_failed_check_names_what_was_found(tmp_path: Path) -> None:
    finding = Discrepancy(tensor="Conv/weights", what="weight", expected="1", found="2")
    pair = Pair(variant=RECIPE.variants["fp32"], tflite=tmp_path / "m.tflite", graph=tmp_path / "g.pb")
    said = "\n".join(lines(replace(PASSED, findings=(finding,)), pair))
    assert "does not compute" in said
    assert "Conv/weights: weight is 2, not 1" in said
