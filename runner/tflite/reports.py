"""Format the results of ``inspect``, ``verify`` and ``diff`` as text lines."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from runner.tflite.diff import NEIGHBOURS, Difference, Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.tflite.diff import ModelDiff, Plain
    from runner.tflite.ranges import SharedRange
    from runner.tflite.summary import Summary
    from runner.tflite.verify import Verification


SHORT_LIST: Final = 5
"""How many differences of each kind are listed without ``--all``."""
SHORT_VALUE: Final = 60
"""Without ``--all``, values with more characters are shown only around the first difference."""


def verification_lines(found: Verification, *, show_all: bool) -> Iterator[str]:
    """Yield the lines that report the result of a verification."""
    yield f"{found.source} (sha256 {found.digests.sha256})"
    yield from _verdict_lines(found)
    for problem in found.problems:
        yield f"  {shown(problem.what)}: expected {shown(problem.expected)}, found {shown(problem.found)}"
    if found.diff is not None:
        yield from _difference_lines(found.diff, show_all=show_all)
    elif not found.verdict.is_same_content:
        yield "  to list the tensors that differ, run `fetch --published` first or use --against FILE"


def _verdict_lines(found: Verification) -> Iterator[str]:
    if found.verdict is Verdict.SAME_BYTES:
        yield f"is {found.wanted}, byte for byte: all known digests agree"
    elif found.verdict.is_same_content:
        writable = "" if found.wanted_content is None else "; --write OUT writes its exact bytes"
        yield f"compared with {found.wanted}: {found.verdict.value}{writable}"
    else:
        yield f"is not {found.wanted}: {found.verdict.value}"


def summary_lines(summary: Summary) -> Iterator[str]:
    """Yield the lines that describe a file."""
    yield f"quantization  {summary.quantization.value}"
    if summary.placeholder is not None:
        yield f"ranges        {_shared_range(summary.placeholder)}"
    yield f"converter     {shown(summary.converter)} (schema version {summary.schema_version})"
    version = summary.min_runtime_version
    yield f"runtime       {'not named' if version is None else f'{shown(version)} or newer'}"
    yield f"size          {summary.size_bytes} bytes, {summary.weights_bytes} of them weights"
    for title, ends in (("input", summary.inputs), ("output", summary.outputs)):
        for end in ends:
            yield f"{title:<13} {shown(end)}"
    operators = ", ".join(f"{shown(name)} {count}" for name, count in summary.operators.items())
    yield f"operators     {sum(summary.operators.values())}: {operators}"
    yield f"tensors       {summary.tensor_count}"
    yield f"detections    {shown(summary.post_processing_note)}"
    for key, value in sorted((summary.post_processing or {}).items()):
        yield f"  {shown(key)} = {shown(number(value))}"


def diff_lines(diff: ModelDiff, *, show_all: bool) -> Iterator[str]:
    """Yield the lines that report the result of a comparison: the verdict, then the differences."""
    yield diff.verdict.value
    yield from _difference_lines(diff, show_all=show_all)


def _difference_lines(diff: ModelDiff, *, show_all: bool) -> Iterator[str]:
    """List the differences, grouped by kind."""
    count = len(diff.differences)
    if count:
        title = "1 difference" if count == 1 else f"{count} differences"
        yield f"{title}, {shown(diff.left)} -> {shown(diff.right)}:"
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
    """Format a number; floats get the 9 digits that identify a float32."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _shared_range(shared: SharedRange) -> str:
    return (
        f"{shared.count} of {shared.total} activations have scale {number(shared.scale)}, "
        f"zero point {shared.zero_point}"
    )


def _difference(difference: Difference, *, show_all: bool) -> str:
    left, right, where = difference.left, difference.right, shown(difference.where)
    if difference.changed is not None:
        largest = (
            "" if difference.largest is None else f", the largest difference {number(difference.largest)}"
        )
        return f"{where}: {difference.changed} of {difference.total} values{largest}{_first(difference)}"
    if not show_all and _is_long(left, right):
        if isinstance(left, tuple) and isinstance(right, tuple):
            return f"{where}: {_excerpts(left, right)}"
        if isinstance(left, str) and isinstance(right, str):
            return f"{where}: {_text_excerpts(left, right)}"
    return f"{where}: {_whole(left, show_all=show_all)} -> {_whole(right, show_all=show_all)}"


def _whole(value: Plain, *, show_all: bool) -> str:
    text = _value(value)
    return text if show_all or len(text) <= SHORT_VALUE else f"{text[: SHORT_VALUE - 3]}..."


def _is_long(*values: Plain) -> bool:
    return any(len(_value(value)) > SHORT_VALUE for value in values)


def _first(difference: Difference) -> str:
    """Format the first position where values differ, if it is known; a diff of frozen graphs lacks it."""
    if difference.first is None or difference.total is None:
        return ""
    start = max(0, difference.first - NEIGHBOURS)
    sides = (
        _excerpt(side, start, difference.total)
        for side in (difference.left, difference.right)
        if isinstance(side, tuple)
    )
    return f", the first at {difference.first}: {' -> '.join(sides)}"


def _excerpts(left: tuple[Plain, ...], right: tuple[Plain, ...]) -> str:
    """Show two long lists around the first position where they differ."""
    changed = _changed(left, right)
    around = slice(max(0, changed[0] - NEIGHBOURS), changed[0] + NEIGHBOURS + 1)
    # Names are long, and one is enough to find the place.
    if any(isinstance(item, str) for item in (*left, *right)):
        around = slice(changed[0], changed[0] + 1)
    sides = " -> ".join(_excerpt(side[around], around.start, len(side)) for side in (left, right))
    return f"{_counted(changed, left, right, 'values')}, the first at {changed[0]}: {sides}"


def _text_excerpts(left: str, right: str) -> str:
    """Show two long texts around the first position where they differ."""
    changed = _changed(left, right)
    around = slice(max(0, changed[0] - SHORT_VALUE // 4), changed[0] + SHORT_VALUE // 2)
    sides = []
    for side in (left, right):
        before, after = "..." if around.start else "", "..." if around.stop < len(side) else ""
        sides.append(f"{before}{shown(side[around])}{after}")
    return f"{_counted(changed, left, right, 'characters')}, the first at {changed[0]}: {' -> '.join(sides)}"


def _excerpt(items: tuple[Plain, ...], start: int, length: int) -> str:
    """Format a part of a list of ``length`` items, beginning at position ``start``."""
    before, after = (["..."] if start else []), (["..."] if start + len(items) < length else [])
    return f"({', '.join([*before, *map(_value, items), *after])})"


def _changed(left: Sequence[object], right: Sequence[object]) -> list[int]:
    """Return the positions where two sequences differ, including those that only the longer one has."""
    # Compare the repr, as `diff_models` does.
    pairs = zip_longest(map(repr, left), map(repr, right))
    return [position for position, (one, other) in enumerate(pairs) if one != other]


def _counted(changed: Sequence[int], left: Sequence[object], right: Sequence[object], unit: str) -> str:
    if len(left) == len(right):
        return f"{len(changed)} of {len(left)} {unit} differ"
    return f"{len(left)} -> {len(right)} {unit}, {len(changed)} differ"


def _value(value: Plain) -> str:
    if value is None:
        return "(missing)"
    if isinstance(value, tuple):
        return _value(value[0]) if len(value) == 1 else f"({', '.join(map(_value, value))})"
    return shown(number(value))
