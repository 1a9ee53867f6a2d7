"""Decide whether a converted file has the same content as a given file, and describe the differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.tflite.diff import METADATA_KINDS, Kind, Verdict
from runner.tflite.key_orders import POST_PROCESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.tflite.diff import Difference, ModelDiff
    from runner.tflite.model import Model

LATER_OPTIONS: Final = frozenset({"use_regular_nms", "detections_per_class"})
"""Options that exporters have written since 2018. Older files lack them; the operator uses its defaults."""
SAME_CONTENT_KINDS: Final = METADATA_KINDS | {Kind.RANGE}
"""Kinds of differences that do not change what a file computes; it computes without the recorded ranges."""
SHOWN: Final = 10


def is_same_content(diff: ModelDiff) -> bool:
    """Return whether both files have the same tensors, scales, zero points and options.

    The right file is the given one; it may lack options that later exporters write.
    """
    return {it.kind for it in diff.differences if not _is_later_option(it)} <= SAME_CONTENT_KINDS


def _is_later_option(difference: Difference) -> bool:
    name = difference.where.removeprefix(f"{POST_PROCESS}.")
    return difference.kind is Kind.OPTION and name in LATER_OPTIONS and difference.right is None


def reasons(diff: ModelDiff, given: Model) -> Iterator[str]:
    """Yield the differences as sentences; ``given`` is the right file, and the left one was made here."""
    if diff.verdict is Verdict.OTHER_LAYOUT:
        yield "the content is the same, but its layout in the file differs"
    yield from _unused_integer(diff, given)
    for it in diff.differences[:SHOWN]:
        if it.changed is not None:
            largest = "" if it.largest is None else f", by at most {it.largest:g}"
            yield f"{it.kind.value} of {it.where}: {it.changed} of {it.total} values differ{largest}"
        elif _is_later_option(it):
            yield f"{it.kind.value} {it.where}: the file lacks it, as files of exporters before 2018 do"
        else:
            yield f"{it.kind.value} {it.where}: {it.left} made here, {it.right} in the file"
    if len(diff.differences) > SHOWN:
        yield f"and {len(diff.differences) - SHOWN} more differences"


def _unused_integer(diff: ModelDiff, given: Model) -> Iterator[str]:
    """Explain weights that use the integer 0, which the graphs of TensorFlow 1.15 leave unused."""
    changed = {it.where for it in diff.differences if it.kind is Kind.WEIGHTS and it.largest == 1}
    tensors = (it for graph in given.graphs for it in graph.tensors if it.name in changed)
    names = [it.name for it in tensors if it.dtype == "uint8" and 0 in it.data]
    if names:
        yield (
            f"the weights of {len(names)} convolutions use 256 integers; a graph of TensorFlow 1.15 uses "
            "only 255, so the file comes from an older TensorFlow"
        )
