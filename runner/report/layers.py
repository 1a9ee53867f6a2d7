"""Compare the layers of a file with those of its frozen graph, and their ranges with the checkpoint's."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from runner.evidence.check.compare import QUANTIZED_MAX, Range, derive_ranges, ends_of, quantization_of
from runner.report.data import ActivationRange, Layer
from runner.tflite.key_orders import POST_PROCESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from runner.evidence.check.compare import GraphFacts
    from runner.tflite.model import Graph, Operator, Tensor

    Array = NDArray[np.float64]

INPUT: Final = "input"
STEPS: Final = "steps"
RELATIVE: Final = "of the largest value"
MOST_IMAGES: Final = 2
MOST_VALUES: Final = 1 << 28
"""The maximum number of values to compare; they pass between processes and take 1 GiB as float32."""


def layer_tensors(file: Graph, names: Mapping[str, object]) -> dict[int, str]:
    """Return the indices of the tensors that are also in the graph, each with the operator that computes it.

    The input comes first; the other tensors are in the order in which they are computed.
    """
    makers = {index: it.name for it in file.operators if it.name != POST_PROCESS for index in it.outputs}
    tensors = {**dict.fromkeys(file.inputs, INPUT), **makers}
    return {index: maker for index, maker in tensors.items() if file.tensors[index].name in names}


def layer_images(file: Graph, images: int) -> int:
    """Return how many images can be compared in all layers; 0 if one image gives too many values."""
    computed = (index for it in file.operators for index in it.outputs)
    values = sum(prod(file.tensors[index].shape) for index in computed if file.tensors[index].shape)
    return min(images, MOST_IMAGES, MOST_VALUES // max(1, values))


def compare_layers(
    file: Graph, found: Mapping[int, NDArray[np.generic]], expected: Mapping[str, NDArray[np.generic]]
) -> tuple[Layer, ...]:
    """Return the error of each tensor in ``found``, in the order of ``found``.

    ``found`` contains the values of the file, keyed by tensor index. ``expected`` contains the values of the
    graph, keyed by name.
    """
    makers = {index: it for it in file.operators for index in it.outputs}
    errors: dict[int, tuple[float, float]] = {}
    for index, values in found.items():
        tensor = file.tensors[index]
        wanted = np.asarray(expected[tensor.name], np.float64)
        if wanted.size == values.size:
            errors[index] = _rms_and_largest(_errors(tensor, values, wanted.reshape(values.shape)))
    return tuple(
        Layer(
            position=position,
            name=file.tensors[index].name,
            operator=makers[index].name if index in makers else INPUT,
            rms=rms,
            largest=largest,
            inputs_rms=_inputs_rms(makers.get(index), errors),
        )
        for position, (index, (rms, largest)) in enumerate(errors.items())
    )


def _rms_and_largest(error: Array) -> tuple[float, float]:
    return float(np.sqrt(np.mean(np.square(error)))), float(np.abs(error).max())


def _inputs_rms(maker: Operator | None, errors: Mapping[int, tuple[float, float]]) -> float | None:
    inputs = () if maker is None else maker.inputs
    return max((errors[index][0] for index in inputs if index in errors), default=None)


def _errors(tensor: Tensor, found: NDArray[np.generic], expected: Array) -> Array:
    """Return the errors in quantization steps.

    The errors of a float tensor are relative to the largest absolute value that it has in the graph.
    """
    quantization = quantization_of(tensor)
    values = np.asarray(found, np.float64)
    if quantization is None or tensor.dtype == "float32":
        return (values - expected) / (np.abs(expected).max() or 1.0)
    scale, zero_point = quantization
    return (values - zero_point) - expected / scale


def compare_ranges(file: Graph, graph: GraphFacts) -> tuple[ActivationRange, ...]:
    """Return the ranges of the activations of a quantized file, those that differ first.

    If the graph records no range for a concatenation, the union of the ranges of its inputs is used.
    """
    own = derive_ranges(file, graph, Range(low=-1.0, high=1.0), concat=False)
    rows = list(_ranges(file, own))
    return tuple(sorted(rows, key=lambda row: (not row.is_different, -row.lost)))


def _ranges(file: Graph, own: Mapping[int, Range]) -> Iterator[ActivationRange]:
    makers = {index: it.name for it in file.operators for index in it.outputs}
    for index in (*file.inputs, *makers):
        kept = ends_of(file.tensors[index])
        if index not in own or kept is None or file.tensors[index].dtype != "uint8":
            continue
        wanted = own[index].ends
        step = (wanted[1] - wanted[0]) / QUANTIZED_MAX
        cut = max(0.0, kept[0] - wanted[0]) + max(0.0, wanted[1] - kept[1])
        yield ActivationRange(
            name=file.tensors[index].name,
            operator=makers.get(index, INPUT),
            checkpoint=wanted,
            file=kept,
            lost=cut / (wanted[1] - wanted[0]) if step else 0.0,
            is_different=max(abs(kept[0] - wanted[0]), abs(kept[1] - wanted[1])) > step,
        )
