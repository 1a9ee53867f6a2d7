"""What a file determines, and the files that no TF1 checkpoint gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.errors import UsageError
from runner.evidence.check.compare import Range
from runner.proof.recovery.file_tensors import read_file_tensors, reals
from runner.tflite.model import read_model
from tests.altered import compiled_for_edge_tpu, with_one_range
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from collections.abc import Callable


def content(name: str) -> bytes:
    return (TINY_DETECTOR / name).read_bytes()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: compiled_for_edge_tpu(content("uint8.run0.tflite")), "Edge TPU"),
        (lambda: with_one_range(content("uint8.run0.tflite"), 1.0, 128), "placeholder ranges"),
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
