"""What the commands about finished files print: lines for a reader, plain data for a program."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.tflite.verify import Verdict
from runner.tflite.wording import diff_lines, plain, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.tflite.diff import ModelDiff
    from runner.tflite.rewrite import Normalized
    from runner.tflite.summary import Summary
    from runner.tflite.verify import Verification


def verification_lines(found: Verification, *, show_all: bool) -> Iterator[str]:
    """Say what a file is, and what it is not."""
    yield f"{found.source} (sha256 {found.digests.sha256})"
    yield from _verdict_lines(found)
    for problem in found.problems:
        yield f"  {shown(problem.what)}: expected {shown(problem.expected)}, found {shown(problem.found)}"
    if found.diff is not None:
        yield f"compared with {found.compared_with}:"
        yield from (f"  {line}" for line in diff_lines(found.diff, show_all=show_all))
    elif found.verdict is Verdict.OTHER_CONTENT:
        yield "  `fetch --published`, or --against FILE, will tell which tensors differ"


def _verdict_lines(found: Verification) -> Iterator[str]:
    if found.verdict is Verdict.SAME_BYTES:
        yield f"is {found.wanted}, byte for byte: its MD5 and git blob id agree"
    elif found.verdict is Verdict.OTHER_ROLL:
        yield f"is {found.wanted} in another roll of TOCO's dice; --write OUT gives those bytes"
    else:
        yield f"is not {found.wanted}: {found.verdict.value}"


def verification_json(found: Verification) -> object:
    """Say the same for a program."""
    entry = plain(replace(found, wanted_content=None))
    assert isinstance(entry, dict)
    del entry["wanted_content"]
    return entry


def diff_json(diff: ModelDiff) -> object:
    """Give every difference, with whether there is any."""
    return {"means_the_same": diff.means_the_same, "differences": plain(diff.differences)}


def summary_json(summary: Summary) -> object:
    """Give a summary as it is."""
    return plain(summary)


def normalized_json(normalized: Normalized) -> object:
    """Say which file was written, without its bytes."""
    settled = normalized.settled
    return {
        "path": str(normalized.target),
        "note": normalized.note,
        "order": plain(settled.order),
        "order_count": settled.order_count,
        **{key: plain(value) for key, value in vars(settled.digests).items()},
    }
