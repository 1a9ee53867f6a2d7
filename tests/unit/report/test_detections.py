"""The detection operator alone, and which boxes are the same object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.evaluation.detector import Box, FoundBox, found_boxes
from runner.litert.worker import litert_worker
from runner.report.detections import match_runs, overlap_of, running_alone
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.model import read_model_file
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FEED = np.random.default_rng(3).random((1, 8, 8, 3), dtype=np.float32)


def found(class_id: int, score: float, left: float, right: float) -> FoundBox:
    return FoundBox(class_id=class_id, score=score, box=Box(ymin=0.0, xmin=left, ymax=1.0, xmax=right))


def anchors_of(file: Path) -> NDArray[np.float64]:
    graph = read_model_file(file).graphs[0]
    tensor = graph.tensors[next(it for it in graph.operators if it.name == POST_PROCESS).inputs[2]]
    values = np.frombuffer(tensor.data, np.dtype(tensor.dtype)).astype(np.float64)
    if tensor.quantization is not None and tensor.dtype == "uint8":
        values = (values - tensor.quantization.zero_points[0]) * tensor.quantization.scales[0]
    return values.reshape(tensor.shape)


@pytest.mark.parametrize("kind", ["fp32", "uint8"])
def test_the_operator_alone_finds_in_raw_outputs_what_the_whole_file_finds(kind: str, tmp_path: Path) -> None:
    file = TINY_DETECTOR / f"{kind}.run0.tflite"
    graph = read_model_file(file).graphs[0]
    detection = next(it for it in graph.operators if it.name == POST_PROCESS)
    feed = FEED if kind == "fp32" else (FEED * 255).astype(np.uint8)
    with litert_worker(file, tensors=(*graph.outputs, *detection.inputs[:2]), timeout_s=60) as worker:
        *whole, boxes, classes = worker.run(feed).outputs
    raw = []
    for values, index in zip((boxes, classes), detection.inputs, strict=False):
        parameters = graph.tensors[index].quantization
        is_quantized = parameters is not None and values.dtype == np.uint8
        scale, zero = (
            (parameters.scales[0], parameters.zero_points[0]) if is_quantized and parameters else (1, 0)
        )
        raw.append((values[0].astype(np.float64) - zero) * scale)
    content = file.read_bytes()
    with running_alone(content, anchors_of(file), work_dir=tmp_path, timeout_s=60) as alone:
        answers = alone.detect(*raw)
    expected = found_boxes(tuple(whole))
    assert len(answers) == len(expected) > 0
    for answer, it in zip(answers, expected, strict=True):
        assert answer.class_id == it.class_id
        assert answer.score == pytest.approx(it.score, abs=1e-6)
        assert answer.box.xmin == pytest.approx(it.box.xmin, abs=1e-5)
        assert answer.box.ymax == pytest.approx(it.box.ymax, abs=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ((0.0, 1.0), (0.0, 1.0), 1.0),
        ((0.0, 1.0), (0.5, 1.5), 1 / 3),
        ((0.0, 1.0), (1.0, 2.0), 0.0),
        ((0, 0), (0, 0), 0),
    ],
)
def test_overlap_is_intersection_over_union(
    one: tuple[float, float], other: tuple[float, float], overlap: float
) -> None:
    assert overlap_of(found(1, 1, *one).box, found(1, 1, *other).box) == pytest.approx(overlap)


def test_an_object_is_the_box_of_its_class_that_overlaps_most() -> None:
    first = [found(1, 0.9, 0.0, 1.0), found(2, 0.8, 0.0, 1.0), found(1, 0.7, 3.0, 4.0)]
    second = [found(1, 0.6, 0.3, 1.1), found(1, 0.5, 0.1, 1.0), found(3, 0.4, 0.0, 1.0)]
    objects, numbers = match_runs([first, second])
    assert numbers == [[0, 1, 2], [3, 0, 4]]
    assert [[None if it is None else it.score for it in each.matches] for each in objects] == [
        [0.9, 0.5],
        [0.8, None],
        [0.7, None],
        [None, 0.6],
        [None, 0.4],
    ]
    overlaps = [it.overlap for it in objects[0].matches if it is not None]
    assert overlaps == [None, pytest.approx(0.9)]


def test_objects_are_in_the_order_of_their_best_score() -> None:
    objects, numbers = match_runs([[found(1, 0.2, 0.0, 1.0)], [found(1, 0.9, 3.0, 4.0)], []])
    assert [each.first.score for each in objects] == [0.9, 0.2]
    assert numbers == [[1], [0], []]
    assert all(len(each.matches) == 3 for each in objects)
