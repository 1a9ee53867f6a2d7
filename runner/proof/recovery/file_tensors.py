"""Read from a ``.tflite`` the values that determine a checkpoint's variables: weights, biases, ranges.

TOCO folds batch norms into weights and biases, stores the weights of a quantized model as integers, and moves
the ends of an activation's range so that 0.0 is one of the integers. The real values returned here are chosen
so that TOCO computes the same integers, scales and zero points from them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner.errors import IntegrityError, UsageError
from runner.evidence.check.compare import CONCATENATION, Range, quantization_of
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.ranges import RANGE_KEEPERS
from runner.tflite.summary import QuantizationKind, kind_of_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from runner.tflite.model import Graph, Model, Operator, Tensor

DEPTHWISE: Final = "DEPTHWISE_CONV_2D"
CONVOLUTIONS: Final = frozenset({"CONV_2D", DEPTHWISE})
ARITHMETIC: Final = frozenset({"ADD", "MUL", "SUB"})
TOCO: Final = "TOCO"
SHIFTS: Final = (0.25, -0.25, 0.375, -0.375, 0.125, -0.125, 0.3125, -0.3125)
"""Parts of a quantization step by which a range is moved; TOCO moves it back by less than half a step."""
ROUNDING: Final = 1e-4
"""The most by which rounding alone moves the end of a range, as a part of a quantization step."""
SHIFT_STEPS: Final = 64
"""How many shifts of a concatenation's lowest input are tried, between half a step up and down."""
MAX_ULPS: Final = 16
"""How many float32 numbers on each side of the computed upper end are tried."""

Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FileConvolution:
    """A convolution: real weights in TFLite's layout, real biases, the names of its input and output."""

    output: str
    input: str
    is_depthwise: bool
    weights_name: str
    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    ends: Ends | None
    """The quantization range of the weights."""


@dataclass(frozen=True, kw_only=True)
class FileTensors:
    """The values in a file. ``operands`` has the constant of each addition or multiplication."""

    is_quantized: bool
    convolutions: tuple[FileConvolution, ...]
    operands: Mapping[str, NDArray[np.float32]]
    ranges: Mapping[str, Ends]

    def kernels(self) -> Mapping[str, tuple[int, ...]]:
        """Return the names of the weights' variables, with the shapes they have in TensorFlow."""
        return {_variable_name(it.weights_name): _tensorflow_shape(it) for it in self.convolutions}

    def write(self, folder: Path) -> None:
        """Write all values to ``tensors.json`` and ``tensors.npz``, for the step ``recover.py``.

        The arrays in the archive are float32; ``tensors.json`` names them.
        """
        arrays: dict[str, NDArray[np.float32]] = {}

        def key(array: NDArray[np.float32] | None) -> str | None:
            if array is None:
                return None
            name = f"array-{len(arrays)}"
            arrays[name] = array
            return name

        described = {
            "convolutions": [
                {
                    "output": it.output,
                    "input": it.input,
                    "isDepthwise": it.is_depthwise,
                    "weights": key(it.weights),
                    "bias": key(it.bias),
                    "range": it.ends,
                }
                for it in self.convolutions
            ],
            "operands": {name: key(array) for name, array in self.operands.items()},
            "ranges": self.ranges,
        }
        np.savez(folder / "tensors.npz", **arrays)  # type: ignore[arg-type]
        (folder / "tensors.json").write_text(json.dumps(described), "utf-8")


def read_file_tensors(model: Model) -> FileTensors:
    """Read the values from a file.

    Raises:
        UsageError: no TF1 checkpoint can give this file; the message says which kind of file it is.
        IntegrityError: the data of a tensor does not fit its shape and type.
    """
    _require_toco(model)
    graph = model.graphs[0]
    is_quantized = kind_of_quantization(model) is QuantizationKind.QAT
    return FileTensors(
        is_quantized=is_quantized,
        convolutions=tuple(_convolution(it, graph) for it in graph.operators if it.name in CONVOLUTIONS),
        operands={} if is_quantized else dict(_operands(graph)),
        ranges=_ranges_for_concatenations(graph, dict(_ranges(graph))) if is_quantized else {},
    )


def _require_toco(model: Model) -> None:
    """Check that TOCO made the file from a detection graph, float or after quantization-aware training.

    Raises:
        UsageError: it did not.
    """
    reason = _why_not_toco(model)
    if reason is not None:
        raise UsageError(
            f"no TF1 checkpoint can be recovered from {model.source}: {reason}",
            tip="`inspect` describes the file; it must be an SSD model that TOCO converted, float or after "
            "quantization-aware training",
        )


def _why_not_toco(model: Model) -> str | None:
    kind = kind_of_quantization(model)
    names = {operator.name for operator in model.operators()}
    if kind is QuantizationKind.EDGE_TPU:
        return "it is compiled for the Edge TPU, and its weights are inside the compiled program"
    if kind is QuantizationKind.PLACEHOLDER:
        return "it was quantized with placeholder ranges, so it holds no range of a checkpoint"
    if kind not in {QuantizationKind.NONE, QuantizationKind.QAT} or "QUANTIZE" in names:
        return f"it was quantized after training ({kind.value})"
    if TOCO not in model.description:
        return f"another converter made it ({model.description or 'unnamed'})"
    if len(model.graphs) != 1 or POST_PROCESS not in names:
        return f"it has no {POST_PROCESS} operator"
    return None


