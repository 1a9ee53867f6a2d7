"""Run a batch: choose its jobs, run them here or on a cluster, sum up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.batch.order import require_known_recipes
from runner.batch.outcome import Outcome, record_outcome
from runner.batch.progress import job_progress
from runner.batch.results import remove_abandoned
from runner.batch.summary import Summary, write_summary
from runner.errors import UsageError
from runner.host.mounts import check_apart
from runner.host.output_dir import OutputDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.batch.jobs import BatchJob
    from runner.batch.shard import Shard

    RunJobs = Callable[[tuple[BatchJob, ...]], Iterator[Outcome]]


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """The outcomes of the jobs of this run, and the summary of all jobs of the list."""

    outcomes: tuple[Outcome, ...]
    summary: Summary

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The jobs that failed, in the order of the list."""
        return tuple(it for it in self.outcomes if it.exit_code)

    @property
    def exit_code(self) -> int:
        """0 if every job has a result, else the exit code of the first failure."""
        return self.failed[0].exit_code if self.failed else 0


def choose_jobs(
    jobs: tuple[BatchJob, ...], *, shard: Shard | None, only: tuple[str, ...]
) -> tuple[BatchJob, ...]:
    """Return the jobs of a shard, or those with the given names.

    Raises:
        UsageError: a name is not in the list.
    """
    if not only:
        return jobs if shard is None else shard.of(jobs)
    unknown = sorted(set(only) - {job.name for job in jobs})
    if unknown:
        raise UsageError(f"--only {unknown[0]}: the batch has no job of this name")
    return tuple(job for job in jobs if job.name in only)


def run_batch(
    jobs: tuple[BatchJob, ...], mine: tuple[BatchJob, ...], out_dir: Path, run_jobs: RunJobs
) -> BatchResult:
    """Run the jobs ``mine``, which are some or all ``jobs`` of a list, and write the summary of all of them.

    Raises:
        UsageError: the output directory cannot be used.
        DiskFullError: there is no room for an outcome or the summary.
        RunnerError: as ``run_jobs``.
    """
    require_known_recipes(jobs)
    for folder in {job.checkpoint.parent for job in mine}:
        check_apart(out_dir, folder)
    OutputDir.at(out_dir)
    remove_abandoned(out_dir)
    outcomes = {}
    with job_progress(len(mine)) as report:
        for outcome in run_jobs(mine):
            record_outcome(out_dir, outcome)
            outcomes[outcome.name] = outcome
            report(outcome)
    ran = tuple(outcomes[job.name] for job in mine if job.name in outcomes)
    return BatchResult(outcomes=ran, summary=write_summary(out_dir, jobs))
