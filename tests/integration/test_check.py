"""Check a ``.tflite`` against its frozen graph in the real toolchain, with one fault at a time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.convert.stand_in import write_stand_in
from runner.errors import ConfigError, IdentityError
from runner.evidence.check.compare import ConcatSetting, SettingSource
from runner.evidence.check.run import (
    CheckReport,
    CheckRequest,
    GraphRun,
    check_conversion,
    judge,
    require_passed,
    run_graph,
)
from runner.scripts.run import ScriptOptions
from runner.tflite.schema import schema
from tests.altered import with_other_options, with_other_scale, with_other_zero_point

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Program

    Fault = Callable[[bytes], bytes]

pytestmark = pytest.mark.any_engine

POST_PROCESS = "TFLite_Detection_PostProcess"
LAYER = "FeatureExtractor/MobileDetEdgeTPU/IBN/Conv"
FLOAT_WEIGHTS, FLOAT_BIAS = f"{LAYER}/weights", f"{LAYER}/Conv2D_bias"
UINT8_WEIGHTS = f"{LAYER}/weights_quant/FakeQuantWithMinMaxVars"
UINT8_BIAS = f"{LAYER}/Conv2D_Fold_bias"
SUM = "FeatureExtractor/MobileDetEdgeTPU/FusedConv_2/add"
INPUT = "normalized_input_image_tensor"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A conversion, and the toolchain's report on its graph."""

    session: Session
    request: CheckRequest
    run: GraphRun

    @property
    def content(self) -> bytes:
        return self.request.tflite.read_bytes()

    def judge(self, content: bytes) -> CheckReport:
        copy = self.request.work_dir / "planted.tflite"
        copy.write_bytes(content)
        return judge(replace(self.request, tflite=copy), self.run)


def checked(variant: str, session: Session, recipe: Recipe, converted: Converted, workspace: Path) -> Checked:
    work_dir = workspace / "check" / variant
    work_dir.mkdir(parents=True, exist_ok=True)
    made = converted.out_dir / variant
    for name in ("tflite_graph.pb", recipe.variants[variant].file_name):
        shutil.copyfile(made / name, work_dir / name)
    request = CheckRequest(
        variant=recipe.variants[variant],
        graph=work_dir / "tflite_graph.pb",
        tflite=work_dir / recipe.variants[variant].file_name,
        work_dir=work_dir,
        options=ScriptOptions(log_dir=work_dir),
    )
    return Checked(session=session, request=request, run=run_graph(session, request))


@pytest.fixture(scope="module")
def fp32(session: Session, recipe: Recipe, converted: Converted, workspace: Path) -> Checked:
    return checked("fp32", session, recipe, converted, workspace)


@pytest.fixture(scope="module")
def uint8(session: Session, recipe: Recipe, converted: Converted, workspace: Path) -> Checked:
    return checked("uint8", session, recipe, converted, workspace)


def found(report: CheckReport) -> set[tuple[str, str]]:
    assert not report.passed
    return {(finding.tensor, finding.what) for finding in report.findings}


def with_value(tensor: str, dtype: str, value: float, count: int = 1) -> Fault:
    """Give the first elements of a tensor another value."""

    def plant(content: bytes) -> bytes:
        copy = bytearray(content)
        root = schema.Model.GetRootAs(copy)
        graph = root.Subgraphs(0)
        tensors = (graph.Tensors(index) for index in range(graph.TensorsLength()))
        (owner,) = (each for each in tensors if each.Name() == tensor.encode())
        root.Buffers(owner.Buffer()).DataAsNumpy().view(dtype)[:count] = value
        return bytes(copy)

    return plant


def with_swapped_outputs(content: bytes) -> bytes:
    copy = bytearray(content)
    outputs = schema.Model.GetRootAs(copy).Subgraphs(0).OutputsAsNumpy()
    outputs[[1, 2]] = outputs[[2, 1]]
    return bytes(copy)


def with_other_threshold(content: bytes) -> bytes:
    return with_other_options(content, {"nms_score_threshold": 0.5})


def test_float_conversion_computes_what_its_graph_computes(fp32: Checked) -> None:
    report = judge(fp32.request, fp32.run)
    assert report.passed
    assert (report.convolutions, report.quantized_tensors, len(report.differences)) == (93, 0, 4)
    assert all(each.limit is not None and each.largest < each.limit for each in report.differences)


