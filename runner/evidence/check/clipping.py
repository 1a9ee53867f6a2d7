"""Find the inputs of concatenations that a quantized file clips, and how this limits the scores.

With ``change_concat_input_ranges=true``, TOCO gives the output of a concatenation the range of its first
input. Values of the other inputs that are outside that range are clipped to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.evidence.check.compare import CONCATENATION, QUANTIZED_MAX, ends_of
from runner.tflite.key_orders import POST_PROCESS
from runner.tflite.ranges import RANGE_KEEPERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.evidence.check.compare import GraphFacts, Range
    from runner.tflite.model import Graph, Operator, Tensor

    Ends = tuple[float, float]

SIGMOID: Final = "LOGISTIC"


@dataclass(frozen=True, kw_only=True)
class ClippedInput:
    """An input of a concatenation whose range in the graph, ``own``, is wider than in the file, ``kept``.

    ``largest_score`` and ``largest_own_score`` are the highest class scores that this prediction head can
    give, with ``kept`` and with ``own``. They are None if the upper end is not clipped, or if the input is
    not a class prediction before a sigmoid.
    """

    concatenation: str
    input: str
    own: Ends
    kept: Ends
    largest_score: float | None
    largest_own_score: float | None

    @property
    def sentence(self) -> str:
        """One sentence that states what is clipped."""
        own, kept = _text(self.own), _text(self.kept)
        said = f"{self.concatenation} clips {self.input} to {kept}; the input's own range is {own}"
        return f"{said}{_scores([self])}"


@dataclass(frozen=True, kw_only=True)
class OutputPath:
    """The concatenation that an input of the detection operator comes from, perhaps through a sigmoid."""

    concatenation: Tensor
    has_sigmoid: bool

    @property
    def ends(self) -> Ends | None:
        """The lowest and the highest real value that the concatenation can pass to the detection operator."""
        ends = ends_of(self.concatenation)
        if ends is None or not self.has_sigmoid:
            return ends
        return sigmoid(ends[0]), sigmoid(ends[1])


def output_path(file: Graph, tensor: int) -> OutputPath | None:
    """Return the path from a concatenation to a tensor, or None if another operator changes the values."""
    makers = {output: operator for operator in file.operators for output in operator.outputs}
    has_sigmoid = False
    while (maker := makers.get(tensor)) is not None:
        if maker.name == CONCATENATION:
            return OutputPath(concatenation=file.tensors[tensor], has_sigmoid=has_sigmoid)
        if maker.name not in RANGE_KEEPERS | {SIGMOID}:
            return None
        has_sigmoid = has_sigmoid or maker.name == SIGMOID
        tensor = maker.inputs[0]
    return None


def clipped_inputs(file: Graph, graph: GraphFacts, ranges: Mapping[int, Range]) -> Iterator[ClippedInput]:
    """Yield the clipped inputs of all concatenations; ``ranges`` come from the graph, by tensor index."""
    detection = next(operator for operator in file.operators if operator.name == POST_PROCESS)
    classes = output_path(file, detection.inputs[1])
    for operator in file.operators:
        output = file.tensors[operator.outputs[0]]
        # If a FakeQuant node follows a concatenation, the graph itself clips, so this is no effect of TOCO.
        if operator.name == CONCATENATION and output.name not in graph.ranges:
            is_scored = classes is not None and classes.has_sigmoid and classes.concatenation is output
            yield from _clipped_by(operator, file, ranges, is_scored=is_scored)


def _clipped_by(
    operator: Operator, file: Graph, ranges: Mapping[int, Range], *, is_scored: bool
) -> Iterator[ClippedInput]:
    output = file.tensors[operator.outputs[0]]
    kept = ends_of(output)
    if kept is None:
        return
    rounding = (kept[1] - kept[0]) / QUANTIZED_MAX / 2
    for index in operator.inputs:
        own = ranges[index].ends if index in ranges else kept
        is_high_clipped = own[1] > kept[1] + rounding
        has_lower_score = is_scored and is_high_clipped
        if is_high_clipped or own[0] < kept[0] - rounding:
            yield ClippedInput(
                concatenation=output.name,
                input=file.tensors[index].name,
                own=own,
                kept=kept,
                largest_score=sigmoid(kept[1]) if has_lower_score else None,
                largest_own_score=sigmoid(own[1]) if has_lower_score else None,
            )


def summary(clipped: Sequence[ClippedInput]) -> str:
    """Return one sentence that states what is clipped, without the ranges."""
    names = " and ".join(sorted({each.concatenation for each in clipped}))
    count = f"{len(clipped)} input{'' if len(clipped) == 1 else 's'}"
    return f"{count} of {names} clipped{_scores(clipped)}"


def sigmoid(real: float) -> float:
    """Return the score for a class prediction: its sigmoid."""
    return (1 + math.tanh(real / 2)) / 2


def _scores(clipped: Sequence[ClippedInput]) -> str:
    bounds = [it.largest_score for it in clipped if it.largest_score is not None]
    own = [it.largest_own_score for it in clipped if it.largest_own_score is not None]
    return f": scores at most {max(bounds):.3f} instead of {max(own):.3f}" if bounds else ""


def _text(ends: Ends) -> str:
    return f"[{ends[0]:.4g}, {ends[1]:.4g}]"
