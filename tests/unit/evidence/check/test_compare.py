"""TOCO's small detector compared with the graph it was made from, with one fault at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.evidence.check.compare import GraphFacts, QuantizationFlags, Range, compare
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.model import read_model
from runner.tflite.schema import schema
from tests.altered import with_other_options, with_other_scale, with_other_zero_point
from tests.unit.fixtures.graph_facts import WEIGHT_RANGE, graph_of

if TYPE_CHECKING:
    from pathlib import Path

CONVERSION = QuantizationFlags(mean=128, std=128)


def findings(
    content: bytes, graph: GraphFacts, conversion: QuantizationFlags = CONVERSION
) -> set[tuple[str, str]]:
    return {(each.tensor, each.what) for each in compare(read_model(content), graph, conversion).findings}


def with_value(content: bytes, tensor: str, value: float) -> bytes:
    """Give the first element of a tensor another value."""
    copy = bytearray(content)
    root = schema.Model.GetRootAs(copy)
    file = root.Subgraphs(0)
    tensors = [file.Tensors(index) for index in range(file.TensorsLength())]
    (found,) = [each for each in tensors if each.Name() == tensor.encode()]
    dtype = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT32: "<i4"}.get(found.Type(), "u1")
    root.Buffers(found.Buffer()).DataAsNumpy().view(dtype)[0] = value
    return bytes(copy)


def with_swapped_outputs(content: bytes) -> bytes:
    copy = bytearray(content)
    outputs = schema.Model.GetRootAs(copy).Subgraphs(0).OutputsAsNumpy()
    outputs[[1, 2]] = outputs[[2, 1]]
    return bytes(copy)


@pytest.fixture
def content(runs: tuple[bytes, ...]) -> bytes:
    return runs[0]


@pytest.fixture
def graph(content: bytes) -> GraphFacts:
    return graph_of(read_model(content))


@pytest.fixture
def fp32(data_dir: Path) -> bytes:
    return (data_dir / "fp32.run0.tflite").read_bytes()


@pytest.fixture
def uint8(data_dir: Path) -> bytes:
    return (data_dir / "uint8.run0.tflite").read_bytes()


def test_every_run_of_toco_is_accounted_for(runs: tuple[bytes, ...], graph: GraphFacts) -> None:
    assert [findings(content, graph) for content in runs] == [set()] * len(runs)


def test_other_threshold_is_found(content: bytes, graph: GraphFacts) -> None:
    planted = with_other_options(content, {"nms_score_threshold": 0.5})
    assert findings(planted, graph) == {(POST_PROCESS, "nms_score_threshold")}


def test_swapped_outputs_are_found(content: bytes, graph: GraphFacts) -> None:
    assert findings(with_swapped_outputs(content), graph) == {(POST_PROCESS, "outputs")}


def test_convolution_that_is_missing_is_found(content: bytes, graph: GraphFacts) -> None:
    more = {**graph.convolutions, "Conv2D_9": graph.convolutions["Conv2D"]}
    assert findings(content, replace(graph, convolutions=more)) == {
        ("Conv2D_9", "this convolution of the graph")
    }


def test_convolution_that_the_graph_lacks_is_found(content: bytes, graph: GraphFacts) -> None:
    fewer = {name: each for name, each in graph.convolutions.items() if name != "depthwise"}
    assert ("depthwise_bias", "its convolution") in findings(content, replace(graph, convolutions=fewer))


def test_other_input_is_found(content: bytes, graph: GraphFacts) -> None:
    assert findings(content, replace(graph, input_name="image")) == {("image", "input")}


@pytest.mark.parametrize("value", [0.25, float("nan")])
@pytest.mark.parametrize(("tensor", "what"), [("Conv2D_bias", "bias"), ("depthwise_bias", "bias")])
def test_other_float_bias_is_found(fp32: bytes, tensor: str, what: str, value: float) -> None:
    assert findings(with_value(fp32, tensor, value), graph_of(read_model(fp32))) == {(tensor, what)}


def test_weights_of_another_checkpoint_are_found(content: bytes, graph: GraphFacts) -> None:
    one = graph.convolutions["Conv2D"]
    other = {**graph.convolutions, "Conv2D": replace(one, weights=-one.weights)}
    found = findings(content, replace(graph, convolutions=other))
    assert [what for _, what in found] == ["weights"]


@pytest.mark.parametrize(("steps", "is_found"), [(0, False), (1, False), (2, True)])
def test_one_step_of_a_quantized_weight_is_rounding(uint8: bytes, steps: int, *, is_found: bool) -> None:
    graph = graph_of(read_model(uint8))
    first = graph.convolutions["Conv2D"].weights.ravel()[0]
    integer = round(first / WEIGHT_RANGE.scale()) + WEIGHT_RANGE.zero_point()
    planted = with_value(
        uint8, "FakeQuantWithMinMaxArgs_1", integer + steps if integer < 200 else integer - steps
    )
    expected = {("FakeQuantWithMinMaxArgs_1", "weights")} if is_found else set()
    assert findings(planted, graph) == expected


def test_other_quantized_bias_is_found(uint8: bytes) -> None:
    planted = with_value(uint8, "Conv2D_bias", 100000)
    assert findings(planted, graph_of(read_model(uint8))) == {("Conv2D_bias", "bias")}


@pytest.mark.parametrize("tensor", ["Relu6", "boxes", "classes", "anchors", "normalized_input_image_tensor"])
def test_other_zero_point_is_found(uint8: bytes, tensor: str) -> None:
    planted = with_other_zero_point(uint8, tensor)
    assert (tensor, "zero point") in findings(planted, graph_of(read_model(uint8)))


@pytest.mark.parametrize("tensor", ["Relu6_1", "Reshape", "Conv2D_bias", "FakeQuantWithMinMaxArgs_3"])
def test_other_scale_is_found(uint8: bytes, tensor: str) -> None:
    planted = with_other_scale(uint8, tensor)
    assert (tensor, "scale") in findings(planted, graph_of(read_model(uint8)))


def test_wrong_mean_and_std_are_found(uint8: bytes) -> None:
    graph, name = graph_of(read_model(uint8)), "normalized_input_image_tensor"
    assert findings(uint8, graph, QuantizationFlags(mean=127, std=128)) == {(name, "zero point")}
    assert (name, "scale") in findings(uint8, graph, QuantizationFlags(mean=128, std=127))


def test_range_that_nothing_accounts_for_is_found(uint8: bytes) -> None:
    graph = graph_of(read_model(uint8))
    fewer = {name: each for name, each in graph.ranges.items() if name != "Relu6"}
    assert ("Relu6", "range") in findings(uint8, replace(graph, ranges=fewer))


@pytest.mark.parametrize(
    ("low", "high", "is_narrow", "scale", "zero_point"),
    [
        # Of the published checkpoint's ranges, as TOCO 1.15 wrote them into a file.
        (-1.8315669298171997, 1.6655287742614746, True, 0.013768093660473824, 134),
        (-0.13889113068580627, 0.12503904104232788, True, 0.0010390951065346599, 135),
        (0.0, 5.999761581420898, False, 0.023528477177023888, 0),
        (-58.56514358520508, 43.24355697631836, False, 0.399249792098999, 147),
        (-10.677109718322754, 1.2301585674285889, False, 0.04669516906142235, 229),
        (-1.0, 1.0, False, 0.007843137718737125, 128),
    ],
)
def test_range_is_nudged_as_toco_does(
    low: float, high: float, *, is_narrow: bool, scale: float, zero_point: int
) -> None:
    nudged = Range(low=low, high=high, is_narrow=is_narrow)
    assert nudged.scale() == pytest.approx(scale, rel=1e-7)
    assert nudged.zero_point() == zero_point


@given(
    low=st.floats(min_value=-100, max_value=0.0),
    high=st.floats(min_value=0.01, max_value=100),
    is_narrow=st.booleans(),
    share=st.floats(min_value=0, max_value=1),
)
def test_quantizing_is_off_by_a_step_at_most(
    low: float, high: float, *, is_narrow: bool, share: float
) -> None:
    nudged = Range(low=low, high=high, is_narrow=is_narrow)
    real = low + share * (high - low)
    integer = float(nudged.quantize(np.array([real]))[0])
    assert nudged.lowest <= integer <= 255
    # The ends move by up to half a step when zero is made a whole number of steps.
    assert abs((integer - nudged.zero_point()) * nudged.scale() - real) <= nudged.scale() * (1 + 1e-9)


@given(st.floats(min_value=-100, max_value=100), st.floats(min_value=-100, max_value=100))
def test_zero_is_always_exact(one: float, other: float) -> None:
    nudged = Range(low=min(one, other), high=max(one, other))
    assert nudged.quantize(np.zeros(1))[0] == nudged.zero_point()


def with_shared_bias(content: bytes) -> bytes:
    """Give the third convolution the bias of the first, as TOCO does if both are equal."""
    copy = bytearray(content)
    file = schema.Model.GetRootAs(copy).Subgraphs(0)
    file.Operators(2).InputsAsNumpy()[2] = file.Operators(0).InputsAsNumpy()[2]
    return bytes(copy)


def test_convolutions_with_one_bias_are_told_apart_by_their_outputs(fp32: bytes) -> None:
    graph = graph_of(read_model(fp32))
    first, third = (graph.convolutions[name] for name in ("Conv2D", "Conv2D_1"))
    named = {
        "Conv2D": replace(first, outputs=("Conv2D", "add", "Relu6")),
        "Conv2D_1": replace(third, bias=first.bias, outputs=("Conv2D_1", "add_2")),
    }
    planted = with_shared_bias(fp32)
    assert findings(planted, replace(graph, convolutions={**graph.convolutions, **named})) == set()
    swapped = {
        "Conv2D": replace(named["Conv2D"], outputs=named["Conv2D_1"].outputs),
        "Conv2D_1": replace(named["Conv2D_1"], outputs=named["Conv2D"].outputs),
    }
    found = findings(planted, replace(graph, convolutions={**graph.convolutions, **swapped}))
    assert {what for _, what in found} == {"shape"}


@pytest.mark.parametrize(
    ("input_name", "expected"), [("Relu6_1", set()), ("another", {("Const_4", "weights")})]
)
def test_weights_are_scaled_only_if_their_input_is_not(
    fp32: bytes, input_name: str, expected: set[tuple[str, str]]
) -> None:
    graph = graph_of(read_model(fp32))
    one = graph.convolutions["Conv2D_1"]
    scaled = replace(one, weights=one.weights * 6, scaled_inputs={input_name: 1 / 6})
    assert findings(fp32, replace(graph, convolutions={**graph.convolutions, "Conv2D_1": scaled})) == expected
