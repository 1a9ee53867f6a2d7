"""Run a detector, which is a ``.tflite`` that ends with the detection operator, on images."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runner.errors import UsageError
from runner.evaluation.resize import resize_bilinear
from runner.evidence.check.compare import ends_of, quantization_of
from runner.litert.worker import LiteRtWorker, litert_worker
from runner.tflite.key_orders import POST_PROCESS, read_post_process_options
from runner.tflite.model import read_model_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from runner.tflite.model import Graph, Tensor

HALF_RANGE: Final[np.float32] = np.float32(127.5)
"""Pixels become (pixel - 127.5) / 127.5, as in the detection API's SSD feature extractors."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """The edges of a box; the origin is the upper left corner of the image."""

    ymin: float
    xmin: float
    ymax: float
    xmax: float

    def scaled(self, height: float, width: float) -> Box:
        """Return this box with its edges multiplied by a height and a width."""
        return Box(
            ymin=self.ymin * height, xmin=self.xmin * width, ymax=self.ymax * height, xmax=self.xmax * width
        )


@dataclass(frozen=True, kw_only=True)
class FoundBox:
    """A detection. Classes start at 1. ``box`` is relative to the image and may extend beyond it."""

    class_id: int
    score: float
    box: Box


@dataclass(frozen=True, kw_only=True)
class ImageRun:
    """The detections in an image, best score first, and the duration of ``invoke``."""

    boxes: tuple[FoundBox, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The input of a detector: one RGB image, as float32 or uint8."""

    height: int
    width: int
    is_float: bool

    @property
    def preprocessing(self) -> str:
        """One line that describes how an image is preprocessed."""
        size = f"resized to {self.width} x {self.height} (bilinear, as TensorFlow 1; aspect ratio not kept)"
        values = "(pixel - 127.5) / 127.5, float32" if self.is_float else "pixels, truncated to uint8"
        return f"RGB, {size}, {values}"

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the input tensor for an image, (height, width, 3)."""
        resized = resize_bilinear(pixels, self.height, self.width)
        if self.is_float:
            return np.expand_dims((resized - HALF_RANGE) / HALF_RANGE, 0)
        # MLPerf Mobile's app and TensorFlow's evaluation stages truncate too.
        return np.expand_dims(resized.astype(np.uint8), 0)


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A ``.tflite`` file that is a detector, its input and its number of classes."""

    path: Path
    input: ImageInput
    class_count: int

    @contextlib.contextmanager
    def running(self, *, threads: int, xnnpack: bool = True, timeout_s: float) -> Iterator[RunningDetector]:
        """Load the detector in LiteRT; ``timeout_s`` is per image.

        Raises:
            IntegrityError: LiteRT rejects the file, crashes on it, or does not load it in time.
            ScriptError: LiteRT could not be run for another reason.
        """
        with litert_worker(self.path, threads=threads, xnnpack=xnnpack, timeout_s=timeout_s) as worker:
            yield RunningDetector(input=self.input, worker=worker)


@dataclass(frozen=True, kw_only=True)
class RunningDetector:
    """A detector that LiteRT has loaded."""

    input: ImageInput
    worker: LiteRtWorker

    @property
    def load_s(self) -> float:
        """How long LiteRT took to load the file."""
        return self.worker.load_s

    def detect(self, pixels: NDArray[np.uint8]) -> ImageRun:
        """Run the detector on an image, (height, width, 3).

        Raises:
            IntegrityError: LiteRT crashes on the file, or does not finish in time.
        """
        run = self.worker.run(self.input.feed(pixels))
        return ImageRun(boxes=found_boxes(run.outputs), seconds=run.seconds)


def found_boxes(outputs: tuple[NDArray[Any], ...]) -> tuple[FoundBox, ...]:
    """Return the detections in the four outputs of the detection operator."""
    boxes, classes, scores, count = outputs
    rows = zip(boxes[0].tolist(), classes[0].tolist(), scores[0].tolist(), strict=True)
    return tuple(
        FoundBox(class_id=int(index) + 1, score=score, box=Box(ymin=top, xmin=left, ymax=bottom, xmax=right))
        for (top, left, bottom, right), index, score in list(rows)[: int(count[0])]
    )


def open_detector(path: Path) -> Detector:
    """Read a file and check that it is a detector whose input is an image.

    Raises:
        UsageError: there is no such file, or it is not a detector whose input is an image.
        IntegrityError: this is not a ``.tflite`` file, it is damaged, or its detection operator has options
            that TOCO did not write.
    """
    model = read_model_file(path)
    options = read_post_process_options(model)
    if not model.graphs:
        raise UsageError(f"{path} has no graph")
    graph = model.graphs[0]
    last = [operator for operator in graph.operators if operator.name == POST_PROCESS]
    if options is None or not last or last[0].outputs != graph.outputs or len(graph.outputs) != 4:
        outputs = _described(graph, graph.outputs)
        raise UsageError(
            f"{path} does not end in the operator {POST_PROCESS}; its outputs: {outputs}",
            tip="export the SSD with this operator, as `convert` does",
        )
    if "num_classes" not in options.values:
        raise UsageError(f"{path}: the options of {POST_PROCESS} do not state num_classes")
    inputs = [graph.tensors[index] for index in graph.inputs]
    return Detector(
        path=path,
        input=_image_input(path, inputs, _described(graph, graph.inputs)),
        class_count=int(options.values["num_classes"]),
    )


def _image_input(path: Path, inputs: list[Tensor], described: str) -> ImageInput:
    first = inputs[0] if len(inputs) == 1 else None
    shape = first.shape if first is not None else ()
    is_image = len(shape) == 4 and shape[0] == 1 and shape[3] == 3 and min(shape) > 0
    if first is None or not is_image or first.dtype not in {"float32", "uint8"}:
        raise UsageError(f"{path} does not take one RGB image as float32 or uint8; its input: {described}")
    if first.dtype == "uint8" and not takes_pixels(first):
        raise UsageError(
            f"the input of {path} is not quantized like pixels: {described}",
            tip="convert it with --mean-value 128 --std-value 128: scale 1/128, zero point 128",
        )
    return ImageInput(height=shape[1], width=shape[2], is_float=first.dtype == "float32")


def takes_pixels(tensor: Tensor) -> bool:
    """Return whether 0 and 255 in a uint8 tensor represent -1 and 1, to within one step."""
    parameters, ends = quantization_of(tensor), ends_of(tensor)
    if parameters is None or ends is None:
        return False
    (scale, _), (low, high) = parameters, ends
    return abs(low + 1) <= scale and abs(high - 1) <= scale


def _described(graph: Graph, indices: tuple[int, ...]) -> str:
    return ", ".join(_description(graph.tensors[index]) for index in indices if index >= 0) or "none"


def _description(tensor: Tensor) -> str:
    quantization = tensor.quantization
    scales = quantization.scales if quantization is not None else ()
    steps = (
        f", scale {scales[0]:g}, zero point {quantization.zero_points[0]}" if quantization and scales else ""
    )
    return f"{tensor.name} ({tensor.dtype} {list(tensor.shape)}{steps})"
