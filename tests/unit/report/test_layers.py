"""How far layers are from those of the graph, and which ranges differ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.evidence.check.compare import Range
from runner.litert.worker import litert_worker
from runner.report.layers import INPUT, compare_layers, compare_ranges, layer_images, layer_tensors
from runner.tflite.model import read_model, read_model_file
from tests.altered import with_other_scale
from tests.locations import DATA, TINY_DETECTOR
from tests.unit.fixtures.graph_facts import graph_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from runner.tflite.model import Graph

UINT8, FP32 = TINY_DETECTOR / "uint8.run0.tflite", TINY_DETECTOR / "fp32.run0.tflite"
TWO_HEADS = {
    "boxes_0": Range(low=-8.0, high=8.0),
    "boxes_1": Range(low=-4.0, high=4.0),
    "classes_0": Range(low=-8.0, high=1.2),
    "classes_1": Range(low=-8.0, high=2.0),
}
"""The ranges in the graph of tests/data/two_heads."""
PIXELS = np.random.default_rng(5).integers(0, 256, (1, 8, 8, 3), np.uint8)


def values_of(kind: str) -> tuple[Graph, dict[int, NDArray[np.generic]]]:
    """Run a file, and return its graph and the values of all its layers."""
    file = UINT8 if kind == "uint8" else FP32
    graph = read_model_file(file).graphs[0]
    names = {tensor.name: tensor for tensor in graph.tensors}
    tensors = tuple(layer_tensors(graph, names))
    feed = PIXELS if kind == "uint8" else PIXELS.astype(np.float32)
    with litert_worker(file, tensors=tensors, keep_all=True, timeout_s=60) as worker:
        return graph, dict(zip(tensors, worker.run(feed).outputs, strict=True))


def reals_of(graph: Graph, found: dict[int, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    reals = {}
    for index, values in found.items():
        parameters = graph.tensors[index].quantization
        scale, zero = (1.0, 0)
        if parameters is not None and values.dtype == np.uint8:
            scale, zero = parameters.scales[0], parameters.zero_points[0]
        reals[graph.tensors[index].name] = (values.astype(np.float64) - zero) * scale
    return reals


@pytest.mark.parametrize("kind", ["uint8", "fp32"])
def test_layers_are_all_that_is_computed_before_the_detections_from_input_to_raw_outputs(kind: str) -> None:
    graph, found = values_of(kind)
    layers = compare_layers(graph, found, reals_of(graph, found))
    computed = [index for it in graph.operators[:-1] for index in it.outputs]
    assert [it.name for it in layers] == [graph.tensors[index].name for index in (*graph.inputs, *computed)]
    assert layers[0].operator == INPUT
    assert [it.operator for it in layers[1:]] == [it.name for it in graph.operators[:-1]]
    assert all(it.rms == pytest.approx(0, abs=1e-9) for it in layers)
    values = [it for it in found.values() if it.size > 1]
    assert all(len(np.unique(it)) > 1 for it in values), "the memory of a layer was used again"


def test_the_error_of_a_quantized_layer_is_in_steps_and_stands_beside_that_of_its_inputs() -> None:
    graph, found = values_of("uint8")
    expected = reals_of(graph, found)
    second = graph.operators[1]
    tensor = graph.tensors[second.outputs[0]]
    assert tensor.quantization is not None
    expected[tensor.name] = expected[tensor.name] - 3 * tensor.quantization.scales[0]
    by_name = {it.name: it for it in compare_layers(graph, found, expected)}
    assert by_name[tensor.name].rms == pytest.approx(3)
    assert by_name[tensor.name].largest == pytest.approx(3)
    assert by_name[tensor.name].inputs_rms == pytest.approx(0, abs=1e-9)
    readers = [it for it in graph.operators[2:] if second.outputs[0] in it.inputs]
    assert readers
    assert by_name[graph.tensors[readers[0].outputs[0]].name].inputs_rms == pytest.approx(3)


def test_the_error_of_a_float_layer_is_a_part_of_its_largest_value() -> None:
    graph, found = values_of("fp32")
    expected = reals_of(graph, found)
    name = graph.tensors[graph.operators[0].outputs[0]].name
    largest = np.abs(expected[name]).max()
    expected[name] = expected[name].copy()
    expected[name].flat[int(np.abs(expected[name]).argmin())] += largest / 10
    by_name = {it.name: it for it in compare_layers(graph, found, expected)}
    assert by_name[name].largest == pytest.approx(0.1, rel=0.01)


def test_ranges_of_the_graph_are_those_of_the_file_but_for_one_that_was_changed() -> None:
    model = read_model_file(UINT8)
    rows = compare_ranges(model.graphs[0], graph_of(model))
    assert {it.name for it in rows} >= {"normalized_input_image_tensor", "Relu6", "Relu6_1", "add_2", "add_3"}
    assert not any(it.is_different for it in rows)
    altered = read_model(with_other_scale(UINT8.read_bytes(), "Relu6_1"))
    (changed, *rest) = compare_ranges(altered.graphs[0], graph_of(model))
    assert (changed.name, changed.is_different, changed.lost) == ("Relu6_1", True, 0.0)
    assert changed.file[1] == pytest.approx(2 * changed.checkpoint[1])
    assert not any(it.is_different for it in rest)


def test_a_clipped_concatenation_has_lost_a_part_of_what_its_inputs_can_be() -> None:
    model = read_model_file(DATA / "two_heads" / "clipped.tflite")
    rows = compare_ranges(model.graphs[0], graph_of(model, TWO_HEADS))
    different = {it.name: it for it in rows if it.is_different}
    concatenations = [it for it in different.values() if it.operator == "CONCATENATION"]
    assert [it.checkpoint[1] for it in concatenations] == [pytest.approx(2.0, abs=0.05)]
    assert [it.file[1] for it in concatenations] == [pytest.approx(1.2, abs=0.05)]
    assert [it.lost for it in concatenations] == [pytest.approx(0.08, abs=0.01)]


def test_layers_are_compared_on_as_many_images_as_fit() -> None:
    graph = read_model_file(FP32).graphs[0]
    assert [layer_images(graph, count) for count in (1, 2, 3)] == [1, 2, 2]
    wide = replace(graph, tensors=tuple(replace(it, shape=(1, 2**13, 2**13, 1)) for it in graph.tensors))
    assert layer_images(wide, 3) == 0
