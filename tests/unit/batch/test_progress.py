"""In a log, progress is an occasional line; failures are printed immediately."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runner.batch.outcome import Outcome, State
from runner.batch.progress import job_progress

if TYPE_CHECKING:
    import pytest

BAD = Outcome(name="b", state=State.FAILED, exit_code=5, reason="it broke")


def good(name: str) -> Outcome:
    return Outcome(name=name, state=State.CONVERTED)


def test_log_has_failures_and_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with job_progress(3) as report:
        for outcome in (good("a"), BAD, good("c")):
            report(outcome)
    assert capsys.readouterr().err.splitlines() == [
        "failed: b: it broke",
        "   3 of 3 jobs, 1 failed",
    ]


def test_line_has_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 0.0, 60.0, 60.0, 60.0, 61.0, 61.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with job_progress(6) as report:
        report(good("a"))
    assert capsys.readouterr().err == "   1 of 6 jobs, 1.0 a minute, 5 min left\n"
