"""Format the result of ``match`` as text lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.proof.dialects import CONCAT_FLAG
from runner.recipes.recipe import Dialect
from runner.tflite.key_orders import PUBLIC_TOCO
from runner.tflite.reports import diff_lines

if TYPE_CHECKING:
    from runner.proof.match import Attempt, MatchReport


def report_lines(report: MatchReport, *, show_all: bool) -> list[str]:
    """Return the lines that report which TOCO made the file, or which one comes closest."""
    lines = [f"{report.file} (sha256 {report.sha256})"]
    for attempt in report.matches:
        lines += ["", f"was reproduced by {_named(attempt)}{_order_text(report)}", *_command_lines(attempt)]
    if not report.matches:
        lines += ["", *_nearest_lines(report.nearest, show_all=show_all)]
    for attempt in report.attempts:
        lines += [] if attempt.failure is None else [f"{_named(attempt)} failed: {attempt.failure.message}"]
    if report.not_tried:
        lines += ["", f"not tried, because not built: {', '.join(report.not_tried)} (--all builds them)"]
    return lines


def _named(attempt: Attempt) -> str:
    others = f" (and {', '.join(attempt.same_bytes_as)})" if attempt.same_bytes_as else ""
    flag = f"{CONCAT_FLAG} {str(attempt.dialect.changes_concat_input_ranges).lower()}"
    return (
        f"TOCO of TensorFlow {attempt.tensorflow}{others}, toolchain {attempt.toolchain}, called as "
        f"{'toco' if attempt.dialect is Dialect.NATIVE else 'tflite_convert'} ({flag})"
    )


def _order_text(report: MatchReport) -> str:
    facts = report.key_order
    if facts is None:
        return ", byte for byte"
    if facts.is_possible:
        return f", byte for byte, in one of the {facts.order_count} key orders that this TOCO can write"
    return (
        f" except for the order of the option keys, which is none of the {facts.order_count} that "
        f"{PUBLIC_TOCO} can write; after the keys are put in the order of the file, the bytes are equal"
    )


def _command_lines(attempt: Attempt) -> list[str]:
    shell = attempt.native if attempt.dialect is Dialect.NATIVE else attempt.tflite_convert
    lines = [f"  $ {command}" for command in attempt.commands]
    return lines if shell is None else [*lines, f"  or in `shell --toolchain {attempt.toolchain}`: {shell}"]


def _nearest_lines(attempt: Attempt, *, show_all: bool) -> list[str]:
    differences = () if attempt.diff is None else diff_lines(attempt.diff, show_all=show_all)
    return [f"none of the tried TOCOs produces this file; the closest: {_named(attempt)}", *differences]
