"""Compute the detections of a frozen graph, and match the detections of several runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner.evaluation.detector import Box, found_boxes
from runner.litert.worker import litert_worker
from runner.report.data import Match
from runner.tflite.schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from runner.evaluation.detector import FoundBox
    from runner.litert.worker import LiteRtWorker

LEAST_OVERLAP: Final = 0.5
"""Boxes of one class whose overlap (IoU) is at least this are considered the same object."""


def detection_alone(content: bytes, anchors: NDArray[np.float64]) -> bytes:
    """Return a model that consists only of another model's detection operator, with float inputs.

    The detection operator is the last one. Its inputs are the box encodings (1, anchors, 4) and the class
    predictions (1, anchors, classes).
    """
    import flatbuffers  # type: ignore[import-untyped] # ships no types

    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    operator = graph.operators[-1]
    used = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs)]
    for tensor in used:
        tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    constant = schema.BufferT()
    constant.data = np.frombuffer(anchors.astype("<f4").tobytes(), np.uint8)
    for tensor in used:
        tensor.buffer = 0
    used[2].buffer = 1
    model.buffers, model.metadata = [schema.BufferT(), constant], None
    operator.inputs, operator.outputs = [0, 1, 2], [3, 4, 5, 6]
    graph.tensors, graph.operators = used, [operator]
    graph.inputs, graph.outputs = [0, 1], [3, 4, 5, 6]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@dataclass(frozen=True, kw_only=True)
class DetectionAlone:
    """The detection operator of a file, loaded in LiteRT."""

    worker: LiteRtWorker

    def detect(self, boxes: NDArray[Any], classes: NDArray[Any]) -> tuple[FoundBox, ...]:
        """Return the detections for the raw outputs of a graph: (anchors, 4) and (anchors, classes)."""
        feeds = (np.ascontiguousarray(it[np.newaxis], np.float32) for it in (boxes, classes))
        return found_boxes(self.worker.run(*feeds).outputs)


@contextlib.contextmanager
def running_alone(
    content: bytes, anchors: NDArray[np.float64], *, work_dir: Path, timeout_s: float
) -> Iterator[DetectionAlone]:
    """Load the detection operator of a file in LiteRT.

    Raises:
        IntegrityError: LiteRT rejects it.
    """
    file = work_dir / "detection.tflite"
    file.write_bytes(detection_alone(content, anchors))
    with litert_worker(file, timeout_s=timeout_s) as worker:
        yield DetectionAlone(worker=worker)


@dataclass(kw_only=True)
class _Object:
    first: FoundBox
    matches: list[Match | None]


@dataclass(frozen=True, kw_only=True)
class FoundObject:
    """An object that at least one run found; ``first`` is its box in the first of these runs.

    ``matches`` has an entry for each run; it is None for a run that did not find the object.
    """

    first: FoundBox
    matches: tuple[Match | None, ...]


def match_runs(runs: Sequence[Sequence[FoundBox]]) -> tuple[tuple[FoundObject, ...], list[list[int]]]:
    """Find the same objects in several runs: boxes of one class that overlap most are matched first.

    Returns the objects and, for each detection of each run, the index of its object.
    """
    objects: list[_Object] = []
    indices: list[list[int]] = []
    for run in runs:
        matched = _matched(objects, run)
        numbers = []
        for number, found in enumerate(run):
            if number in matched:
                index, overlap = matched[number]
                objects[index].matches.append(Match(score=found.score, overlap=overlap))
            else:
                index = len(objects)
                missing: list[Match | None] = [None] * len(indices)
                objects.append(
                    _Object(first=found, matches=[*missing, Match(score=found.score, overlap=None)])
                )
            numbers.append(index)
        indices.append(numbers)
        for it in objects:
            it.matches += [None] * (len(indices) - len(it.matches))
    order = sorted(range(len(objects)), key=lambda index: -_best_score(objects[index]))
    position = {index: place for place, index in enumerate(order)}
    return (
        tuple(FoundObject(first=objects[it].first, matches=tuple(objects[it].matches)) for it in order),
        [[position[index] for index in numbers] for numbers in indices],
    )


def _best_score(found: _Object) -> float:
    return max(it.score for it in found.matches if it is not None)


def _matched(objects: Sequence[_Object], run: Sequence[FoundBox]) -> dict[int, tuple[int, float]]:
    """Map each detection of a known object to the index of the object and the overlap."""
    pairs = sorted(
        (
            (overlap_of(known.first.box, found.box), index, number)
            for index, known in enumerate(objects)
            for number, found in enumerate(run)
            if known.first.class_id == found.class_id
        ),
        reverse=True,
    )
    matched: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for overlap, index, number in pairs:
        if overlap >= LEAST_OVERLAP and number not in matched and index not in taken:
            matched[number] = (index, overlap)
            taken.add(index)
    return matched


def overlap_of(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes; 0 if one of them has no area."""
    height = min(one.ymax, other.ymax) - max(one.ymin, other.ymin)
    width = min(one.xmax, other.xmax) - max(one.xmin, other.xmin)
    both = max(height, 0.0) * max(width, 0.0)
    areas = ((it.ymax - it.ymin) * (it.xmax - it.xmin) for it in (one, other))
    union = sum(areas) - both
    return both / union if union > 0 else 0.0