def test_quantized_conversion_holds_what_its_graph_says(uint8: Checked) -> None:
    report = judge(uint8.request, uint8.run)
    assert report.passed
    assert (report.convolutions, report.quantized_tensors) == (93, 219)
    assert {(each.unit, each.limit) for each in report.differences} == {("steps", None)}


def test_outputs_of_the_stand_in_depend_on_the_image(fp32: Checked, uint8: Checked) -> None:
    for run in (fp32.run, uint8.run):
        boxes, classes = run.graph_outputs
        assert np.abs(boxes[0] - boxes[1]).max() > 1
        assert np.abs(classes[0] - classes[1]).max() > 0.5


def test_one_perturbed_weight_is_seen_in_the_outputs(fp32: Checked) -> None:
    report = fp32.judge(with_value(FLOAT_WEIGHTS, "<f4", 1.0)(fp32.content))
    assert found(report) == {(FLOAT_WEIGHTS, "weights")}
    assert [each.is_within_limit for each in report.differences if each.runtime == "LiteRT"] == [False, False]


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (with_value(FLOAT_BIAS, "<f4", 0.5), (FLOAT_BIAS, "bias")),
        # A convolution that kept its BatchNorm to itself has no bias.
        (with_value(FLOAT_BIAS, "<f4", 0.0, count=320), (FLOAT_BIAS, "bias")),
        (with_swapped_outputs, (POST_PROCESS, "outputs")),
        (with_other_threshold, (POST_PROCESS, "nms_score_threshold")),
    ],
    ids=["bias", "batch norm", "outputs", "threshold"],
)
def test_fault_in_a_float_file_is_named(fp32: Checked, plant: Fault, expected: tuple[str, str]) -> None:
    assert found(fp32.judge(plant(fp32.content))) == {expected}


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        # Seed 0 fills this place with the highest integer: its weight is beyond the published range.
        (with_value(UINT8_WEIGHTS, "u1", 128), (UINT8_WEIGHTS, "weights")),
        (with_value(UINT8_BIAS, "<i4", 100000), (UINT8_BIAS, "bias")),
        (lambda content: with_other_scale(content, SUM), (SUM, "scale")),
        (lambda content: with_other_zero_point(content, SUM), (SUM, "zero point")),
        (with_swapped_outputs, (POST_PROCESS, "outputs")),
        (with_other_threshold, (POST_PROCESS, "nms_score_threshold")),
    ],
    ids=["weight", "bias", "scale", "zero point", "outputs", "threshold"],
)
def test_fault_in_a_quantized_file_is_named(uint8: Checked, plant: Fault, expected: tuple[str, str]) -> None:
    assert expected in found(uint8.judge(plant(uint8.content)))


def test_other_flags_of_toco_are_named(uint8: Checked) -> None:
    product = converted_with(uint8, "--mean_values=127", "--std_values=127")
    findings = found(uint8.judge(product.read_bytes()))
    assert {(INPUT, "scale"), (INPUT, "zero point")} <= findings


def converted_with(uint8: Checked, *flags: str) -> Path:
    """Convert the stand-in's graph as the recipe does, with other flags."""
    product = uint8.request.work_dir / "other_flags.tflite"
    outputs = ",".join([POST_PROCESS, *(f"{POST_PROCESS}:{number}" for number in (1, 2, 3))])
    done = uint8.session.run(
        "toco",
        f"--input_file={uint8.request.graph}",
        f"--output_file={product}",
        f"--input_arrays={INPUT}",
        "--input_shapes=1,320,320,3",
        f"--output_arrays={outputs}",
        "--inference_type=QUANTIZED_UINT8",
        "--allow_custom_ops",
        *flags,
    )
    assert done.exit_code == 0, done.stderr[-20:]
    return product


@pytest.fixture(scope="module")
def faithful(uint8: Checked) -> bytes:
    """The file that TOCO makes from the stand-in's graph without clipping."""
    values = ("--mean_values=128", "--std_values=128")
    return converted_with(uint8, *values, "--change_concat_input_ranges=false").read_bytes()


def test_heads_that_the_published_recipe_clips_are_named(uint8: Checked) -> None:
    """The bounds of the published ranges: 0.771 by the file's range, 0.845 by the second head's own."""
    report = judge(uint8.request, uint8.run)
    assert report.concat == ConcatSetting(change_concat_input_ranges=True, source=SettingSource.FILE)
    assert {each.concatenation for each in report.clipped} == {"concat_1"}
    assert len(report.clipped) == 3
    assert [round(each.kept[1], 3) for each in report.clipped] == [1.214] * 3
    second = report.clipped[0]
    assert second.largest_score == pytest.approx(0.771, abs=5e-4)
    assert second.largest_own_score == pytest.approx(0.845, abs=5e-4)


