"""Compare the weights, biases, scales and the detection operator of a ``.tflite`` with its frozen graph.

The comparison only reads the files; no model is run. TOCO folds the operations after a convolution into its
weights, and takes the ranges of a quantized model from the FakeQuant nodes of the graph. This module computes
the folded weights and the ranges again from the constants of the graph. Every difference is a finding.

One flag of TOCO changes the ranges: ``change_concat_input_ranges``. If true, the output of a concatenation
gets the range of its first input; if false, the union of the ranges of its inputs. Both values are tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

import numpy as np

from runner.tflite.key_orders import POST_PROCESS, read_post_process_options
from runner.tflite.ranges import RANGE_KEEPERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from runner.tflite.model import Graph, Model, Operator, Tensor

CONVOLUTIONS: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
ARITHMETIC: Final = frozenset({"ADD", "DIV", "MUL", "SUB"})
UNIT_INTERVAL: Final = frozenset({"LOGISTIC", "SOFTMAX"})
"""Operators whose output TOCO quantizes in steps of 1/256, whatever the graph contains."""
FLOAT_TOLERANCE: Final = 1e-5
"""Relative to the largest magnitude; folding in float32 changes only a few units in the last place."""
SCALE_TOLERANCE: Final = 1e-6
STEP_TOLERANCE: Final = 1e-3
"""In steps; a weight is a float32 product of at most 255 steps and the scale, with a smaller error."""
QUANTIZED_MAX: Final = 255
CONCATENATION: Final = "CONCATENATION"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The range of real values of a quantized tensor; a narrow range does not use the lowest integer."""

    low: float
    high: float
    is_narrow: bool = False

    @property
    def lowest(self) -> int:
        """The lowest integer in use."""
        return 1 if self.is_narrow else 0

    def scale(self) -> float:
        """Return the scale: the real value of one quantization step."""
        return (max(self.high, 0.0) - min(self.low, 0.0)) / (QUANTIZED_MAX - self.lowest)

    def zero_point(self) -> int:
        """Return the integer for 0.0, computed as in TOCO from the range end with less rounding error."""
        scale = self.scale()
        if scale == 0.0:
            return self.lowest
        below, above = min(self.low, 0.0) / scale, max(self.high, 0.0) / scale
        from_low, from_high = self.lowest - below, QUANTIZED_MAX - above
        nearer = from_low if self.lowest + abs(below) < QUANTIZED_MAX + abs(above) else from_high
        return int(np.clip(np.floor(nearer + 0.5), self.lowest, QUANTIZED_MAX))

    @property
    def ends(self) -> tuple[float, float]:
        """The real values of the lowest and the highest integer in use."""
        scale, zero_point = self.scale(), self.zero_point()
        return (self.lowest - zero_point) * scale, (QUANTIZED_MAX - zero_point) * scale

    def quantize(self, reals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the quantized values of real numbers."""
        steps = np.round(reals / self.scale()) if self.scale() else np.zeros_like(reals)
        return np.clip(steps + self.zero_point(), self.lowest, QUANTIZED_MAX)


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution of the frozen graph with the operations after it folded in, in TFLite's layout.

    ``outputs`` are the names that its output may have in a file. The graph may multiply a node by a number to
    get the input of the convolution. TOCO may remove this multiplication; then the node itself is the input,
    and the weights are multiplied by the number. ``scaled_inputs`` maps the node's name to the number.
    """

    name: str
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    weight_range: Range | None
    outputs: tuple[str, ...] = ()
    scaled_inputs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """The contents of a frozen graph that a ``.tflite`` made from it must match."""

    input_name: str
    post_process: str
    convolutions: Mapping[str, Convolution]
    ranges: Mapping[str, Range]
    attributes: Mapping[str, bool | int | float]
    anchors: NDArray[np.float64]
    operands: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """The constants that are added or multiplied, keyed by the name of the operation's output."""


class SettingSource(str, Enum):
    """Where the value of TOCO's ``change_concat_input_ranges`` is known from; used in messages and JSON."""

    PLAN = "the conversion's TOCO command"
    OPTION = "the command line"
    PROVENANCE = "the provenance"
    FILE = "the file"


@dataclass(frozen=True, kw_only=True)
class ConcatSetting:
    """The value of ``change_concat_input_ranges`` (None if both values fit equally well) and its source."""

    change_concat_input_ranges: bool | None
    source: SettingSource


@dataclass(frozen=True, kw_only=True)
class QuantizationFlags:
    """TOCO flags that affect quantization. Mean and std define the input: ``real = (pixel - mean) / std``.

    ``concat`` is None if it is unknown and must be inferred from the file.
    """

    mean: float
    std: float
    concat: ConcatSetting | None = None

    @property
    def input_range(self) -> Range:
        """The range of the input tensor."""
        return Range(low=-self.mean / self.std, high=(QUANTIZED_MAX - self.mean) / self.std)


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """One property of the file that does not match the frozen graph."""

    tensor: str
    what: str
    expected: str
    found: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of comparing a file with its frozen graph; it has no findings if everything matches.

    ``ranges`` are the tensor ranges that follow from the graph and ``concat``, by tensor index.
    """

    findings: tuple[Discrepancy, ...]
    concat: ConcatSetting
    ranges: Mapping[int, Range]


def compare(model: Model, graph: GraphFacts, flags: QuantizationFlags) -> Comparison:
    """Compare a file with its frozen graph.

    Raises:
        IntegrityError: the options of the detection operator were not written by TOCO.
    """
    file = model.graphs[0]
    constants = (
        *_compare_convolutions(file, graph),
        *_compare_operands(file, graph),
        *_compare_detection(model, graph),
    )
    if not any(tensor.dtype == "uint8" for tensor in file.tensors):
        unaffected = ConcatSetting(change_concat_input_ranges=None, source=SettingSource.FILE)
        return Comparison(findings=constants, concat=flags.concat or unaffected, ranges={})
    ranges = {value: derive_ranges(file, graph, flags.input_range, concat=value) for value in (True, False)}
    findings = {value: tuple(_compare_ranges(file, graph, ranges[value])) for value in ranges}
    concat, mismatch = _concat_setting(file, ranges, findings, flags.concat)
    value = concat.change_concat_input_ranges is not False
    return Comparison(findings=(*mismatch, *constants, *findings[value]), concat=concat, ranges=ranges[value])


def _concat_setting(
    file: Graph,
    ranges: Mapping[bool, Mapping[int, Range]],
    findings: Mapping[bool, tuple[Discrepancy, ...]],
    stated: ConcatSetting | None,
) -> tuple[ConcatSetting, tuple[Discrepancy, ...]]:
    """Return the setting that fits the file best, and a finding if ``stated`` differs from it."""
    fitting = None
    if len(findings[True]) != len(findings[False]):
        fitting = len(findings[True]) < len(findings[False])
    if stated is not None and fitting in (None, stated.change_concat_input_ranges):
        return stated, ()
    recognised = ConcatSetting(change_concat_input_ranges=fitting, source=SettingSource.FILE)
    if stated is None:
        return recognised, ()
    first = next(index for index, union in ranges[False].items() if ranges[True].get(index) != union)
    expected = f"{_as_flag(stated.change_concat_input_ranges)}, according to {stated.source.value}"
    what = "change_concat_input_ranges"
    return recognised, (_finding(file.tensors[first], what, expected, _as_flag(fitting)),)


def _as_flag(value: bool | None) -> str:
    return str(value).lower()


def _compare_convolutions(file: Graph, graph: GraphFacts) -> Iterator[Discrepancy]:
    seen = set()
    for operator in file.operators:
        if operator.name not in CONVOLUTIONS:
            continue
        entry, weights, bias = (file.tensors[index] for index in operator.inputs)
        name = _name_of(operator, file, graph)
        seen.add(name)
        convolution = graph.convolutions.get(name)
        if convolution is None:
            yield Discrepancy(
                tensor=bias.name, what="its convolution", expected="one of the graph", found=name
            )
        elif weights.shape != convolution.weights.shape:
            yield _finding(weights, "shape", str(convolution.weights.shape), str(weights.shape))
        elif convolution.weight_range is not None and weights.dtype == "float32":
            yield from _compare_rounded(weights, convolution.weight_range, convolution.weights)
            yield from _compare_float(bias, "bias", convolution.bias)
        elif convolution.weight_range is None or weights.dtype != "uint8":
            scale = convolution.scaled_inputs.get(entry.name, 1.0)
            yield from _compare_float(weights, "weights", convolution.weights * scale)
            yield from _compare_float(bias, "bias", convolution.bias)
        else:
            yield from _compare_steps(
                weights, "weights", convolution.weight_range.quantize(convolution.weights)
            )
            yield from _compare_quantized_bias(bias, (entry, weights), convolution)
    for name in sorted(set(graph.convolutions) - seen):
        yield Discrepancy(
            tensor=name, what="this convolution of the graph", expected="in the file", found="missing"
        )


def _name_of(convolution: Operator, file: Graph, graph: GraphFacts) -> str:
    """Return the name of a convolution, found by its bias, or by its output if TOCO merged equal biases."""
    bias = convolution.inputs[2]
    if sum(bias in operator.inputs for operator in file.operators) == 1:
        return file.tensors[bias].name.removesuffix("_bias")
    output = file.tensors[convolution.outputs[0]].name
    return next((name for name, each in graph.convolutions.items() if output in each.outputs), output)


def _compare_operands(file: Graph, graph: GraphFacts) -> Iterator[Discrepancy]:
    """Compare the constant operands of the file's arithmetic operators with the constants of the graph."""
    for operator in file.operators:
        if operator.name not in ARITHMETIC:
            continue
        output = file.tensors[operator.outputs[0]].name
        for tensor in (file.tensors[index] for index in operator.inputs):
            if tensor.data and output in graph.operands:
                yield from _compare_float(tensor, "operand", graph.operands[output])
            elif tensor.data:
                yield _finding(tensor, "operand", "one of the graph", f"a constant for {output}")


def _compare_float(tensor: Tensor, what: str, expected: NDArray[np.float64]) -> Iterator[Discrepancy]:
    found = _values(tensor)
    if tensor.dtype != "float32" or found.size != expected.size:
        yield _finding(tensor, what, f"{expected.size} float32", f"{found.size} {tensor.dtype}")
        return
    limit = FLOAT_TOLERANCE * max(1.0 if what == "bias" else 0.0, float(np.abs(expected).max()))
    off = np.abs(found - expected.ravel())
    # Do not write "off > limit", which is false for NaN.
    wrong = ~(off <= limit)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        count = f"{np.count_nonzero(wrong)} of {off.size} differ, the first at {at}"
        yield _finding(tensor, what, f"{expected.ravel()[at]:.7g}", f"{found[at]:.7g} ({count})")


def _compare_steps(tensor: Tensor, what: str, expected: NDArray[np.float64]) -> Iterator[Discrepancy]:
    """Compare integers; rounding may differ, so a difference of one step is allowed."""
    found = _values(tensor)
    if found.size != expected.size:
        yield _finding(tensor, what, f"{expected.size} values", f"{found.size}")
        return
    wrong = np.abs(found - expected.ravel()) > 1
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        count = f"{np.count_nonzero(wrong)} of {wrong.size} differ, the first at {at}"
        yield _finding(tensor, what, f"{expected.ravel()[at]:.0f}", f"{found[at]:.0f} ({count})")


def _compare_rounded(tensor: Tensor, of: Range, expected: NDArray[np.float64]) -> Iterator[Discrepancy]:
    """Compare the weights of a quantized graph converted as float; TOCO rounds these weights to steps."""
    found = _values(tensor)
    if found.size != expected.size:
        yield _finding(tensor, "weights", f"{expected.size} values", f"{found.size}")
        return
    steps, wanted = found / of.scale() + of.zero_point(), of.quantize(expected).ravel()
    is_step = np.abs(steps - np.round(steps)) <= STEP_TOLERANCE
    # Do not invert the comparison: it would be false for NaN.
    wrong = ~(is_step & (np.abs(np.round(steps) - wanted) <= 1))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        count = f"{np.count_nonzero(wrong)} of {wrong.size} differ, the first at {at}"
        yield _finding(tensor, "weights", f"step {wanted[at]:.0f}", f"{steps[at]:.4g} ({count})")


def _compare_quantized_bias(
    bias: Tensor, factors: tuple[Tensor, Tensor], convolution: Convolution
) -> Iterator[Discrepancy]:
    scales = [quantization_of(tensor) for tensor in factors]
    if bias.dtype != "int32" or None in scales:
        yield _finding(bias, "bias", "int32, between quantized tensors", bias.dtype)
        return
    step = float(np.prod([scale for scale, _ in filter(None, scales)]))
    yield from _compare_parameters(bias, step, 0)
    yield from _compare_steps(bias, "bias", np.round(convolution.bias / step))


def derive_ranges(file: Graph, graph: GraphFacts, input_range: Range, *, concat: bool) -> Mapping[int, Range]:
    """Derive the range of each tensor in execution order; ``concat`` is ``change_concat_input_ranges``."""
    ranges = dict.fromkeys(file.inputs, input_range)
    for operator in file.operators:
        ranges.update(_constant_ranges(file, operator, graph))
        if operator.name == POST_PROCESS:
            continue
        for index in operator.outputs:
            known = graph.ranges.get(file.tensors[index].name)
            derived = known or _derived_range(operator, ranges, concat=concat)
            if derived is not None:
                ranges[index] = derived
    return ranges


def _compare_ranges(file: Graph, graph: GraphFacts, ranges: Mapping[int, Range]) -> Iterator[Discrepancy]:
    for operator in file.operators:
        if operator.name == POST_PROCESS:
            anchors = operator.inputs[2]
            yield from _compare_steps(
                file.tensors[anchors], "anchors", ranges[anchors].quantize(graph.anchors)
            )
    for index, tensor in enumerate(file.tensors):
        if index in ranges:
            yield from _compare_parameters(tensor, ranges[index].scale(), ranges[index].zero_point())
        elif tensor.dtype == "uint8":
            yield _finding(tensor, "range", "one that follows from the graph", "of unknown origin")


def _constant_ranges(file: Graph, operator: Operator, graph: GraphFacts) -> Iterator[tuple[int, Range]]:
    """Yield the ranges of the weights and anchors that are inputs of an operator."""
    if operator.name in CONVOLUTIONS:
        convolution = graph.convolutions.get(_name_of(operator, file, graph))
        if convolution is not None and convolution.weight_range is not None:
            yield operator.inputs[1], convolution.weight_range
    if operator.name == POST_PROCESS:
        low, high = float(graph.anchors.min()), float(graph.anchors.max())
        yield operator.inputs[2], Range(low=low, high=high)


def _derived_range(operator: Operator, ranges: Mapping[int, Range], *, concat: bool) -> Range | None:
    """Return the range of an output without a FakeQuant node, or None if it is unknown."""
    if operator.name in UNIT_INTERVAL:
        return Range(low=0.0, high=QUANTIZED_MAX / 256)
    if operator.name == CONCATENATION and not concat:
        inputs = [ranges[index] for index in operator.inputs if index in ranges]
        if inputs:
            return Range(low=min(each.low for each in inputs), high=max(each.high for each in inputs))
        return None
    if operator.name == CONCATENATION or operator.name in RANGE_KEEPERS:
        return ranges.get(operator.inputs[0])
    return None


def _compare_parameters(tensor: Tensor, scale: float, zero_point: int) -> Iterator[Discrepancy]:
    parameters = quantization_of(tensor)
    if parameters is None:
        yield _finding(tensor, "scale", f"{scale:.9g}", "none")
        return
    if not np.isclose(parameters[0], scale, rtol=SCALE_TOLERANCE, atol=0.0):
        yield _finding(tensor, "scale", f"{scale:.9g}", f"{parameters[0]:.9g}")
    if parameters[1] != zero_point:
        yield _finding(tensor, "zero point", str(zero_point), str(parameters[1]))


def _compare_detection(model: Model, graph: GraphFacts) -> Iterator[Discrepancy]:
    """Compare the inputs, the outputs and the options of the detection operator with the graph."""
    file = model.graphs[0]
    inputs = file.tensor_names(file.inputs)
    if inputs != (graph.input_name,):
        yield Discrepancy(
            tensor=graph.input_name, what="input", expected=graph.input_name, found=", ".join(inputs)
        )
    options = read_post_process_options(model)
    if options is None:
        yield Discrepancy(tensor=graph.post_process, what="operator", expected=POST_PROCESS, found="missing")
        return
    for key in sorted({*graph.attributes, *options.values}):
        expected, found = graph.attributes.get(key), options.values.get(key)
        if expected != found:
            yield Discrepancy(tensor=graph.post_process, what=key, expected=str(expected), found=str(found))
    outputs = tuple(f"{graph.post_process}:{number}" if number else graph.post_process for number in range(4))
    operator = next(each for each in file.operators if each.name == POST_PROCESS)
    for found_names in (file.tensor_names(file.outputs), file.tensor_names(operator.outputs)):
        if found_names != outputs:
            yield Discrepancy(
                tensor=graph.post_process,
                what="outputs",
                expected=", ".join(outputs),
                found=", ".join(found_names),
            )


def quantization_of(tensor: Tensor) -> tuple[float, int] | None:
    """Return the scale and the zero point of a tensor, or None unless it has exactly one of each."""
    quantization = tensor.quantization
    if quantization is None or len(quantization.scales) != 1 or len(quantization.zero_points) != 1:
        return None
    return quantization.scales[0], quantization.zero_points[0]


def ends_of(tensor: Tensor) -> tuple[float, float] | None:
    """Return the real values of the integers 0 and 255 in a uint8 tensor, or None if it is not quantized."""
    parameters = quantization_of(tensor)
    if parameters is None:
        return None
    scale, zero_point = parameters
    return -zero_point * scale, (QUANTIZED_MAX - zero_point) * scale


def _values(tensor: Tensor) -> NDArray[np.float64]:
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype).newbyteorder("<")).astype(np.float64)


def _finding(tensor: Tensor, what: str, expected: str, found: str) -> Discrepancy:
    return Discrepancy(tensor=tensor.name, what=what, expected=expected, found=found)
