"""Run a batch: select its jobs, run them here or on a cluster, write a summary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner import console
from runner.batch.job_options import require_known_recipes
from runner.batch.outcome import Outcome, record_outcome
from runner.batch.progress import job_progress
from runner.batch.results import remove_abandoned
from runner.batch.summary import Summary, write_summary
from runner.errors import UsageError
from runner.host.mounts import check_apart
from runner.host.output_dir import OutputDir
from runner.recipes.settings import Export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner.batch.job_options import JobOptions
    from runner.batch.jobs import BatchJob
    from runner.batch.shard import Shard

    RunJobs = Callable[[tuple[BatchJob, ...], JobOptions], Iterator[Outcome]]


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
    """Return the jobs of a shard, or the jobs with the given names.

    Raises:
        UsageError: there is no job with one of the names.
    """
    if not only:
        return jobs if shard is None else shard.of(jobs)
    unknown = sorted(set(only) - {job.name for job in jobs})
    if unknown:
        raise UsageError(f"--only {unknown[0]}: the batch has no job with this name")
    return tuple(job for job in jobs if job.name in only)


def run_batch(
    jobs: tuple[BatchJob, ...], mine: tuple[BatchJob, ...], job_options: JobOptions, run_jobs: RunJobs
) -> BatchResult:
    """Run the jobs ``mine``, and write a summary of all ``jobs``. ``mine`` is a part of ``jobs``, or all.

    If a graph template fails an audit, every job of this run that used the template runs again with the
    export script.

    Raises:
        UsageError: the output directory cannot be used.
        DiskFullError: the disk is too full for an outcome or the summary.
        RunnerError: as ``run_jobs``.
    """
    require_known_recipes(jobs)
    out_dir = job_options.out_dir
    for folder in {job.checkpoint.parent for job in mine}:
        check_apart(out_dir, folder)
    OutputDir.at(out_dir)
    remove_abandoned(out_dir)
    outcomes = _run(mine, job_options, run_jobs)
    doubtful = _made_with_failed_templates(mine, outcomes)
    if doubtful:
        console.warn(
            f"a graph template failed an audit after {', '.join(job.name for job in doubtful)} used it; the "
            "export script exports these jobs again"
        )
        by_script = replace(job_options, choices={**job_options.choices, "export": Export.SCRIPT})
        outcomes |= _run(doubtful, by_script, run_jobs)
    ran = tuple(outcomes[job.name] for job in mine if job.name in outcomes)
    return BatchResult(outcomes=ran, summary=write_summary(out_dir, jobs))


def _run(jobs: tuple[BatchJob, ...], job_options: JobOptions, run_jobs: RunJobs) -> dict[str, Outcome]:
    outcomes = {}
    with job_progress(len(jobs)) as report:
        for outcome in run_jobs(jobs, job_options):
            record_outcome(job_options.out_dir, outcome)
            outcomes[outcome.name] = outcome
            report(outcome)
    return outcomes


def _made_with_failed_templates(
    jobs: tuple[BatchJob, ...], outcomes: Mapping[str, Outcome]
) -> tuple[BatchJob, ...]:
    failed = {it.failed_template for it in outcomes.values() if it.failed_template}
    return tuple(job for job in jobs if job.name in outcomes and outcomes[job.name].template in failed)
