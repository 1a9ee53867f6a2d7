"""Format the results of ``inspect``, ``verify`` and ``diff`` as text lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.tflite.diff import Difference, Kind
from runner.tflite.verify import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.tflite.diff import ModelDiff
    from runner.tflite.summary import Summary, TensorSummary
    from runner.tflite.verify import Verification


SHORT_LIST: Final = 5
"""How many differences of each kind are listed without ``--all``."""
SHORT_VALUE: Final = 60
"""How many characters of a value are shown without ``--all``."""


def verification_lines(found: Verification, *, show_all: bool) -> Iterator[str]:
    """Return the lines that report the result of a verification."""
    yield f"{found.source} (sha256 {found.digests.sha256})"
    yield from _verdict_lines(found)
    for problem in found.problems:
        yield f"  {shown(problem.what)}: expected {shown(problem.expected)}, found {shown(problem.found)}"
    if found.diff is not None:
        yield f"compared with {found.compared_with}:"
        yield from (f"  {line}" for line in diff_lines(found.diff, show_all=show_all))
    elif found.verdict is Verdict.OTHER_CONTENT:
        yield "  to list the tensors that differ, run `fetch --published` first or use --against FILE"


def _verdict_lines(found: Verification) -> Iterator[str]:
    if found.verdict is Verdict.SAME_BYTES:
        yield f"is {found.wanted}, byte for byte: all known digests agree"
    elif found.verdict is Verdict.OTHER_ROLL:
        yield f"has the content of {found.wanted} in another key order; --write OUT writes its exact bytes"
    else:
        yield f"is not {found.wanted}: {found.verdict.value}"


def summary_lines(summary: Summary) -> Iterator[str]:
    """Return the lines that describe a file."""
    yield f"quantization  {summary.quantization.value}"
    yield f"converter     {shown(summary.converter)} (schema version {summary.schema_version})"
    version = summary.min_runtime_version
    yield f"runtime       {'not named' if version is None else f'{shown(version)} or newer'}"
    yield f"size          {summary.size_bytes} bytes, {summary.weights_bytes} of them weights"
    for title, ends in (("input", summary.inputs), ("output", summary.outputs)):
        for end in ends:
            yield f"{title:<13} {_end(end)}"
    operators = ", ".join(f"{shown(name)} {count}" for name, count in summary.operators.items())
    yield f"operators     {sum(summary.operators.values())}: {operators}"
    yield f"tensors       {summary.tensor_count}"
    yield f"detections    {shown(summary.post_processing_note)}"
    for key, value in sorted((summary.post_processing or {}).items()):
        yield f"  {shown(key)} = {shown(number(value))}"


def diff_lines(diff: ModelDiff, *, show_all: bool) -> Iterator[str]:
    """Return the lines that list the differences, grouped by kind."""
    if diff.has_same_bytes:
        yield "the same bytes"
    elif diff.means_the_same:
        yield "the same content; the bytes differ only in layout: the order of keys, the numbering"
    else:
        count = len(diff.differences)
        yield "1 difference" if count == 1 else f"{count} differences"
    for kind in Kind:
        of_kind = [difference for difference in diff.differences if difference.kind is kind]
        if of_kind:
            yield f"{kind.value} ({len(of_kind)})"
        for difference in of_kind if show_all else of_kind[:SHORT_LIST]:
            yield f"  {_difference(difference, show_all=show_all)}"
        if len(of_kind) > SHORT_LIST and not show_all:
            yield f"  ... and {len(of_kind) - SHORT_LIST} more (--all lists them)"


def shown(text: object) -> str:
    """Escape unprintable characters, so that an untrusted file cannot send control codes to the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text)
    )


def number(value: object) -> str:
    """Format a number; floats with the 9 digits that identify a float32."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _end(end: TensorSummary) -> str:
    shape = list(end.shape) if end.shape else "shape set at run time"
    text = f"{shown(end.name)} {end.dtype} {shape}"
    if not end.is_quantized:
        return text
    return f"{text}, scale {number(end.scales[0])}, zero point {end.zero_points[0]}"


def _difference(difference: Difference, *, show_all: bool) -> str:
    where = shown(difference.where)
    if difference.changed is not None:
        return (
            f"{where}: {difference.changed} of {difference.total} values, "
            f"the largest difference {number(difference.largest)}"
        )
    left, right = (_value(value, show_all=show_all) for value in (difference.left, difference.right))
    return f"{where}: {left} -> {right}"


def _value(value: object, *, show_all: bool) -> str:
    if value is None:
        return "(not there)"
    if isinstance(value, tuple):
        text = number(value[0]) if len(value) == 1 else f"({', '.join(number(item) for item in value)})"
    else:
        text = number(value)
    text = shown(text)
    return text if show_all or len(text) <= SHORT_VALUE else f"{text[: SHORT_VALUE - 3]}..."
