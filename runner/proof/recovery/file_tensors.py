"""Read from a ``.tflite`` the values that determine a checkpoint's variables: weights, biases, ranges.

TOCO folds batch norms into weights and biases, stores the weights of a quantized model as integers, and
adjusts ("nudges") the range of an activation so that an integer represents 0.0. The real values returned here
are chosen so that TOCO computes the same integers, scales and zero points from them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from itertools import chain, permutations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from runner.errors import IntegrityError, UsageError
from runner.evidence.check.compare import CONCATENATION, Range, quantization_of
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.ranges import RANGE_KEEPERS
from runner.tflite.summary import QuantizationKind, kind_of_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from runner.tflite.model import Graph, Model, Operator, Tensor

DEPTHWISE: Final = "DEPTHWISE_CONV_2D"
CONVOLUTIONS: Final = frozenset({"CONV_2D", DEPTHWISE})
ARITHMETIC: Final = frozenset({"ADD", "MUL", "SUB"})
CLASS_PREDICTOR: Final = "ClassPredictor"
"""Part of the name of the convolutions whose number of channels depends on the number of classes."""
TOCO: Final = "TOCO"
SHIFTS: Final = np.concatenate([sign * np.linspace(0.1, 0.45, 64) for sign in (1, -1)])
"""The shifts of a range to try, in quantization steps; TOCO shifts the range back by less than half a step.

