"""The data that a page shows, for the template and for ``--json``.

Fields with ``repr=False`` are left out of the JSON. They contain images, which only the page needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from runner.evaluation.detector import Box
    from runner.evaluation.evaluate import Evaluation
    from runner.evidence.check.run import CheckReport
    from runner.host.digests import FileDigests
    from runner.proof.explanation import Explanation
    from runner.tflite.summary import Summary

Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a question about a file; ``is_good`` is None if the answer is neutral."""

    is_good: bool | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Warn:
    """Something that a reader should look at, and the section of the page that shows it."""

    text: str
    section: str


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A detection; ``box`` is relative to the image. ``row`` is its row in the comparison, from 1."""

    row: int
    label: str
    class_id: int
    score: float
    box: Box


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """The detections of a file, or of its frozen graph, in an image.

    ``image`` is the image as the file or graph sees it, in WebP format.
    """

    title: str
    file: str
    is_graph: bool
    detections: tuple[Detection, ...]
    hidden: int
    """How many detections are not shown, because their score is too low."""
    image: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Match:
    """An object as one run found it.

    ``overlap`` is the IoU with the box in the first run that found the object. In that run, it is None.
    """

    score: float
    overlap: float | None


@dataclass(frozen=True, kw_only=True)
class MatchRow:
    """The same object in all runs: one entry per run, None where it was not found.

    ``pixels`` is the box in the first run that found the object, in pixels of the original image.
    """

    row: int
    label: str
    class_id: int
    pixels: Box
    matches: tuple[Match | None, ...]


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """The inputs of the detection operator for one anchor: in the graph, and in the file, in real values."""

    anchor: int
    label: str
    graph_score: float
    file_score: float
    graph_box: tuple[float, ...]
    file_box: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class RawRows:
    """The anchors with the best scores, and the largest differences between graph and file at any anchor."""

    file: str
    anchors: int
    largest_score_difference: float
    largest_box_difference: float
    rows: tuple[RawRow, ...]


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """An image and the detections in it; ``contents`` describes what a generated image shows."""

    name: str
    width: int
    height: int
    contents: str | None
    runs: tuple[ShownRun, ...]
    rows: tuple[MatchRow, ...]
    raw: tuple[RawRows, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """How far a tensor of the file is from the same tensor of the frozen graph, on the same images.

    ``rms`` and ``largest`` are in steps of its scale for a quantized tensor, else relative to its largest
    value in the graph. ``inputs_rms`` is the largest ``rms`` among the inputs of its operator. If it is small
    and ``rms`` is not, this operator loses the precision.
    """

    position: int
    name: str
    operator: str
    rms: float
    largest: float
    inputs_rms: float | None


@dataclass(frozen=True, kw_only=True)
class ActivationRange:
    """The range of an activation in the checkpoint, and in the file; ``lost`` is the fraction cut off."""

    name: str
    operator: str
    checkpoint: Ends
    file: Ends
    lost: float
    is_different: bool


@dataclass(frozen=True, kw_only=True)
class TocoWarning:
    """A warning of TOCO about ranges, in plain words, with the names of the arrays."""

    text: str
    is_bad: bool
    arrays: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PixelRange:
    """The real values that a quantized input gives the pixels 0 and 255; a detector expects -1 and 1."""

    low: float
    high: float
    is_expected: bool


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Where a file loses precision, compared with its frozen graph."""

    unit: str
    layer_images: int
    layers: tuple[Layer, ...]
    ranges: tuple[ActivationRange, ...]
    toco: tuple[TocoWarning, ...]
    has_toco_log: bool


@dataclass(frozen=True, kw_only=True)
class TensorRow:
    """A tensor of the file; ``role`` is input, output, constant or activation."""

    index: int
    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    scale: float | None
    zero_point: int | None
    ends: Ends | None


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """Everything that the page shows about one file. ``name`` is unique on the page."""

    name: str
    path: Path
    is_quantized: bool
    what: str
    published: Answer
    checked: Answer
    warnings: tuple[Warn, ...]
    has_random_weights: bool
    pixels: PixelRange | None
    check: CheckReport | None
    precision: Precision | None
    evaluation: Evaluation | None
    summary: Summary
    tensors: tuple[TensorRow, ...]
    digests: FileDigests
    explanation: Explanation


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole page."""

    title: str
    program: str
    files: tuple[FileReport, ...]
    images: tuple[ShownImage, ...]
    are_images_generated: bool
    preprocessing: str
    labels: str
    score_threshold: float
    evaluated_on: str | None
