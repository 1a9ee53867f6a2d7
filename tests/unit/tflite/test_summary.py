"""The kind of quantization that a file really has, and the other parts of its summary."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.tflite.diff import Verdict
from runner.tflite.key_orders import possible_orders, read_post_process_options, write_flexbuffer
from runner.tflite.model import Graph, Model, Operator, QuantizationParameters, Tensor, read_model
from runner.tflite.reports import summary_lines
from runner.tflite.summary import QuantizationKind, kind_of_quantization, summarise
from runner.tflite.verify import verify
from tests.altered import compiled_for_edge_tpu, with_one_range, with_other_blob
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.operators import operator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.recipes.recipe import Recipe


def tensor(dtype: str) -> Tensor:
    return Tensor(
        name=dtype, dtype=dtype, shape=(1,), quantization=None, data=b"", is_variable=False, is_sparse=False
    )


def model_of(dtypes: Sequence[str], operators: Sequence[Operator]) -> Model:
    tensors = tuple(tensor(dtype) for dtype in dtypes)
    graph = Graph(name="", tensors=tensors, operators=tuple(operators), inputs=(), outputs=())
    return Model(content=b"", source="it", schema_version=3, description="", graphs=(graph,), metadata=())


def uint8_network(
    *, heads: int, head_range: tuple[float, int], body_range: tuple[float, int], depth: int = 1
) -> Model:
    """Build heads of one convolution each on a body of RELU6 layers, reshaped and concatenated."""

    def quantized(scale: float, zero_point: int) -> Tensor:
        parameters = QuantizationParameters(
            scales=(scale,), zero_points=(zero_point,), minima=(), maxima=(), dimension=0
        )
        return replace(tensor("uint8"), quantization=parameters)

    def convolution(inputs: tuple[int, ...], output: int, activation: str) -> Operator:
        made = operator("CONV_2D", inputs, (output,))
        return replace(made, options={"fused_activation_function": activation})

    tensors = [replace(quantized(0.01, 128), data=b"weights"), quantized(1 / 128, 128)]
    tensors += [quantized(*body_range) for _ in range(depth)]
    operators = [convolution((layer + 1, 0), layer + 2, "RELU6") for layer in range(depth)]
    reshaped = []
    for _ in range(heads):
        head = len(tensors)
        tensors += [quantized(*head_range), quantized(*head_range)]
        operators += [convolution((depth + 1, 0), head, "NONE"), operator("RESHAPE", (head,), (head + 1,))]
        reshaped.append(head + 1)
    operators.append(operator("CONCATENATION", tuple(reshaped), (len(tensors),)))
    tensors.append(quantized(*head_range))
    graph = Graph(
        name="", tensors=tuple(tensors), operators=tuple(operators), inputs=(1,), outputs=(len(tensors) - 1,)
    )
    return replace(model_of([], []), graphs=(graph,))


@pytest.mark.parametrize(
    ("activation", "weights", "kind"),
    [
        ("float32", "float32", QuantizationKind.NONE),
        ("uint8", "uint8", QuantizationKind.QAT),
        ("int8", "int8", QuantizationKind.INTEGER),
        ("int16", "int8", QuantizationKind.INTEGER),
        ("float32", "int8", QuantizationKind.DYNAMIC_RANGE),
        ("float32", "uint8", QuantizationKind.DYNAMIC_RANGE),
    ],
)
def test_the_kind_follows_from_the_types_in_a_convolution(
    activation: str, weights: str, kind: QuantizationKind
) -> None:
    model = model_of([activation, weights], [operator("CONV_2D", (0, 1), ())])
    assert kind_of_quantization(model) is kind


@pytest.mark.parametrize(
    ("stored", "kind"), [("float16", QuantizationKind.FLOAT16), ("int8", QuantizationKind.DYNAMIC_RANGE)]
)
def test_weights_are_judged_as_they_are_stored(stored: str, kind: QuantizationKind) -> None:
    operators = [operator("DEQUANTIZE", (1,), (2,)), operator("FULLY_CONNECTED", (0, 2), ())]
    assert kind_of_quantization(model_of(["float32", stored, "float32"], operators)) is kind


def test_two_kinds_are_mixed() -> None:
    operators = [operator("CONV_2D", (0, 0), ()), operator("CONV_2D", (0, 1), ())]
    assert kind_of_quantization(model_of(["float32", "int8"], operators)) is QuantizationKind.MIXED


def test_integer_inputs_and_outputs_do_not_make_a_model_quantized() -> None:
    operators = [operator("DEQUANTIZE", (0,), (1,)), operator("CONV_2D", (1, 2), ())]
    assert kind_of_quantization(model_of(["uint8", "float32", "float32"], operators)) is QuantizationKind.NONE


def test_a_model_that_multiplies_nothing_is_not_quantized() -> None:
    assert kind_of_quantization(model_of(["uint8"], [operator("RESHAPE", (0,), ())])) is QuantizationKind.NONE


def test_files_of_toco_are_classified(uint8_run: bytes) -> None:
    summary = summarise(read_model(uint8_run))
    assert summary.converter == "TOCO Converted."
    assert summary.min_runtime_version == "1.5.0"
    assert summary.quantization is QuantizationKind.QAT
    assert summary.operators["CONV_2D"] == 3
    (image,) = summary.inputs
    assert (image.dtype, image.shape, image.scales, image.zero_points) == (
        "uint8",
        (1, 8, 8, 3),
        (1 / 128,),
        (128,),
    )
    assert len(summary.outputs) == 4
    text = "\n".join(summary_lines(summary))
    assert "scale 0.0078125, zero point 128" in text
    assert "num_classes = 2" in text


@pytest.mark.parametrize(("scale", "zero_point"), [(1.0, 0), (6 / 255, 0), (12 / 255, 128)])
def test_placeholder_ranges_are_not_called_training(scale: float, zero_point: int, uint8_run: bytes) -> None:
    summary = summarise(read_model(with_one_range(uint8_run, scale, zero_point)))
    assert summary.quantization is QuantizationKind.PLACEHOLDER
    assert summary.placeholder is not None
    assert summary.placeholder.scale == pytest.approx(scale, rel=1e-7)
    assert summary.placeholder.zero_point == zero_point
    assert (summary.placeholder.count, summary.placeholder.total) == (6, 8)
    text = "\n".join(summary_lines(summary))
    assert "quantization  integer, placeholder ranges (--default_ranges_min" in text
    assert f"6 of 8 activations have scale {summary.placeholder.scale:.9g}, zero point {zero_point}" in text


def test_equal_ranges_of_relu6_can_have_been_measured() -> None:
    """Of a network of RELU6 nearly all ranges are equal; the one of its head shows how they came about."""
    relu6 = (6 / 255, 0)
    measured = uint8_network(heads=1, head_range=(0.07, 130), body_range=relu6, depth=27)
    assert kind_of_quantization(measured) is QuantizationKind.QAT
    assert summarise(measured).placeholder is None
    placeholders = uint8_network(heads=1, head_range=relu6, body_range=relu6, depth=27)
    assert kind_of_quantization(placeholders) is QuantizationKind.PLACEHOLDER


def test_heads_joined_by_a_concatenation_are_one_measurement() -> None:
    """TOCO gives all inputs of a concatenation the range of the first."""
    joined = uint8_network(heads=12, head_range=(0.07, 130), body_range=(6 / 255, 0))
    assert kind_of_quantization(joined) is QuantizationKind.QAT
    placeholders = uint8_network(heads=12, head_range=(6 / 255, 0), body_range=(6 / 255, 0))
    assert kind_of_quantization(placeholders) is QuantizationKind.PLACEHOLDER


def test_verify_names_placeholder_ranges(uint8_run: bytes, tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "placeholder.tflite"
    path.write_bytes(with_one_range(uint8_run, 1.0, 0))
    found = verify(path, tiny_recipe)
    (problem,) = found.problems
    assert found.verdict is Verdict.OTHER_STRUCTURE
    assert (problem.what, problem.found) == ("kind of quantization", QuantizationKind.PLACEHOLDER.value)


def test_a_file_compiled_for_the_edge_tpu_is_recognised(
    uint8_run: bytes, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "edgetpu.tflite"
    path.write_bytes(compiled_for_edge_tpu(uint8_run))
    summary = summarise(read_model(path.read_bytes()))
    assert summary.quantization is QuantizationKind.EDGE_TPU
    assert summary.operators == {"edgetpu-custom-op": 1, "TFLite_Detection_PostProcess": 1}
    assert "compiled for the Edge TPU" in "\n".join(summary_lines(summary))
    problems = {problem.what: problem.found for problem in verify(path, tiny_recipe).problems}
    assert problems["kind of quantization"] == QuantizationKind.EDGE_TPU.value
    assert problems["number of edgetpu-custom-op"] == "1"


def test_another_custom_operator_is_not_the_edge_tpus() -> None:
    content = (TINY_DETECTOR / "fp32.run0.tflite").read_bytes()
    assert kind_of_quantization(read_model(content)) is QuantizationKind.NONE


def test_the_order_of_the_keys_is_reported(uint8_run: bytes) -> None:
    options = read_post_process_options(read_model(uint8_run))
    assert options is not None
    impossible = tuple(sorted(options.order))
    assert impossible not in possible_orders(options.order)
    for order, note in {
        options.order: "one of TOCO's 44 orders, not the fixed one",
        options.fixed_order: "the fixed one of TOCO's 44 orders",
        impossible: "none of the 44 orders that a TOCO built from public source can write",
    }.items():
        content = with_other_blob(uint8_run, write_flexbuffer(order, options.values))
        assert note in summarise(read_model(content)).post_processing_note


def test_unreadable_options_are_reported(uint8_run: bytes, without_post_processing: bytes) -> None:
    odd = summarise(read_model(with_other_blob(uint8_run, b"\xff" * 316)))
    assert odd.post_processing is None
    assert "FlexBuffer" in odd.post_processing_note
    assert (
        summarise(read_model(without_post_processing)).post_processing_note == "no post-processing operator"
    )
