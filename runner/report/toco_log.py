"""Read TOCO's log: what it warns of about the ranges of arrays, in plain words."""

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
    """A line that TOCO writes, for one array, and what it means; ``{many}`` is the number of arrays."""

    pattern: re.Pattern[str]
    text: str
    is_bad: bool = True


# The sentences of TensorFlow 1.15's graph_transformations/{hardcode_min_max,quantize}.cc, tooling_util.cc and
# propagate_default_min_max.cc.
_ANCHORS: Final = _Kind(
    pattern=re.compile(r"Constant array (anchors) lacks MinMax information"),
    text="The anchors have no range from training, so TOCO took the smallest and largest of their values. "
    "That does no harm: anchors are computed, not trained.",
    is_bad=False,
)
KINDS: Final = (
    _ANCHORS,
    _Kind(
        pattern=re.compile(r"Constant array (\S+) lacks MinMax information"),
        text="These weights have no range from training, so TOCO took the smallest and largest of their "
        "values. The training used other ranges, or was not for quantization at all: accuracy suffers.",
    ),
    _Kind(
        pattern=re.compile(r"Tweaking the MinMax of array (\S+), which is an input to"),
        text="These inputs of concatenations got the range of the concatenation, so that it only has to copy "
        "bytes. What lies outside of that range is cut off: see the clipped concatenations above.",
        is_bad=False,
    ),
    _Kind(
        pattern=re.compile(r"Tweaking the MinMax of the output array of \{?(.+?)\}?, because"),
        text="These concatenations lost the range that training gave them, and got that of their inputs.",
    ),
    _Kind(
        pattern=re.compile(r"Adding default minmax \S+ to array (\S+) when"),
        text="These arrays have no range and got that of --default_ranges_min and --default_ranges_max. Such "
        "a file is good for timing only; what it detects means nothing.",
    ),
    _Kind(
        pattern=re.compile(r"Array (\S+?),? (?:does not have MinMax information|.*is lacking min/max data)"),
        text="TOCO needs a range for these arrays, and the graph, not trained for quantization, has none.",
    ),
)


def read_warnings(lines: Iterable[str]) -> tuple[TocoWarning, ...]:
    """Return what a log says about ranges, one entry per kind of warning."""
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
