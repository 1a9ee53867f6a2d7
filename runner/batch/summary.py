"""Summarize a batch from the outcomes of all its runs and shards, as a table, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from runner.batch.outcome import Outcome, State, recorded_outcomes
from runner.host.whole_file import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from runner.batch.jobs import BatchJob

COLUMNS = Outcome.__struct_fields__
MEASURED: Final = ("coco_ap", "coco_ap_50", "mlperf_map", "median_ms")
"""The columns that exist only if the results were evaluated."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The last outcome of each job, in the order of the list."""

    outcomes: tuple[Outcome, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of jobs in each state."""
        return {state.value: sum(it.state is state for it in self.outcomes) for state in State}

    @property
    def plain(self) -> dict[str, object]:
        """The summary as JSON data."""
        return {"counts": self.counts, "jobs": self.plain_jobs}

    @property
    def plain_jobs(self) -> list[dict[str, object]]:
        """The outcomes as JSON data, without accuracy and latency if no job has them."""
        rows: list[dict[str, object]] = [msgspec.to_builtins(it) for it in self.outcomes]
        if all(it.coco_ap is None for it in self.outcomes):
            return [{name: row[name] for name in row if name not in MEASURED} for row in rows]
        return rows

    @property
    def table(self) -> str:
        """The summary as text: a line for each job, in columns, and a last line with the counts."""
        rows = [(it.name, it.state.value, _figures(it), it.sha256 or it.reason or "") for it in self.outcomes]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True))
            for row in rows
        )
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
        return "\n".join((*(line.rstrip() for line in lines), f"{len(rows)} jobs: {counts}"))


def write_summary(out_dir: Path, jobs: tuple[BatchJob, ...]) -> Summary:
    """Write ``summary.csv`` and ``summary.json`` for all jobs of a list, including those of other shards.

    If another shard records an outcome in the meantime, both files are written again. So whichever run
    finishes last writes a complete summary.
    """
    summary = None
    while summary is None or recorded_outcomes(out_dir, jobs) != summary.outcomes:
        summary = Summary(outcomes=recorded_outcomes(out_dir, jobs))
        write_whole(out_dir / "summary.csv", _csv(summary).encode())
        write_whole(out_dir / "summary.json", (json.dumps(summary.plain, indent=2) + "\n").encode())
    return summary


def _figures(outcome: Outcome) -> str:
    if outcome.state is State.NOT_RUN:
        return ""
    accuracy = ""
    if outcome.coco_ap is not None:
        accuracy = (
            f"  COCO AP {outcome.coco_ap:.4f}  MLPerf mAP {outcome.mlperf_map:.4f}  "
            f"median {outcome.median_ms:.2f} ms"
        )
    return f"{outcome.wall_s:.1f} s{accuracy}"


def _csv(summary: Summary) -> str:
    text = io.StringIO()
    rows = summary.plain_jobs
    writer = csv.DictWriter(text, rows[0] if rows else COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
