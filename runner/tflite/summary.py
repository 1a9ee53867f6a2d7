"""Summarize a ``.tflite`` file: inputs, outputs, operators and the kind of quantization."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from runner.errors import IntegrityError
from runner.tflite.key_orders import PUBLIC_TOCO, is_possible, order_count, read_post_process_options
from runner.tflite.ranges import INTEGER_TYPES, placeholder_range
from runner.tflite.runtime_version import read_min_runtime_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.tflite.key_orders import KeyOrder, Value
    from runner.tflite.model import Graph, Model, Tensor
    from runner.tflite.ranges import SharedRange

WEIGHTED_OPERATORS: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
"""The operators whose first input is the activations and whose second is the weights."""
EDGE_TPU_OPERATOR: Final = "edgetpu-custom-op"
"""The operator with which the Edge TPU compiler replaces the operators that it has compiled."""


class QuantizationKind(str, Enum):
    """How operators with weights are quantized; the value is the text in reports and JSON."""

    NONE = "none: float weights, float arithmetic"
    QAT = "integer, uint8: ranges from the graph's fake-quant nodes (quantization-aware training)"
    INTEGER = "integer, int8: ranges from training or from sample images"
    PLACEHOLDER = (
        "integer, placeholder ranges (--default_ranges_min, --default_ranges_max): good for timing, its "
        "results mean nothing"
    )
    EDGE_TPU = f"compiled for the Edge TPU: integer, in a program ({EDGE_TPU_OPERATOR}) that is not read here"
    DYNAMIC_RANGE = "dynamic range: integer weights, float activations"
    FLOAT16 = "float16: half-precision weights, float activations"
    MIXED = "mixed: several kinds in one file"


@dataclass(frozen=True, kw_only=True)
class TensorSummary:
    """An input or output tensor of the graph; scales and zero points are empty if it is not quantized."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]

    def __str__(self) -> str:
        quantized = ", ".join(
            f"scale {scale:.9g}, zero point {zero_point}"
            for scale, zero_point in zip(self.scales, self.zero_points, strict=False)
        )
        shape = f"{self.name} {self.dtype} {list(self.shape) or 'shape set at run time'}"
        return f"{shape}, {quantized}" if quantized else shape


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The summary of a file; ``post_processing_note`` states the key order, or why there are no options.

    ``placeholder`` is the range that nearly all activations share, if the ranges were not measured.
    """

    converter: str
    schema_version: int
    min_runtime_version: str | None
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    operators: Mapping[str, int]
    tensor_count: int
    size_bytes: int
    weights_bytes: int
    quantization: QuantizationKind
    placeholder: SharedRange | None
    post_processing: Mapping[str, Value] | None
    key_order: KeyOrder | None
    post_processing_note: str


def summarise(model: Model) -> Summary:
    """Summarize a model; unusual content is reported but is not an error."""
    values, order, note = _post_processing(model)
    counts = Counter(operator.name for operator in model.operators())
    tensors = [tensor for graph in model.graphs for tensor in graph.tensors]
    quantization = kind_of_quantization(model)
    return Summary(
        converter=model.description,
        schema_version=model.schema_version,
        min_runtime_version=read_min_runtime_version(model),
        inputs=tuple(end for graph in model.graphs[:1] for end in _ends(graph, graph.inputs)),
        outputs=tuple(end for graph in model.graphs[:1] for end in _ends(graph, graph.outputs)),
        operators=dict(counts.most_common()),
        tensor_count=len(tensors),
        size_bytes=len(model.content),
        weights_bytes=sum(len(tensor.data) for tensor in tensors),
        quantization=quantization,
        placeholder=placeholder_range(model) if quantization is QuantizationKind.PLACEHOLDER else None,
        post_processing=values,
        key_order=order,
        post_processing_note=note,
    )


def kind_of_quantization(model: Model) -> QuantizationKind:
    """Return the kind of quantization, by the types of activations and weights of the operators."""
    if any(operator.is_custom and operator.name == EDGE_TPU_OPERATOR for operator in model.operators()):
        return QuantizationKind.EDGE_TPU
    kinds = {kind for graph in model.graphs for kind in _kinds(graph)}
    if kinds and kinds <= _WITH_RANGES and placeholder_range(model) is not None:
        return QuantizationKind.PLACEHOLDER
    if not kinds:
        return QuantizationKind.NONE
    return kinds.pop() if len(kinds) == 1 else QuantizationKind.MIXED


_WITH_RANGES: Final = {QuantizationKind.QAT, QuantizationKind.INTEGER}


def _kinds(graph: Graph) -> Iterator[QuantizationKind]:
    widened_from = {
        operator.outputs[0]: graph.tensors[operator.inputs[0]]
        for operator in graph.operators
        if operator.name == "DEQUANTIZE" and operator.outputs and operator.inputs and operator.inputs[0] >= 0
    }
    for operator in graph.operators:
        used = [index for index in operator.inputs[:2] if index >= 0]
        if operator.name in WEIGHTED_OPERATORS and len(used) == 2:
            activation, weights = (graph.tensors[index] for index in used)
            yield _kind(activation, widened_from.get(used[1], weights))


def _kind(activation: Tensor, weights: Tensor) -> QuantizationKind:
    if activation.dtype in INTEGER_TYPES:
        return QuantizationKind.QAT if activation.dtype == "uint8" else QuantizationKind.INTEGER
    if weights.dtype in INTEGER_TYPES:
        return QuantizationKind.DYNAMIC_RANGE
    return QuantizationKind.FLOAT16 if weights.dtype == "float16" else QuantizationKind.NONE


def _ends(graph: Graph, indices: tuple[int, ...]) -> Iterator[TensorSummary]:
    for tensor in (graph.tensors[index] for index in indices if index >= 0):
        parameters = tensor.quantization
        yield TensorSummary(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            scales=() if parameters is None else parameters.scales,
            zero_points=() if parameters is None else parameters.zero_points,
        )


def _post_processing(model: Model) -> tuple[Mapping[str, Value] | None, KeyOrder | None, str]:
    try:
        options = read_post_process_options(model)
    except IntegrityError as problem:
        return None, None, problem.message
    if options is None:
        return None, None, "no post-processing operator"
    count = order_count(options.order)
    if not is_possible(options.order):
        return (
            options.values,
            options.order,
            f"keys in none of the {count} orders that {PUBLIC_TOCO} can write",
        )
    if options.order == options.fixed_order:
        return options.values, options.order, f"keys in the fixed one of TOCO's {count} orders"
    return options.values, options.order, f"keys in one of TOCO's {count} orders, not the fixed one"
