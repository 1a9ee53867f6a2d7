"""Run the jobs of a batch on this machine, in one toolchain that stays running."""

from __future__ import annotations

import glob
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from runner.batch.run_job import TEMPLATES, failed, run_job
from runner.deliver.templates import Templates
from runner.engines.base import Folders
from runner.engines.persistent import SharedEngine
from runner.host.capacity import available_memory_mib, usable_cores
from runner.host.mounts import link_targets, mountable
from runner.host.scratch import scratch_folder
from runner.scripts.parallel import PEAK_MIB, at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from runner.batch.job_options import JobOptions
    from runner.batch.jobs import BatchJob
    from runner.batch.outcome import Outcome
    from runner.engines.base import Engine


def jobs_at_once() -> int:
    """Return how many jobs this machine can run in parallel: one per core, if there is enough memory."""
    return at_once(usable_cores(), available_memory_mib())


def memory_for(jobs: int) -> int:
    """Return the memory that this many parallel jobs need, in MiB."""
    return jobs * PEAK_MIB


def run_here(
    jobs: tuple[BatchJob, ...],
    job_options: JobOptions,
    engine: Engine,
    *,
    parallel: int,
    fail_fast: bool,
    log_dir: Path,
) -> Iterator[Outcome]:
    """Run jobs in one session of the engine and yield their outcomes as they end.

    All jobs share one running toolchain, in which a server forks a process for each script. With
    ``fail_fast``, no job is started after the first failure. An interrupt kills all jobs.

    Raises:
        RunnerError: the toolchain could not be built.
    """
    with scratch_folder() as scratch:
        shared = SharedEngine(engine, Folders(read_only=_inputs(jobs), writable=(scratch.resolve(),)))
        templates = Templates(folder=scratch.resolve() / TEMPLATES, toolchain=shared.prepare().digest)
        try:
            yield from _run_all(
                jobs,
                lambda job: run_job(job, job_options, shared, templates, scratch.resolve(), log_dir),
                parallel=parallel,
                fail_fast=fail_fast,
                stop=shared.stop,
            )
        finally:
            shared.close()


def _inputs(jobs: tuple[BatchJob, ...]) -> tuple[Path, ...]:
    """Return the folders and files that the toolchain reads, except those inside another returned folder."""
    found: set[Path] = set()
    for job in jobs:
        folder = mountable(job.checkpoint.parent)
        files = folder.glob(f"{glob.escape(job.checkpoint.name)}.*")
        found |= {folder, *link_targets((job.config_file, *files), folder)}
    return tuple(sorted(it for it in found if found.isdisjoint(it.parents)))


def _run_all(
    jobs: tuple[BatchJob, ...],
    run: Callable[[BatchJob], Outcome],
    *,
    parallel: int,
    fail_fast: bool,
    stop: Callable[[], None],
) -> Iterator[Outcome]:
    waiting = list(reversed(jobs))
    running: dict[Future[Outcome], BatchJob] = {}
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="job") as executor:
        try:
            while running or waiting:
                while waiting and len(running) < parallel:
                    job = waiting.pop()
                    running[executor.submit(run, job)] = job
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = _outcome(future, running.pop(future))
                    yield outcome
                    if fail_fast and not outcome.state.is_good:
                        waiting.clear()
        except BaseException:
            stop()  # otherwise the executor would wait until its jobs end
            raise


def _outcome(future: Future[Outcome], job: BatchJob) -> Outcome:
    """Return the outcome of a job; an unexpected error becomes an outcome too."""
    problem = future.exception()
    return future.result() if problem is None else failed(job, problem)
