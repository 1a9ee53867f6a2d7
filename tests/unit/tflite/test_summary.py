"""Which kind of quantization a file really has, and what else it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.tflite.key_orders import possible_orders, read_post_process_options, write_flexbuffer
from runner.tflite.model import Graph, Model, Operator, Tensor, read_model
from runner.tflite.reports import summary_lines
from runner.tflite.summary import QuantizationKind, kind_of_quantization, summarise
from tests.altered import with_other_blob

if TYPE_CHECKING:
    from collections.abc import Sequence


def tensor(dtype: str) -> Tensor:
    return Tensor(
        name=dtype, dtype=dtype, shape=(1,), quantization=None, data=b"", is_variable=False, is_sparse=False
    )


def operator(name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Operator:
    return Operator(
        name=name,
        version=1,
        inputs=inputs,
        outputs=outputs,
        options={},
        is_custom=False,
        custom_options=b"",
        custom_options_span=None,
    )


def model_of(dtypes: Sequence[str], operators: Sequence[Operator]) -> Model:
    tensors = tuple(tensor(dtype) for dtype in dtypes)
    graph = Graph(name="", tensors=tensors, operators=tuple(operators), inputs=(), outputs=())
    return Model(content=b"", source="it", schema_version=3, description="", graphs=(graph,), metadata=())


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
def test_what_meets_in_a_convolution_tells_the_kind(
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


def test_integer_ends_do_not_make_a_model_quantized() -> None:
    operators = [operator("DEQUANTIZE", (0,), (1,)), operator("CONV_2D", (1, 2), ())]
    assert kind_of_quantization(model_of(["uint8", "float32", "float32"], operators)) is QuantizationKind.NONE


def test_a_model_that_multiplies_nothing_is_not_quantized() -> None:
    assert kind_of_quantization(model_of(["uint8"], [operator("RESHAPE", (0,), ())])) is QuantizationKind.NONE


def test_tocos_files_say_what_they_are(uint8_run: bytes) -> None:
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


def test_the_order_of_the_keys_is_told(uint8_run: bytes) -> None:
    options = read_post_process_options(read_model(uint8_run))
    assert options is not None
    impossible = tuple(sorted(options.order))
    assert impossible not in possible_orders(options.order)
    for order, note in {
        options.order: "one of TOCO's 44 orders, not the fixed one",
        options.fixed_order: "the fixed one of TOCO's 44 orders",
        impossible: "none of the 44 orders",
    }.items():
        content = with_other_blob(uint8_run, write_flexbuffer(order, options.values))
        assert note in summarise(read_model(content)).post_processing_note


def test_what_cannot_be_read_of_the_options_is_said(uint8_run: bytes, without_post_processing: bytes) -> None:
    odd = summarise(read_model(with_other_blob(uint8_run, b"\xff" * 316)))
    assert odd.post_processing is None
    assert "FlexBuffer" in odd.post_processing_note
    assert (
        summarise(read_model(without_post_processing)).post_processing_note == "no post-processing operator"
    )
