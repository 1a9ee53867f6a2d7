"""What differs is named, exactly; what does not count is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.tflite.diff import Difference, Kind, ModelDiff, diff_models
from runner.tflite.model import QuantizationParameters, read_model
from runner.tflite.reports import diff_lines
from tests.altered import (
    with_other_blob,
    with_other_metadata,
    with_other_operator,
    with_other_options,
    with_other_scale,
    with_other_weight,
    with_other_zero_point,
)
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

UINT8 = (TINY_DETECTOR / "uint8.run0.tflite").read_bytes()


def diff(left: bytes, right: bytes) -> ModelDiff:
    return diff_models(read_model(left), read_model(right))


def only(found: ModelDiff) -> Difference:
    (difference,) = found.differences
    return difference


def test_a_file_equals_itself() -> None:
    assert diff(UINT8, UINT8) == ModelDiff(has_same_bytes=True, differences=())


def test_the_order_of_keys_does_not_count(runs: tuple[bytes, ...]) -> None:
    found = diff(runs[0], runs[1])
    assert found.means_the_same
    assert not found.has_same_bytes
    assert "same content" in "".join(diff_lines(found, show_all=False))


def test_another_weight_is_named_with_count_and_distance() -> None:
    difference = only(diff(UINT8, with_other_weight(UINT8, CONV_WEIGHTS)))
    assert (difference.kind, difference.where) == (Kind.WEIGHTS, CONV_WEIGHTS)
    assert (difference.changed, difference.total, difference.largest) == (1, 108, 1.0)


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


def test_names_from_a_file_cannot_steer_the_terminal() -> None:
    difference = Difference(kind=Kind.TENSOR, where="\x1b[2Jgone", left=None, right="there")
    (_, _, line) = diff_lines(ModelDiff(has_same_bytes=False, differences=(difference,)), show_all=True)
    assert "\x1b" not in line
    assert "\\x1b[2Jgone" in line
