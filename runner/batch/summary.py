"""The summary of a batch, merged from the outcomes of all its runs and shards: table, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from runner.batch.outcome import Outcome, State, recorded_outcomes
from runner.host.whole_file import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from runner.batch.jobs import BatchJob

COLUMNS = Outcome.__struct_fields__


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The last outcome of each job, in the order of the list."""

    outcomes: tuple[Outcome, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        return {state.value: sum(it.state is state for it in self.outcomes) for state in State}

    @property
    def plain(self) -> dict[str, object]:
        """The summary as JSON data."""
        return {"counts": self.counts, "jobs": [msgspec.to_builtins(it) for it in self.outcomes]}

    @property
    def table(self) -> str:
        """A line for each job, in columns, and a last line with the counts."""
        rows = [(it.name, it.state.value, _figures(it), it.sha256 or it.reason or "") for it in self.outcomes]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True))
            for row in rows
        )
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
        return "\n".join((*(line.rstrip() for line in lines), f"{len(rows)} jobs: {counts}"))


def write_summary(out_dir: Path, jobs: tuple[BatchJob, ...]) -> Summary:
    """Write ``summary.csv`` and ``summary.json`` of all jobs of a list, including those of other shards.

    If another shard records an outcome while they are written, they are written again. So the last of several
    runs to finish writes a complete summary.
    """
    summary = None
    while summary is None or recorded_outcomes(out_dir, jobs) != summary.outcomes:
        summary = Summary(outcomes=recorded_outcomes(out_dir, jobs))
        write_whole(out_dir / "summary.csv", _csv(summary).encode())
        write_whole(out_dir / "summary.json", (json.dumps(summary.plain, indent=2) + "\n").encode())
    return summary


def _figures(outcome: Outcome) -> str:
    return "" if outcome.state is State.NOT_RUN else f"{outcome.wall_s:.1f} s"


def _csv(summary: Summary) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(msgspec.to_builtins(it) for it in summary.outcomes)
    return text.getvalue()
