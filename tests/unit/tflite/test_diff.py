"""Each difference is reported exactly; key order and layout are not differences."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.tflite.diff import Difference, Kind, ModelDiff, Plain, Verdict, diff_models
from runner.tflite.key_orders import read_post_process_options, write_flexbuffer
from runner.tflite.model import Model, QuantizationParameters, read_model, read_model_file
from runner.tflite.reports import diff_lines
from tests.altered import (
    compiled_for_edge_tpu,
    with_other_blob,
    with_other_layout,
    with_other_metadata,
    with_other_operator,
    with_other_options,
    with_other_scale,
    with_other_weight,
    with_other_zero_point,
    with_renamed_tensor,
)
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UINT8 = (TINY_DETECTOR / "uint8.run0.tflite").read_bytes()


def diff(left: bytes, right: bytes) -> ModelDiff:
    return diff_models(read_model(left), read_model(right))


def only(found: ModelDiff) -> Difference:
    (difference,) = found.differences
    return difference


def test_a_file_equals_itself() -> None:
    found = diff(UINT8, UINT8)
    assert (found.verdict, found.differences) == (Verdict.SAME_BYTES, ())
    assert list(diff_lines(found, show_all=False)) == ["same bytes"]


def test_the_order_of_keys_does_not_count(runs: tuple[bytes, ...]) -> None:
    found = diff(runs[0], runs[1])
    assert (found.verdict, found.means_the_same) == (Verdict.OTHER_KEY_ORDER, True)
    assert list(diff_lines(found, show_all=False)) == ["same content, different key order"]


def test_the_layout_does_not_count() -> None:
    found = diff(UINT8, with_other_layout(UINT8))
    assert (found.verdict, found.means_the_same) == (Verdict.OTHER_LAYOUT, True)
    assert list(diff_lines(found, show_all=False)) == ["same content, different layout"]


def test_another_name_of_a_constant_does_not_change_what_a_file_computes() -> None:
    found = diff(UINT8, with_renamed_tensor(UINT8, "boxes/shape", "boxes/shape_1"))
    assert (found.verdict, found.means_the_same) == (Verdict.OTHER_METADATA, True)
    assert only(found) == Difference(
        kind=Kind.NAME, where="boxes/shape", left="boxes/shape", right="boxes/shape_1"
    )


def test_another_constant_in_the_same_place_is_not_the_same_with_another_name() -> None:
    other = with_other_weight(with_renamed_tensor(UINT8, CONV_WEIGHTS, "weights"), "weights")
    kinds = {it.kind for it in diff(UINT8, other).differences}
    assert kinds == {Kind.TENSOR, Kind.OPERATOR}


def test_an_order_that_public_toco_cannot_write_is_another_order_too() -> None:
    options = read_post_process_options(read_model(UINT8))
    assert options is not None
    order = tuple(sorted(options.order))
    assert order not in options.possible_orders
    other = with_other_blob(UINT8, write_flexbuffer(order, options.values))
    assert diff(UINT8, other).verdict is Verdict.OTHER_KEY_ORDER


def test_another_weight_is_named_with_count_distance_and_place() -> None:
    found = diff(UINT8, with_other_weight(UINT8, CONV_WEIGHTS))
    difference = only(found)
    assert (difference.kind, difference.where) == (Kind.WEIGHTS, CONV_WEIGHTS)
    assert (difference.changed, difference.total, difference.largest) == (1, 108, 1.0)
    weights = next(it.data for it in read_model(UINT8).graphs[0].tensors if it.name == CONV_WEIGHTS)
    assert (difference.first, difference.left) == (0, tuple(weights[:3]))
    assert difference.right == (weights[0] ^ 1, weights[1], weights[2])
    left, right = (
        ", ".join(map(str, [first, weights[1], weights[2]])) for first in (weights[0], weights[0] ^ 1)
    )
    assert list(diff_lines(found, show_all=False))[-1] == (
        f"  {CONV_WEIGHTS}: 1 of 108 values, the largest difference 1, the first at 0: "
        f"({left}, ...) -> ({right}, ...)"
    )


def test_arrows_point_from_the_first_file_to_the_second(tmp_path: Path) -> None:
    paths = tmp_path / "a.tflite", tmp_path / "b.tflite"
    for path, content in zip(paths, (UINT8, with_other_metadata(UINT8)), strict=True):
        path.write_bytes(content)
    lines = list(diff_lines(diff_models(*map(read_model_file, paths)), show_all=False))
    assert lines == [
        "same content, different metadata",
        f"1 difference, {paths[0]} -> {paths[1]}:",
        "metadata (1)",
        "  min_runtime_version: 1.5.0 -> 9.9.9",
    ]


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        (
            tuple(range(90)),
            (*range(40), 7, *range(41, 90)),
            "1 of 90 values differ, the first at 40: "
            "(..., 38, 39, 40, 41, 42, ...) -> (..., 38, 39, 7, 41, 42, ...)",
        ),
        (
            tuple(range(90)),
            tuple(range(88)),
            "90 -> 88 values, 2 differ, the first at 88: (..., 86, 87, 88, 89) -> (..., 86, 87)",
        ),
        (
            tuple(f"FeatureExtractor/Conv_{number}/Relu6" for number in range(9)),
            tuple(f"FeatureExtractor/Conv_{number}/Relu6" for number in (0, 1, 3, 2, *range(4, 9))),
            "2 of 9 values differ, the first at 2: (..., FeatureExtractor/Conv_2/Relu6, ...) -> "
            "(..., FeatureExtractor/Conv_3/Relu6, ...)",
        ),
        (
            "x" * 100 + "left" + "y" * 100,
            "x" * 100 + "\x1bght" + "y" * 100,
            "3 of 204 characters differ, the first at 100: "
            f"...{'x' * 15}left{'y' * 26}... -> ...{'x' * 15}\\x1bght{'y' * 26}...",
        ),
    ],
    ids=["numbers", "lengths", "names", "text"],
)
def test_of_a_long_difference_the_part_that_differs_is_shown(left: Plain, right: Plain, text: str) -> None:
    difference = Difference(kind=Kind.OPTION, where="it", left=left, right=right)
    found = ModelDiff(left="a", right="b", verdict=Verdict.OTHER_STRUCTURE, differences=(difference,))
    assert list(diff_lines(found, show_all=False))[-1] == f"  it: {text}"
    assert list(diff_lines(found, show_all=True))[-1] != f"  it: {text}"


def test_long_binary_options_are_compared_to_their_end() -> None:
    model = read_model(compiled_for_edge_tpu(UINT8))
    (graph,) = model.graphs

    def with_program(program: bytes) -> Model:
        operators = (replace(graph.operators[0], custom_options=program), *graph.operators[1:])
        return replace(model, content=program, graphs=(replace(graph, operators=operators),))

    found = diff_models(with_program(bytes(4000)), with_program(bytes(3999) + b"\1"))
    difference = only(found)
    assert (difference.kind, difference.first, difference.total) == (Kind.OPTION, 3999, 4000)
    assert (
        "the first at 3999: (..., 0, 0, 0) -> (..., 0, 0, 1)" in list(diff_lines(found, show_all=False))[-1]
    )
    assert only(diff_models(with_program(bytes(4000)), with_program(bytes(5000)))).right == "5000 bytes"


@pytest.mark.parametrize(
    ("alter", "kind"),
    [(with_other_scale, Kind.SCALE), (with_other_zero_point, Kind.ZERO_POINT)],
)
def test_another_scale_or_zero_point_is_named(alter: Callable[[bytes, str], bytes], kind: Kind) -> None:
    difference = only(diff(UINT8, alter(UINT8, CONV_WEIGHTS)))
    assert (difference.kind, difference.where) == (kind, CONV_WEIGHTS)
    assert difference.left != difference.right


def test_another_threshold_is_named() -> None:
    difference = only(diff(UINT8, with_other_options(UINT8, {"nms_score_threshold": 0.5})))
    assert difference.kind is Kind.OPTION
    assert difference.where == "TFLite_Detection_PostProcess.nms_score_threshold"
    assert difference.right == 0.5


def test_true_is_not_the_number_one() -> None:
    difference = only(diff(UINT8, with_other_options(UINT8, {"use_regular_nms": 1})))
    assert (difference.left, difference.right) == (True, 1)


def test_another_operator_is_named() -> None:
    difference = only(diff(UINT8, with_other_operator(UINT8)))
    assert difference == Difference(
        kind=Kind.OPERATOR, where="LOGISTIC -> classes", left="LOGISTIC", right="TANH"
    )


def test_other_metadata_is_named() -> None:
    difference = only(diff(UINT8, with_other_metadata(UINT8)))
    assert difference == Difference(
        kind=Kind.METADATA, where="min_runtime_version", left="1.5.0", right="9.9.9"
    )


def test_another_toco_differs_in_its_metadata_only(runs: tuple[bytes, ...], other_toco: bytes) -> None:
    assert only(diff(runs[0], other_toco)).kind is Kind.METADATA


def test_options_that_toco_did_not_write_are_a_difference() -> None:
    found = diff(UINT8, with_other_blob(UINT8, b"\xff" * 316))
    assert {difference.kind for difference in found.differences} == {Kind.OPTION}


def test_a_missing_operator_and_its_tensors_are_named(without_post_processing: bytes) -> None:
    whole = (TINY_DETECTOR / "fp32.run0.tflite").read_bytes()
    found = diff(whole, without_post_processing)
    missing = {difference.where for difference in found.differences if difference.right is None}
    assert "TFLite_Detection_PostProcess -> TFLite_Detection_PostProcess" in missing
    assert {"anchors", "TFLite_Detection_PostProcess:3"} <= missing
    assert Kind.OUTPUTS in {difference.kind for difference in found.differences}


def test_another_order_of_the_operators_is_named() -> None:
    model = read_model(UINT8)
    (graph,) = model.graphs
    operators = (graph.operators[1], graph.operators[0], *graph.operators[2:])
    other = replace(model, content=b"", graphs=(replace(graph, operators=operators),))
    difference = only(diff_models(model, other))
    assert (difference.kind, difference.where) == (Kind.OPERATOR, "order of the operators")


def test_shape_and_type_of_a_tensor_are_named() -> None:
    model = read_model(UINT8)
    (graph,) = model.graphs
    tensors = (replace(graph.tensors[0], shape=(2, 2), dtype="float32"), *graph.tensors[1:])
    other = replace(model, content=b"", graphs=(replace(graph, tensors=tensors),))
    kinds = {difference.kind for difference in diff_models(model, other).differences}
    assert {Kind.SHAPE, Kind.TYPE} <= kinds


def test_values_that_are_no_number_are_compared_as_stored() -> None:
    model = read_model((TINY_DETECTOR / "fp32.run0.tflite").read_bytes())
    (graph,) = model.graphs
    anchors = next(tensor for tensor in graph.tensors if tensor.name == "anchors")
    not_a_number = replace(
        anchors,
        data=b"\0\0\xc0\x7f" + anchors.data[4:],
        quantization=QuantizationParameters(
            scales=(float("nan"),), zero_points=(), minima=(), maxima=(), dimension=0
        ),
    )
    tensors = tuple(not_a_number if tensor is anchors else tensor for tensor in graph.tensors)
    odd = replace(model, content=b"odd", graphs=(replace(graph, tensors=tensors),))
    found = diff_models(model, odd)
    assert {difference.kind for difference in found.differences} == {
        Kind.WEIGHTS,
        Kind.SCALE,
    }
    assert next(it for it in found.differences if it.kind is Kind.WEIGHTS).changed == 1
    assert diff_models(odd, replace(odd, content=b"even")).means_the_same


def test_a_long_list_is_cut_unless_all_is_asked_for(without_post_processing: bytes) -> None:
    found = diff((TINY_DETECTOR / "uint8.run0.tflite").read_bytes(), without_post_processing)
    short, full = list(diff_lines(found, show_all=False)), list(diff_lines(found, show_all=True))
    assert any("--all" in line for line in short)
    assert len(full) > len(short)
    assert not any("--all" in line for line in full)


def test_names_from_a_file_cannot_send_control_codes_to_the_terminal() -> None:
    difference = Difference(kind=Kind.TENSOR, where="\x1b[2Jgone", left=None, right="there")
    found = ModelDiff(left="a", right="b", verdict=Verdict.OTHER_STRUCTURE, differences=(difference,))
    (_, _, _, line) = diff_lines(found, show_all=True)
    assert "\x1b" not in line
    assert "\\x1b[2Jgone" in line