TOCO leaves a range unshifted if the shift would be a tiny part of a step (measured: it shifts by 0.04 of a
step, but not by 0.002). So these shifts are larger.
"""
ROUNDING: Final = 1e-4
"""The largest shift of a range that is due to rounding alone, in quantization steps."""
NEIGHBOURS: Final = 4
"""How many float32 numbers to try on each side of a computed end of a range."""
TINY: Final = float(np.finfo(np.float32).tiny)
ALL_SHIFTS: Final = np.linspace(0.49, -0.49, 4096)
"""The shifts to try for the input of a concatenation whose range reaches lowest."""

Ends = tuple[float, float]
"""The lower and the upper end of a quantization range."""
Reals = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FileConvolution:
    """A convolution of a file: weights (in TFLite's layout) and biases as real numbers, and tensor names."""

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
    """The values in a file.

    ``operands`` contains the constant operand of each addition, subtraction and multiplication, keyed by the
    name of its output. ``ranges`` contains the ranges of activations, keyed by name.
    """

    is_quantized: bool
    convolutions: tuple[FileConvolution, ...]
    operands: Mapping[str, NDArray[np.float32]]
    ranges: Mapping[str, Ends]

    def kernels(self) -> Mapping[str, tuple[int, ...]]:
        """Return the names of the weights' variables with their shapes in TensorFlow."""
        return {_variable_name(it.weights_name): _tensorflow_shape(it) for it in self.convolutions}

    @property
    def structure(self) -> str:
        """The sha256 over names and shapes of the kernels; the number of classes does not affect it."""
        rows = []
        for name, shape in self.kernels().items():
            scope = name.rpartition("/")[0]  # a quantized file does not mark depthwise kernels
            rows.append(f"{scope} {shape[:-1] if CLASS_PREDICTOR in scope else shape}")
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()

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
        UsageError: no TF1 checkpoint can give this file; the message states what kind of file it is.
        IntegrityError: the data of a tensor does not match its shape and type.
    """
    _require_toco(model)
    graph = model.graphs[0]
    is_quantized = kind_of_quantization(model) is QuantizationKind.QAT
    ranges = activation_ranges(graph) if is_quantized else {}
    convolutions = (it for it in graph.operators if it.name in CONVOLUTIONS)
    return FileTensors(
        is_quantized=is_quantized,
        convolutions=tuple(_convolution(it, graph, ranges) for it in convolutions),
        operands={} if is_quantized else dict(_operands(graph)),
        ranges=ranges,
    )


def _require_toco(model: Model) -> None:
    """Check that TOCO made the file from a detection graph, float or after quantization-aware training.

    Raises:
        UsageError: TOCO did not make it from such a graph.
    """
    reason = _why_not_toco(model)
    if reason is not None:
        raise UsageError(
            f"no TF1 checkpoint can be recovered from {model.source}: {reason}",
            tip="use an SSD model, float or trained with quantization, that TOCO converted; `inspect` "
            "describes the file",
        )


def _why_not_toco(model: Model) -> str | None:
    kind = kind_of_quantization(model)
    names = {operator.name for operator in model.operators()}
    if kind is QuantizationKind.EDGE_TPU:
        return "it is compiled for the Edge TPU, and its weights are inside the compiled program"
    if kind is QuantizationKind.PLACEHOLDER:
        return "it was quantized with placeholder ranges, so it contains no ranges of a checkpoint"
    if kind not in {QuantizationKind.NONE, QuantizationKind.QAT} or "QUANTIZE" in names:
        return f"it was quantized after training ({kind.value})"
    if TOCO not in model.description:
        return f"another converter made it ({model.description or 'unnamed'})"
    if len(model.graphs) != 1 or POST_PROCESS not in names:
        return f"it has no {POST_PROCESS} operator"
    return None


def _convolution(operator: Operator, graph: Graph, ranges: Mapping[str, Ends]) -> FileConvolution:
    source, weights = (graph.tensors[index] for index in operator.inputs[:2])
    bias = graph.tensors[operator.inputs[2]] if len(operator.inputs) > 2 else None
    ends = _ends_of_weights(weights) if weights.dtype == "uint8" else None
    return FileConvolution(
        output=graph.tensors[operator.outputs[0]].name,
        input=source.name,
        is_depthwise=operator.name == DEPTHWISE,
        weights_name=weights.name,
        weights=reals(weights),
        bias=None if bias is None else _biases(bias, _scale(source, ranges) * _narrow_scale(ends)),
        ends=ends,
    )


def _biases(bias: Tensor, scale: float) -> NDArray[np.float32]:
    """Return the real biases; their scale is the product of the input's and the weights' scales."""
    if bias.dtype == "float32":
        return reals(bias)
    exact: NDArray[np.float64] = _numbers(bias).astype(np.float64) * scale
    return exact.astype(np.float32)


def _scale(tensor: Tensor, ranges: Mapping[str, Ends]) -> float:
    """Return the scale that TOCO computes from an activation's range, before rounding it to float32.

    The rounded scale would give wrong values for biases of millions of steps.
    """
    if tensor.name in ranges:
        low, high = ranges[tensor.name]
        return Range(low=low, high=high).scale()
    parameters = quantization_of(tensor)
    return 1.0 if parameters is None else parameters[0]  # without parameters the biases are real numbers


def _narrow_scale(ends: Ends | None) -> float:
    return 1.0 if ends is None else Range(low=ends[0], high=ends[1], is_narrow=True).scale()


def _ends_of_weights(weights: Tensor) -> Ends:
    """Return ends from which TOCO computes the scale and the zero point of weights.

    These are the recorded ends if they give this scale and zero point. They do not if the weights use all 256
    integers, as in files from older versions of TensorFlow: in graphs of TensorFlow 1.15, the lowest integer
    is unused. In that case, or if the file records no ends, the ends are computed.
    """
    scale, zero_point = _parameters(weights)
    recorded = _recorded_ends(weights)
    low, high = (float(np.float32((integer - zero_point) * scale)) for integer in (1, 255))
    neighbours = (float(np.nextafter(np.float32(high), np.float32(end))) for end in (-np.inf, np.inf))
    computed = [(low, it) for it in (high, *neighbours)]
    for ends in computed if recorded is None else (recorded, *computed):
        found = Range(low=ends[0], high=ends[1], is_narrow=True)
        if (np.float32(found.scale()), found.zero_point()) == (np.float32(scale), zero_point):
            return ends
    return recorded or (low, high)


def reals(tensor: Tensor) -> NDArray[np.float32]:
    """Return the real values of a constant tensor, float32 or quantized.

    Raises:
        IntegrityError: the data does not match the shape and type, or there is no single scale.
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
            f"{tensor.name}: the data does not match the shape {list(tensor.shape)}"
        ) from problem


def _operands(graph: Graph) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for operator in graph.operators:
        tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
        constants = [tensor for tensor in tensors if tensor.data and tensor.dtype == "float32"]
        if operator.name in ARITHMETIC and len(constants) == 1:
            yield graph.tensors[operator.outputs[0]].name, reals(constants[0])


