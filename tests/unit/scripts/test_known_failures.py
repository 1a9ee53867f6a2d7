"""The table of known failures, tested with lines that the real programs printed.

Those of TensorFlow 2, and of packages that are not the pinned ones, nothing in this toolchain can print.
"""

from __future__ import annotations

import pytest

from runner.scripts.known_failures import KNOWN_FAILURES, explain_failure
from tests.locations import DATA

PRINTED = DATA / "failure_lines.tsv"
ROWS = [row.split("\t") for row in PRINTED.read_text().splitlines() if not row.startswith("#")]
LINES = {line: cause for _, cause, line in ROWS if cause != "none"}
INNOCENT = tuple(line for _, cause, line in ROWS if cause == "none")


@pytest.mark.parametrize("line", LINES)
def test_line_is_explained(line: str) -> None:
    failure = explain_failure(("Traceback (most recent call last):", line, "  in <module>"))
    assert failure is not None
    assert LINES[line] in failure.cause
    assert failure.remedy in failure.tip


def test_every_row_of_the_table_has_a_line() -> None:
    assert {explain_failure((line,)) for line in LINES} == set(KNOWN_FAILURES)


def test_what_scripts_always_print_explains_nothing() -> None:
    assert explain_failure(INNOCENT) is None


def test_real_reason_is_found_among_its_consequences() -> None:
    failure = explain_failure((*INNOCENT, "Key Conv/weights_quant/min not found in checkpoint"))
    assert failure is not None
    assert failure.thread is not None
    assert failure.thread in failure.tip