def _convolution(operator: Operator, graph: Graph) -> FileConvolution:
    source, weights = (graph.tensors[index] for index in operator.inputs[:2])
    bias = graph.tensors[operator.inputs[2]] if len(operator.inputs) > 2 else None
    return FileConvolution(
        output=graph.tensors[operator.outputs[0]].name,
        input=source.name,
        is_depthwise=operator.name == DEPTHWISE,
        weights_name=weights.name,
        weights=reals(weights),
        bias=None if bias is None else _biases(bias, source, weights),
        ends=_recorded_ends(weights),
    )


def _biases(bias: Tensor, source: Tensor, weights: Tensor) -> NDArray[np.float32]:
    """Return the real biases; their scale is the product of the scales of input and weights."""
    if bias.dtype == "float32":
        return reals(bias)
    scales = [quantization_of(tensor) for tensor in (source, weights)]
    if None in scales:
        raise IntegrityError(f"{source.name} or {weights.name} has no single scale")
    product = math.prod(scale[0] for scale in scales if scale is not None)
    exact: NDArray[np.float64] = _numbers(bias).astype(np.float64) * product
    return exact.astype(np.float32)


def reals(tensor: Tensor) -> NDArray[np.float32]:
    """Return the real values of a constant tensor, float32 or quantized.

    Raises:
        IntegrityError: its data does not fit its shape and type, or it has no single scale.
    """
    numbers = _numbers(tensor)
    if tensor.dtype == "float32":
        return numbers.astype(np.float32)
    parameters = quantization_of(tensor)
    if parameters is None:
        raise IntegrityError(f"{tensor.name} has no single scale and zero point")
    scale, zero_point = parameters
    return ((numbers.astype(np.float64) - zero_point) * scale).astype(np.float32)


def _numbers(tensor: Tensor) -> NDArray[Any]:
    try:
        return np.frombuffer(tensor.data, np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)
    except (ValueError, TypeError) as problem:
        raise IntegrityError(
            f"{tensor.name}: its data do not fit its shape {list(tensor.shape)}"
        ) from problem


def _operands(graph: Graph) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for operator in graph.operators:
        tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
        constants = [tensor for tensor in tensors if tensor.data and tensor.dtype == "float32"]
        if operator.name in ARITHMETIC and len(constants) == 1:
            yield graph.tensors[operator.outputs[0]].name, reals(constants[0])


def _ranges(graph: Graph) -> Iterator[tuple[str, Ends]]:
    """Yield the range of every activation: real ends from which TOCO computes what the file holds."""
    computed = {index for operator in graph.operators for index in operator.outputs}
    for index in sorted(computed):
        tensor = graph.tensors[index]
        if tensor.dtype == "uint8" and quantization_of(tensor) is not None:
            yield tensor.name, _ends_before_nudging(tensor)


def _recorded_ends(tensor: Tensor) -> Ends | None:
    parameters = tensor.quantization
    if parameters is None or len(parameters.minima) != 1 or len(parameters.maxima) != 1:
        return None
    return parameters.minima[0], parameters.maxima[0]


def _ends_before_nudging(tensor: Tensor) -> Ends:
    """Return ends that give the tensor's scale, zero point and recorded ends.

    TOCO moves a range so that 0.0 is one of the integers, and records the moved ends. If TOCO's
    computation gives the recorded ends for themselves, they are returned. If rounding gives neighbouring
    numbers, this function searches for a range that TOCO moves to the recorded one.
    """
    return _ends_within(tensor, (-math.inf, math.inf)) or _recorded(tensor)


def _moved_ranges(low: float, high: float) -> Iterator[Ends]:
    """Yield ranges of the same width that are moved by less than half a quantization step."""
    step = (high - low) / 255
    for shift in SHIFTS:
        moved_low = float(np.float32(low + shift * step))
        yield from ((moved_low, moved_high) for moved_high in _around(high + shift * step))


def _ranges_for_concatenations(graph: Graph, ranges: Mapping[str, Ends]) -> Mapping[str, Ends]:
    """Return the ranges, with changes where the range of a concatenation depends on them.

    Without ``change_concat_input_ranges`` TOCO gives the output of a concatenation the lowest and the highest
    end of its inputs, before it moves them. So these two must also give the range of the concatenation.
    """
    makers = {output: operator for operator in graph.operators for output in operator.outputs}
    changed = dict(ranges)
    for operator in graph.operators:
        joined = graph.tensors[operator.outputs[0]]
        if operator.name != CONCATENATION or joined.name not in ranges:
            continue
        inputs = [graph.tensors[_source(index, makers)] for index in operator.inputs]
        if all(it.name in ranges for it in inputs) and _joint(joined) not in map(_joint, inputs):
            changed |= _fitting_ranges(joined, inputs)
    return changed


