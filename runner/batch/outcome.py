"""The outcome of a job: plain data, recorded in the output directory so that shards can be summarized."""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from runner.batch.results import BATCH_DIR
from runner.host.disk import translate_disk_full
from runner.host.output_dir import OTHER_OUT
from runner.host.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.batch.jobs import BatchJob

OUTCOMES: Final = "outcomes"


class State(str, Enum):
    """How a job ended."""

    CONVERTED = "converted"
    KEPT = "was there"
    FAILED = "failed"
    NOT_RUN = "not run"

    @property
    def is_good(self) -> bool:
        """Whether the job has a result."""
        return self in (State.CONVERTED, State.KEPT)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended.

    ``exit_code`` is that of the job's error, or 0. ``host`` is the machine that ran the job. For graph
    templates, see `runner.graph.template`.
    """

    name: str
    state: State
    file: str | None = None
    sha256: str | None = None
    wall_s: float = 0.0
    host: str = ""
    exit_code: int = 0
    reason: str | None = None
    tip: str | None = None
    log: str | None = None
    coco_ap: float | None = None
    coco_ap_50: float | None = None
    mlperf_map: float | None = None
    median_ms: float | None = None
    """The accuracy and the latency of the result, if requested."""
    template: str | None = None
    """The sha256 of the graph template that was filled; None if the export script made the graph."""
    failed_template: str | None = None
    """The sha256 of a graph template that failed its audit with this job's checkpoint."""
    is_of_machine: bool = False
    """Whether the machine caused the failure, so that the job may succeed on another one."""


def record_outcome(out_dir: Path, outcome: Outcome) -> None:
    """Write an outcome to the output directory, atomically.

    Raises:
        DiskFullError: the disk is full.
    """
    with translate_disk_full(out_dir, tip=OTHER_OUT):
        write_whole(out_dir / BATCH_DIR / OUTCOMES / f"{outcome.name}.json", msgspec.json.encode(outcome))


def recorded_outcomes(out_dir: Path, jobs: Iterable[BatchJob]) -> tuple[Outcome, ...]:
    """Return the last recorded outcome of each job, from any run or shard; NOT_RUN if there is none."""
    return tuple(_recorded(out_dir, job.name) for job in jobs)


def _recorded(out_dir: Path, name: str) -> Outcome:
    with contextlib.suppress(OSError, msgspec.DecodeError):
        content = (out_dir / BATCH_DIR / OUTCOMES / f"{name}.json").read_bytes()
        return msgspec.json.decode(content, type=Outcome)
    return Outcome(name=name, state=State.NOT_RUN)