@pytest.mark.slow
def test_file_that_clips_nothing_passes_as_it_is(
    uint8: Checked, faithful: bytes, program: Program, tmp_path: Path
) -> None:
    file = tmp_path / "faithful.tflite"
    file.write_bytes(faithful)
    arguments = ("check", file, "--graph", uint8.request.graph, "--count", "1", "--json")
    done = program(*arguments)
    assert done.exit_code == 0, done.stderr
    assert done.json[0]["concat"] == {"change_concat_input_ranges": False, "source": "the file"}
    assert done.json[0]["clipped"] == []
    stated = program(*arguments, "--change-concat-input-ranges")
    assert stated.exit_code == 8
    (finding,) = stated.json[0]["findings"]
    assert (finding["tensor"], finding["what"]) == ("concat_1", "change_concat_input_ranges")
    assert "change_concat_input_ranges is false, not true, according to the command line" in stated.stderr


def test_clipping_is_a_note_for_the_recipe_and_a_warning_for_another_model(
    uint8: Checked, converted: Converted, program: Program, tmp_path: Path
) -> None:
    said = "3 inputs of concat_1 clipped: scores at most 0.771 instead of 0.845"
    assert f"{said}; the published command of the recipe implies this value" in converted.stderr
    other = tmp_path / "other.tflite"
    other.write_bytes(with_other_options(uint8.content, {"max_detections": 20}))
    done = program("check", other, "--graph", uint8.request.graph, "--count", "1")
    assert done.exit_code == 8  # its graph says 10
    assert f"warning: [uint8] change_concat_input_ranges=true: {said}" in done.stderr
    assert "concat_1 clips BoxPredictor_1/" in done.stdout


def test_outputs_of_a_stand_in_are_not_judged_on_a_picture_either(
    converted: Converted, program: Program, tmp_path: Path
) -> None:
    image = tmp_path / "grey.ppm"
    image.write_bytes(b"P6 4 2 255\n" + bytes([128, 128, 128] * 8))
    done = program("check", converted.out_dir / "uint8", "--image", image, "--json")
    assert done.exit_code == 0, done.stderr
    (report,) = done.json
    assert report["has_random_weights"]
    assert {each["limit"] for each in report["differences"]} == {None}


def test_provenance_and_explain_name_what_is_clipped(converted: Converted, program: Program) -> None:
    done = program("explain", converted.out_dir / "uint8")
    assert "change_concat_input_ranges=true (known from the conversion's TOCO command)" in done.stdout
    assert "scores at most 0.771 instead of 0.845" in done.stdout


@pytest.mark.slow
def test_file_of_another_checkpoint_is_refused(
    fp32: Checked, engine: Engine, recipe: Recipe, program: Program, tmp_path: Path
) -> None:
    model_dir, options = tmp_path / "model", ScriptOptions(log_dir=tmp_path)
    model_dir.mkdir()
    write_stand_in(engine, recipe, model_dir, variants=["fp32"], seed=1, options=options)
    made = program("fp32", "--model-dir", model_dir, "--out", tmp_path / "out", "--no-check", "--json")
    assert made.exit_code == 0, made.stderr
    other = fp32.judge(Path(made.json[0]["file"]).read_bytes())
    assert len([what for _, what in found(other) if what == "weights"]) == 93
    with pytest.raises(IdentityError, match="does not match its frozen graph"):
        require_passed(other, fp32.request.tflite)


def test_given_images_are_used(fp32: Checked) -> None:
    image = fp32.request.work_dir / "grey.ppm"
    image.write_bytes(b"P6 4 2 255\n" + bytes([128, 128, 128] * 8))
    report = check_conversion(fp32.session, replace(fp32.request, images=(image,)))
    assert report.passed
    assert (report.images, report.seed) == (1, None)


def test_file_that_is_no_image_is_refused(fp32: Checked) -> None:
    image = fp32.request.work_dir / "no.png"
    image.write_bytes(b"no image")
    with pytest.raises(ConfigError, match="cannot be read as an image"):
        check_conversion(fp32.session, replace(fp32.request, images=(image,)))


def test_file_that_is_no_graph_is_refused(fp32: Checked) -> None:
    graph = fp32.request.work_dir / "no.pb"
    graph.write_bytes(b"no graph")
    with pytest.raises(ConfigError, match="not a frozen graph"):
        check_conversion(fp32.session, replace(fp32.request, graph=graph))