def _source(index: int, makers: Mapping[int, Operator]) -> int:
    """Return the tensor that a tensor has its range from: the input of reshapes and the like."""
    while index in makers and makers[index].name in RANGE_KEEPERS:
        index = makers[index].inputs[0]
    return index


def _joint(tensor: Tensor) -> tuple[Ends, tuple[float, int]]:
    return _recorded(tensor), _parameters(tensor)


def _fitting_ranges(joined: Tensor, inputs: Sequence[Tensor]) -> dict[str, Ends]:
    """Return ranges that give each input its scale and zero point, and together the concatenation its own.

    Empty if none were found; then the converted file has another range there.
    """
    for lowest, highest in sorted(permutations(inputs, 2), key=_width, reverse=True):
        for low, high in _joint_ends(joined, lowest):
            mine = _first(it for it in _around(low + _span(lowest)) if _gives(lowest, (low, it)))
            other = _first(it for it in _around(high - _span(highest)) if _gives(highest, (it, high)))
            if mine is None or other is None or mine > high or other < low:
                continue
            rest = [it for it in inputs if it is not lowest and it is not highest]
            within = {it.name: _ends_within(it, (low, high)) for it in rest}
            if None not in within.values():
                found = {name: ends for name, ends in within.items() if ends is not None}
                return {**found, lowest.name: (low, mine), highest.name: (other, high)}
    return {}


def _width(pair: tuple[Tensor, Tensor]) -> float:
    """Return the width of the range from the low end of one tensor to the high end of another."""
    lowest, highest = pair
    return _recorded(highest)[1] - _recorded(lowest)[0]


def _joint_ends(joined: Tensor, lowest: Tensor) -> Iterator[Ends]:
    """Yield ends that give the concatenation's parameters, the low one near that of an input."""
    for number in range(1, SHIFT_STEPS):
        shift = 0.5 - number / SHIFT_STEPS
        low = float(np.float32(_recorded(lowest)[0] + shift * _parameters(lowest)[0]))
        high = _first(it for it in _around(low + _span(joined)) if _gives(joined, (low, it)))
        if high is not None:
            yield low, high


def _ends_within(tensor: Tensor, limits: Ends) -> Ends | None:
    """Return ends that give the tensor's parameters and are within limits; None if there are none."""
    recorded = _recorded(tensor)
    candidates = (recorded, *_moved_ranges(*recorded))
    is_within = (it for it in candidates if limits[0] <= it[0] and it[1] <= limits[1] and _gives(tensor, it))
    return next(is_within, None)


def _span(tensor: Tensor) -> float:
    return 255 * _parameters(tensor)[0]


def _first(values: Iterator[float]) -> float | None:
    return next(values, None)


def _around(value: float) -> Iterator[float]:
    for ulps in sorted(range(-MAX_ULPS, MAX_ULPS + 1), key=abs):
        yield _neighbour(value, ulps)


def _gives(tensor: Tensor, ends: Ends) -> bool:
    """Return whether a range with these ends gives a tensor its scale, zero point and recorded ends.

    TOCO leaves ends alone that it would move by a tiny part of a step only (measured: 0.002 was not moved,
    0.04 was). In that case the recorded ends are the original ones.
    """
    scale, zero_point = _parameters(tensor)
    recorded = _recorded(tensor)
    found = _as_recorded(ends)
    if found[:2] != (np.float32(scale), zero_point):
        return False
    is_original = abs(float(found[2]) - recorded[0]) > ROUNDING * scale
    return found[2:] == tuple(map(np.float32, recorded)) or (ends == recorded and is_original)


def _recorded(tensor: Tensor) -> Ends:
    scale, zero_point = _parameters(tensor)
    return _recorded_ends(tensor) or (-zero_point * scale, (255 - zero_point) * scale)


def _parameters(tensor: Tensor) -> tuple[float, int]:
    parameters = quantization_of(tensor)
    if parameters is None:
        raise IntegrityError(f"{tensor.name} has no single scale and zero point")
    return parameters


def _as_recorded(ends: Ends) -> tuple[np.float32, int, np.float32, np.float32]:
    """Return scale, zero point and ends as TOCO records them for an activation with this range."""
    nudged = Range(low=ends[0], high=ends[1])
    return (
        np.float32(nudged.scale()),
        nudged.zero_point(),
        np.float32(nudged.ends[0]),
        np.float32(nudged.ends[1]),
    )


def _neighbour(value: float, ulps: int) -> float:
    """Return the float32 number that is ``ulps`` numbers above a value; below it, if that is negative."""
    neighbour = np.float32(value)
    for _ in range(abs(ulps)):
        neighbour = np.nextafter(neighbour, np.float32(np.inf if ulps > 0 else -np.inf))
    return float(neighbour)


def _variable_name(weights_name: str) -> str:
    """Return the name of the variable that weights in a file come from, derived from their name."""
    return weights_name.removesuffix("/read").removesuffix("_quant/FakeQuantWithMinMaxVars")


def _tensorflow_shape(convolution: FileConvolution) -> tuple[int, ...]:
    first, height, width, last = convolution.weights.shape
    return (height, width, last, 1) if convolution.is_depthwise else (height, width, last, first)
