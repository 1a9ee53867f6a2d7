"""The values that a file determines, and files that no TF1 checkpoint can give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.errors import UsageError
from runner.evidence.check.compare import Range
from runner.proof.recovery.file_tensors import (
    FileConvolution,
    FileTensors,
    activation_ranges,
    read_file_tensors,
    reals,
)
from runner.tflite.model import Graph, QuantizationParameters, Tensor, read_model
from tests.altered import (
    compiled_for_edge_tpu,
    quantized_after_training,
    with_one_range,
    without_recorded_ranges,
)
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.operators import operator

if TYPE_CHECKING:
    from collections.abc import Callable


def content(name: str) -> bytes:
    return (TINY_DETECTOR / name).read_bytes()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: compiled_for_edge_tpu(content("uint8.run0.tflite")), "Edge TPU"),
        (lambda: with_one_range(content("uint8.run0.tflite"), 1.0, 128), "placeholder ranges"),
        (lambda: quantized_after_training(content("fp32.run0.tflite")), "after training (dynamic range"),
        (lambda: content("no_post_processing.tflite"), "TFLite_Detection_PostProcess"),
        (lambda: content("fp32.run0.tflite").replace(b"TOCO", b"MLIR"), "another converter made it (MLIR"),
    ],
)
def test_a_file_that_no_checkpoint_gives_is_refused_by_name(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_file_tensors(read_model(make()))
    assert reason in str(caught.value)


def test_a_float_file_has_no_ranges() -> None:
    tensors = read_file_tensors(read_model(content("fp32.run0.tflite")))
    assert (tensors.is_quantized, tensors.ranges) == (False, {})
    assert all(it.weights.dtype == np.float32 for it in tensors.convolutions)


def test_the_range_of_an_activation_gives_its_scale_and_zero_point_again() -> None:
    model = read_model(content("uint8.run0.tflite"))
    tensors = read_file_tensors(model)
    by_name = {tensor.name: tensor for tensor in model.graphs[0].tensors}
    assert tensors.ranges
    for name, (low, high) in tensors.ranges.items():
        found = by_name[name].quantization
        assert found is not None
        again = Range(low=low, high=high)
        assert (np.float32(again.scale()), again.zero_point()) == (
            np.float32(found.scales[0]),
            found.zero_points[0],
        )


def test_real_weights_are_on_the_grid_of_the_integers() -> None:
    model = read_model(content("uint8.run0.tflite"))
    (convolution, *_) = read_file_tensors(model).convolutions
    tensor = next(it for it in model.graphs[0].tensors if it.name == convolution.weights_name)
    assert tensor.quantization is not None
    scale, zero_point = tensor.quantization.scales[0], tensor.quantization.zero_points[0]
    again = np.round(reals(tensor) / scale) + zero_point
    assert np.array_equal(again.astype(np.uint8).ravel(), np.frombuffer(tensor.data, np.uint8))


def tensor_with(low: float, high: float, name: str = "activation") -> Tensor:
    """Return an activation as TOCO writes it for a range."""
    found = Range(low=low, high=high)
    scale, (start, stop) = np.float32(found.scale()), map(np.float32, found.ends)
    return Tensor(
        name=name,
        dtype="uint8",
        shape=(1,),
        quantization=QuantizationParameters(
            scales=(float(scale),),
            zero_points=(found.zero_point(),),
            minima=(float(start),),
            maxima=(float(stop),),
            dimension=0,
        ),
        data=b"",
        is_variable=False,
        is_sparse=False,
    )


def graph_of(joined: Tensor, *inputs: Tensor) -> Graph:
    """Return a graph whose tensors are computed, and then concatenated."""
    tensors = (*inputs, joined)
    indices = tuple(range(len(inputs)))
    made = tuple(operator("CONV_2D", (), (index,)) for index in indices)
    return Graph(
        name="",
        tensors=tensors,
        operators=(*made, operator("CONCATENATION", indices, (len(inputs),))),
        inputs=(),
        outputs=(len(inputs),),
    )


def as_float32(low: float, high: float) -> tuple[float, float]:
    return float(np.float32(low)), float(np.float32(high))


@pytest.mark.parametrize(
    "kind",
    [
        lambda random: (0.0, random.uniform(0.5, 6)),
        lambda random: (-random.uniform(1e-3, 30), random.uniform(1e-3, 30)),
        lambda random: (-random.uniform(5, 30), -random.uniform(0, 4)),  # logits that never reach 0
        lambda random: (random.uniform(0, 1), random.uniform(2, 6)),
        lambda random: (-random.uniform(0, 1e-4), random.uniform(1, 6)),
        lambda random: (-random.uniform(1, 30), random.uniform(0, 0.1)),
        lambda random: (-random.uniform(0, 1e-6), random.uniform(1e-7, 1e-6)),
    ],
)
def test_ranges_that_training_gives_are_found_to_the_last_bit(
    kind: Callable[[np.random.Generator], tuple[float, float]],
) -> None:
    random = np.random.default_rng(7)
    for _ in range(50):
        tensor = tensor_with(*as_float32(*kind(random)))
        low, high = activation_ranges(graph_of(tensor))[tensor.name]
        assert tensor_with(low, high) == tensor, (low, high)


def test_the_inputs_of_a_concatenation_also_give_its_range() -> None:
    """As without ``change_concat_input_ranges``: the lowest and the highest end of all inputs."""
    random = np.random.default_rng(7)
    for _ in range(20):
        ends = [as_float32(-random.uniform(2, 14), random.uniform(-1, 4)) for _ in range(6)]
        inputs = [tensor_with(*it, name=f"head {number}") for number, it in enumerate(ends)]
        lows, highs = zip(*ends, strict=True)
        joined = tensor_with(min(lows), max(highs), "joined")
        ranges = activation_ranges(graph_of(joined, *inputs))
        for tensor in inputs:
            assert tensor_with(*ranges[tensor.name], tensor.name) == tensor
        lows, highs = zip(*(ranges[tensor.name] for tensor in inputs), strict=True)
        assert tensor_with(min(lows), max(highs), "joined") == joined


def test_weights_of_a_graph_with_256_integers_keep_their_scale() -> None:
    """The graphs of TensorFlow 1.15 leave the lowest integer unused, so other ends give the same scale."""
    tensors = read_file_tensors(read_model(content("uint8.run0.tflite")))
    for it in tensors.convolutions:
        assert it.ends is not None
        found = Range(low=it.ends[0], high=it.ends[1], is_narrow=True)
        assert (np.float32(found.scale()), found.zero_point()) == (np.float32(2 / 255), 128)


def test_a_file_without_recorded_ranges_gives_the_same_ranges() -> None:
    whole, bare = (
        read_file_tensors(read_model(made))
        for made in (content("uint8.run0.tflite"), without_recorded_ranges(content("uint8.run0.tflite")))
    )
    scales = [
        {name: np.float32(Range(low=low, high=high).scale()) for name, (low, high) in it.ranges.items()}
        for it in (whole, bare)
    ]
    assert scales[0] == scales[1]
    for one, other in zip(whole.convolutions, bare.convolutions, strict=True):
        assert one.bias is not None
        assert other.bias is not None
        assert np.allclose(one.bias, other.bias, rtol=1e-6, atol=0)


def test_the_structure_does_not_depend_on_the_number_of_classes() -> None:
    def convolution(name: str, channels: int) -> FileConvolution:
        return FileConvolution(
            output=name,
            input="",
            is_depthwise=False,
            weights_name=name,
            weights=np.zeros((channels, 1, 1, 16), np.float32),
            bias=None,
            ends=None,
        )

    def structure(classes: int, channels: int) -> str:
        head = convolution("BoxPredictor_0/ClassPredictor/weights", classes)
        body = convolution("FeatureExtractor/Conv/weights", channels)
        file = FileTensors(is_quantized=False, convolutions=(head, body), operands={}, ranges={})
        return file.structure

    assert structure(273, 16) == structure(12, 16)
    assert structure(273, 16) != structure(273, 8)