def activation_ranges(graph: Graph) -> Mapping[str, Ends]:
    """Return, for every activation, real ends from which TOCO computes the values in the file.

    The ranges returned for the inputs of a concatenation also give the range of its output.
    """
    return _ranges_for_concatenations(graph, dict(_ranges(graph)))


def _ranges(graph: Graph) -> Iterator[tuple[str, Ends]]:
    """Yield the range of every activation: real ends from which TOCO computes the values in the file."""
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

    TOCO shifts a range so that an integer represents 0.0, and records the shifted ends. If TOCO would record
    the same ends again when given the recorded ends, those are returned. If it would record neighbouring
    float32 numbers, this function searches for a range that TOCO shifts to the recorded one.
    """
    return _ends_within(tensor, (-math.inf, math.inf)) or _recorded(tensor)


def _moved_ranges(tensor: Tensor) -> Iterator[Ends]:
    """Yield ranges, shifted by less than half a step, that give the tensor's parameters and recorded ends."""
    (low, high), step = _recorded(tensor), _parameters(tensor)[0]
    # float32 is finer at the end closer to 0.0, so that end is chosen to give the exact width.
    is_low = abs(low) > abs(high)
    fixed = _float32((low if is_low else high) + SHIFTS * step)
    others, is_good = _other_ends(tensor, fixed, is_low=is_low)
    for one, other in zip(fixed[is_good].tolist(), others[is_good].tolist(), strict=True):
        yield (one, other) if is_low else (other, one)


def _other_ends(tensor: Tensor, ends: Reals, *, is_low: bool) -> tuple[Reals, NDArray[np.bool_]]:
    """Return the other end for each lower (or upper) end, and whether both give the tensor's range."""
    best, is_good = ends, np.zeros(ends.shape, bool)
    for others, gives in _neighbouring_ends(tensor, ends, is_low=is_low):
        best = np.where(gives & ~is_good, others, best)
        is_good |= gives
    return best, is_good


def _neighbouring_ends(
    tensor: Tensor, ends: Reals, *, is_low: bool
) -> Iterator[tuple[Reals, NDArray[np.bool_]]]:
    """Yield float32 numbers around the computed other ends, and whether both ends give the tensor's range."""
    width = 255 * _unrounded_scale(tensor) * (1 if is_low else -1)
    nearest = (ends + width).astype(np.float32)
    for towards in (np.float32(-np.inf), np.float32(np.inf)):
        others = nearest
        for _ in range(NEIGHBOURS):
            found = others.astype(np.float64)
            yield found, _give(tensor, ends, found) if is_low else _give(tensor, found, ends)
            others = np.nextafter(others, towards)


def _give(tensor: Tensor, lows: Reals, highs: Reals) -> NDArray[np.bool_]:
    """Return for each range whether it gives a tensor its scale, zero point and recorded ends."""
    (scale, zero_point), (low, high) = _parameters(tensor), _recorded(tensor)
    below, above = np.minimum(lows, 0.0), np.maximum(highs, 0.0)
    scales = np.maximum((above - below) / 255, TINY)
    from_low, from_high = -below / scales, 255 - above / scales
    nearer = np.where(from_low < 255 + above / scales, from_low, from_high)  # as in `Range.zero_point`
    recorded = ((scales, scale), (-zero_point * scales, low), ((255 - zero_point) * scales, high))
    conditions = (_float32(found) == np.float32(wanted) for found, wanted in recorded)
    is_good: NDArray[np.bool_] = np.all([np.floor(nearer + 0.5) == zero_point, *conditions], axis=0)
    return is_good


def _unrounded_scale(tensor: Tensor) -> float:
    """Return a float64 scale that rounds to the float32 scale and gives both float32 ends.

    TOCO computes in float64, but the file contains the scale and the two ends only as float32.
    """
    (scale, zero_point), (low, high) = _parameters(tensor), _recorded(tensor)
    known = ((scale, 1), (low, -zero_point), (high, 255 - zero_point))
    cells = [sorted(edge / steps for edge in _cell(value)) for value, steps in known if steps]
    least, most = max(cell[0] for cell in cells), min(cell[1] for cell in cells)
    return (least + most) / 2 if least <= most else scale


