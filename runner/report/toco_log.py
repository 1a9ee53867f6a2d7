"""Read TOCO's log, and explain its warnings about the ranges of arrays in plain words."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.report.data import TocoWarning

if TYPE_CHECKING:
    from collections.abc import Iterable

ANCHORS: Final = "anchors"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of line that TOCO writes about an array, and what it means for all such arrays."""

    pattern: re.Pattern[str]
    text: str
    is_bad: bool = True


# The patterns match messages in TensorFlow 1.15's graph_transformations/{hardcode_min_max,quantize}.cc,
# tooling_util.cc and propagate_default_min_max.cc.
_ANCHORS: Final = _Kind(
    pattern=re.compile(r"Constant array (anchors) lacks MinMax information"),
    text="The anchors have no range from training, so TOCO took the smallest and largest of their values. "
    "This does no harm: anchors are computed, not trained.",
    is_bad=False,
)
KINDS: Final = (
    _ANCHORS,
    _Kind(
        pattern=re.compile(r"Constant array (\S+) lacks MinMax information"),
        text="These weights have no range from training, so TOCO took the smallest and largest of their "
        "values. The model was trained with other ranges or without quantization, so accuracy suffers.",
    ),
    _Kind(
        pattern=re.compile(r"Tweaking the MinMax of array (\S+), which is an input to"),
        text="TOCO gave these inputs of concatenations the range of the output, so that the operator only "
        "copies bytes. Values outside of that range are cut off: see the clipped concatenations above.",
        is_bad=False,
    ),
    _Kind(
        pattern=re.compile(r"Tweaking the MinMax of the output array of \{?(.+?)\}?, because"),
        text="TOCO replaced the ranges of these concatenations by the ranges of their inputs.",
    ),
    _Kind(
        pattern=re.compile(r"Adding default minmax \S+ to array (\S+) when"),
        text="These arrays have no range, so they got the range of --default_ranges_min and "
        "--default_ranges_max. Such a file is only good for timing; its detections are meaningless.",
    ),
    _Kind(
        pattern=re.compile(r"Array (\S+?),? (?:does not have MinMax information|.*is lacking min/max data)"),
        text="TOCO needs a range for these arrays, but the graph has none, because it was not trained for "
        "quantization.",
    ),
)


def read_warnings(lines: Iterable[str]) -> tuple[TocoWarning, ...]:
    """Return the warnings about ranges in a log, one entry for each kind of warning."""
    found: dict[_Kind, dict[str, None]] = defaultdict(dict)
    for line in lines:
        for kind in KINDS:
            match = kind.pattern.search(line)
            if match is not None:
                found[kind][match[1]] = None
                break
    return tuple(
        TocoWarning(text=kind.text, is_bad=kind.is_bad, arrays=tuple(found[kind]))
        for kind in KINDS
        if kind in found
    )
