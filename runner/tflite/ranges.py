"""Recognize placeholder ranges, which ``--default_ranges_min`` and ``--default_ranges_max`` set.

TOCO uses these two values for every activation for which the graph contains no range. Such a file runs as
fast as any other, but its results are meaningless.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runner.tflite.model import Graph, Model, Operator, Tensor

INTEGER_TYPES: Final = frozenset({"int4", "int8", "uint8", "int16"})
RANGE_KEEPERS: Final = frozenset(
    {
        "AVERAGE_POOL_2D",
        "DEPTH_TO_SPACE",
        "GATHER",
        "MAX_POOL_2D",
        "PAD",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TRANSPOSE",
    }
)
"""Operators whose output has the same range as their input."""
FIXED_RANGE: Final = frozenset({"L2_NORMALIZATION", "LOGISTIC", "SOFTMAX", "TANH"})
"""Operators whose output has a range that TOCO knows, whatever the graph and the flags say."""
WEIGHING: Final = frozenset({"ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL", "SUB"})
"""Operators whose output has a range that depends on the weights."""
UNBOUNDED: Final = frozenset({"NONE", "RELU"})
"""Fused activation functions that leave the range to the weights; RELU6 does not."""
NEARLY_ALL: Final = 0.9
"""Ranges are placeholders if this share of the tensors has the same one; a few can have other ranges."""

ScaleAndZeroPoint = tuple[float, int]


@dataclass(frozen=True, kw_only=True)
class SharedRange:
    """A scale and zero point that nearly all activations share: ``count`` of ``total`` activations."""

    scale: float
    zero_point: int
    count: int
    total: int


def placeholder_range(model: Model) -> SharedRange | None:
    """Return the range that nearly all activations share, if it cannot have been measured, else None.

    Ranges measured on different tensors never agree to the last bit. But in many quantized networks RELU6
    gives most outputs the same range. So tensors whose range depends on the weights must have it as well.
    """
    computed = Counter(it for graph in model.graphs for it in _computed_ranges(graph))
    if not computed:
        return None
    common, _ = computed.most_common(1)[0]
    free = Counter(it for graph in model.graphs for it in _computed_ranges(graph, _leaves_range_to_weights))
    if min(_share(computed, common), _share(free, common)) < NEARLY_ALL:
        return None
    activations = Counter(it for graph in model.graphs for it in _activation_ranges(graph))
    return SharedRange(
        scale=common[0], zero_point=common[1], count=activations[common], total=activations.total()
    )


def _share(counted: Counter[ScaleAndZeroPoint], one: ScaleAndZeroPoint) -> float:
    return counted[one] / max(1, counted.total())


def _activation_ranges(graph: Graph) -> Iterator[ScaleAndZeroPoint]:
    made = {index for operator in graph.operators for index in operator.outputs}
    yield from _ranges(graph, made.union(graph.inputs))


def _sets_a_range(operator: Operator) -> bool:
    return operator.name not in FIXED_RANGE


def _leaves_range_to_weights(operator: Operator) -> bool:
    return operator.name in WEIGHING and operator.options.get("fused_activation_function") in UNBOUNDED


def _computed_ranges(
    graph: Graph, is_wanted: Callable[[Operator], bool] = _sets_a_range
) -> Iterator[ScaleAndZeroPoint]:
    """Yield the ranges of the outputs of operators.

    All inputs of a concatenation count as one, because TOCO gives them the same range, even if their ranges
    were measured.
    """
    joined: dict[int, int] = {}
    made: dict[int, int] = {}
    for operator in reversed(graph.operators):
        if operator.name == "CONCATENATION" or operator.name in RANGE_KEEPERS:
            for end in operator.outputs[:1]:
                joined.update(dict.fromkeys(operator.inputs, joined.get(end, end)))
        elif is_wanted(operator):
            made.update((joined.get(index, index), index) for index in operator.outputs)
    yield from _ranges(graph, made.values())


def _ranges(graph: Graph, indices: Iterable[int]) -> Iterator[ScaleAndZeroPoint]:
    for index in indices:
        scale_and_zero_point = _range(graph.tensors[index]) if index >= 0 else None
        if scale_and_zero_point is not None:
            yield scale_and_zero_point


def _range(tensor: Tensor) -> ScaleAndZeroPoint | None:
    parameters = tensor.quantization
    if tensor.dtype not in INTEGER_TYPES or parameters is None:
        return None
    if len(parameters.scales) != 1 or len(parameters.zero_points) != 1:
        return None
    return parameters.scales[0], parameters.zero_points[0]