def _cell(value: float) -> tuple[float, float]:
    """Return the ends of the interval of numbers that round to this float32 number."""
    lower, upper = (float(np.nextafter(np.float32(value), np.float32(end))) for end in (-np.inf, np.inf))
    return (lower + value) / 2, (value + upper) / 2


def _float32(values: Reals) -> Reals:
    """Round to float32 and return the result as float64."""
    return values.astype(np.float32).astype(np.float64)


def _ranges_for_concatenations(graph: Graph, ranges: Mapping[str, Ends]) -> Mapping[str, Ends]:
    """Return the ranges, after changing those of a concatenation's inputs so that they fit its output too.

    Without ``change_concat_input_ranges``, the range of a concatenation's output goes from the lowest to the
    highest end of all its inputs. TOCO takes these two ends before it shifts any range. So they must also
    give the range that the file records for the output.
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
    """Return the tensor that determines a tensor's range: the input of reshapes and similar operators."""
    while index in makers and makers[index].name in RANGE_KEEPERS:
        index = makers[index].inputs[0]
    return index


def _joint(tensor: Tensor) -> tuple[Ends, tuple[float, int]]:
    return _recorded(tensor), _parameters(tensor)


def _fitting_ranges(joined: Tensor, inputs: Sequence[Tensor]) -> dict[str, Ends]:
    """Return input ranges that give the scales and zero points of the inputs and of the concatenation.

    The result is empty if no such ranges were found. The converted file then has another range for the output
    of the concatenation.
    """
    for lowest, highest in sorted(permutations(inputs, 2), key=_width, reverse=True):
        lows = _float32(_recorded(lowest)[0] + ALL_SHIFTS * _parameters(lowest)[0])
        mine, is_mine = _other_ends(lowest, lows, is_low=True)
        for highs, is_joint in _neighbouring_ends(joined, lows, is_low=True):
            others, is_other = _other_ends(highest, highs, is_low=False)
            is_good = is_joint & is_mine & is_other & (mine <= highs) & (others >= lows)
            for index in np.flatnonzero(is_good):
                limits = float(lows[index]), float(highs[index])
                chosen = {lowest.name: (limits[0], float(mine[index]))}
                chosen |= {highest.name: (float(others[index]), limits[1])}
                rest = {it.name: _ends_within(it, limits) for it in inputs if it.name not in chosen}
                if None not in rest.values():
                    return {**chosen, **{name: ends for name, ends in rest.items() if ends is not None}}
    return {}


def _width(pair: tuple[Tensor, Tensor]) -> float:
    """Return the width of the range from the low end of one tensor to the high end of another."""
    lowest, highest = pair
    return _recorded(highest)[1] - _recorded(lowest)[0]


def _ends_within(tensor: Tensor, limits: Ends) -> Ends | None:
    """Return ends within the limits that give the tensor's parameters, or None if there are none."""
    recorded = _recorded(tensor)
    candidates = chain([recorded] if _gives(tensor, recorded) else [], _moved_ranges(tensor))
    return next((it for it in candidates if limits[0] <= it[0] and it[1] <= limits[1]), None)


def _gives(tensor: Tensor, ends: Ends) -> bool:
    """Return whether a range with these ends gives a tensor its scale, zero point and recorded ends.

    TOCO leaves ends unshifted if the shift would be a tiny part of a step (measured: it shifts by 0.04 of a
    step, but not by 0.002). Unshifted ends are recorded as they were.
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
    """Return the scale, zero point and ends that TOCO records for an activation with this range."""
    nudged = Range(low=ends[0], high=ends[1])
    return (
        np.float32(nudged.scale()),
        nudged.zero_point(),
        np.float32(nudged.ends[0]),
        np.float32(nudged.ends[1]),
    )


def _variable_name(weights_name: str) -> str:
    """Derive the name of the variable that weights come from, from their name in the file."""
    return weights_name.removesuffix("/read").removesuffix("_quant/FakeQuantWithMinMaxVars")


def _tensorflow_shape(convolution: FileConvolution) -> tuple[int, ...]:
    first, height, width, last = convolution.weights.shape
    return (height, width, last, 1) if convolution.is_depthwise else (height, width, last, first)
