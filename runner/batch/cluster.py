"""Run the jobs of a batch on the workers of a Dask scheduler.

Workers write the results to the output directory and return only a short outcome. A job may run twice: when a
worker dies, the scheduler runs its jobs again; when the scheduler is restarted, this program submits the
unfinished jobs again. This is harmless, because the second run finds the result of the first
(`runner.batch.results`).
"""

from __future__ import annotations

import queue
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from runner import console
from runner.batch.results import is_delivered
from runner.batch.run_job import failed
from runner.batch.worker import LOST_ERRORS, RESOURCE_PREFIX, dask, refuse, resource_of, run_remote
from runner.errors import EngineError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, Future

    from runner.batch.job_options import JobOptions
    from runner.batch.jobs import BatchJob
    from runner.batch.outcome import Outcome

CONNECT_TIMEOUT_S: Final = 30.0
PATIENCE_S: Final = 600.0
"""How long to wait for a scheduler that has stopped answering."""
POLL_S: Final = 1.0
GATHER_TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 3
"""The maximum number of runs of a job whose result does not appear in the output directory."""
SECONDS_BETWEEN_WARNINGS: Final = 60.0


def run_on_cluster(
    jobs: tuple[BatchJob, ...],
    job_options: JobOptions,
    *,
    address: str,
    toolchains: tuple[str, ...],
    fail_fast: bool,
) -> Iterator[Outcome]:
    """Run jobs on all workers whose toolchain has one of the given digests; yield outcomes as jobs end.

    Workers may join and leave. With ``fail_fast``, no job is started after the first failure.

    Raises:
        EngineError: there is no scheduler at the address.
        UsageError: Dask is not installed.
    """
    dispatch = _Dispatch(jobs, job_options, [resource_of(it) for it in toolchains], fail_fast=fail_fast)
    give_up_s = time.monotonic() + CONNECT_TIMEOUT_S
    while not dispatch.is_over:
        try:
            client = dask().Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
        except LOST_ERRORS as problem:
            if time.monotonic() > give_up_s:
                raise EngineError(
                    f"there is no scheduler at {address}: {problem}",
                    tip="`dask scheduler` starts one; docs/clusters.md has complete examples",
                ) from problem
            time.sleep(POLL_S)
            continue
        with client:
            yield from dispatch.run(client)
        give_up_s = time.monotonic() + PATIENCE_S


class _Dispatch:
    """Submits waiting jobs to the cluster and collects their outcomes.

    Only as many jobs are submitted as the workers can run, plus one for each worker. The reason: when a
    worker dies, Dask blames every job assigned to the worker, even if the job had not started. After too many
    such deaths, Dask fails the job (dask/distributed#5234).
    """

    def __init__(
        self, jobs: tuple[BatchJob, ...], job_options: JobOptions, resources: list[str], *, fail_fast: bool
    ) -> None:
        self._waiting = deque(jobs)
        self._job_options = job_options
        self._resources = resources
        self._fail_fast = fail_fast
        self._running: dict[Future[Outcome], BatchJob] = {}
        self._ended: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._attempts: dict[str, int] = {}
        self._warned_s = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether every job has ended."""
        return not self._waiting and not self._running

    def run(self, client: Client) -> Iterator[Outcome]:
        """Run jobs until all have ended or the connection is closed."""
        while not self.is_over and client.status != "closed":
            self._fill(client)
            try:
                future = self._ended.get(timeout=POLL_S)
            except queue.Empty:
                continue
            job = self._running.pop(future, None)
            outcome = None if job is None else self._outcome(future, job)
            if outcome is not None:
                yield outcome
                if self._fail_fast and not outcome.state.is_good:
                    self._waiting.clear()
        self._waiting.extendleft(self._running.values())
        self._running.clear()

    def _fill(self, client: Client) -> None:
        """Submit as many jobs as the current workers can take."""
        slots = self._slots(client)
        if not slots and self._waiting:
            self._warn_of_no_worker()
        while self._waiting and len(self._running) < slots:
            job = self._waiting.popleft()
            future = client.submit(
                run_remote, job, self._job_options, resources={self._resources[0]: 1}, pure=False, retries=0
            )
            self._running[future] = job
            future.add_done_callback(self._ended.put)  # type: ignore[no-untyped-call]

    def _slots(self, client: Client) -> int:
        """Return how many jobs may be submitted at a time; ask workers with another toolchain to exit."""
        try:
            workers = client.scheduler_info(n_workers=-1)["workers"]
        except LOST_ERRORS:  # the connection is lost; Dask cancels all futures and connects again
            return 0
        offers = {address: _offer(worker["resources"]) for address, worker in workers.items()}
        self._choose_toolchain({name for offer in offers.values() for name in offer})
        wanted = self._resources
        others = [address for address, offer in offers.items() if offer and offer.keys().isdisjoint(wanted)]
        if others:
            client.run(refuse, wanted, workers=others, wait=False, on_error="ignore")
        serving = [offer[wanted[0]] for offer in offers.values() if wanted[0] in offer]
        return int(sum(serving)) + len(serving)

    def _choose_toolchain(self, offered: set[str]) -> None:
        """Choose the toolchain of the first usable worker for all jobs of the batch."""
        usable = [name for name in self._resources if name in offered]
        if len(self._resources) > 1 and usable:
            self._resources = usable[:1]

    def _outcome(self, future: Future[Outcome], job: BatchJob) -> Outcome | None:
        """Return the outcome of a job, or None if the job was requeued."""
        if future.status == "error":
            return failed(job, _our_error(future.exception()))  # type: ignore[no-untyped-call]
        try:
            outcome = future.result(timeout=GATHER_TIMEOUT_S) if future.status == "finished" else None
        except (*LOST_ERRORS, dask().CancelledError):  # the worker or the scheduler has just died
            outcome = None
        if outcome is None or not outcome.state.is_good:
            if outcome is None:
                self._waiting.appendleft(job)
            return outcome
        if is_delivered(self._job_options.out_dir, job.name, outcome.sha256):
            return outcome
        return self._requeue(job, outcome)

    def _requeue(self, job: BatchJob, outcome: Outcome) -> Outcome | None:
        """Requeue a job whose result in the output directory is not the one that the worker reported.

        After too many attempts, return a failure instead.
        """
        self._attempts[job.name] = self._attempts.get(job.name, 0) + 1
        where = self._job_options.out_dir / job.name
        if self._attempts[job.name] < ATTEMPTS:
            console.warn(f"{where} is not the result that {outcome.host} reported; the job runs again")
            self._waiting.append(job)
            return None
        return failed(
            job,
            IntegrityError(
                f"{where} is not the result that {outcome.host} reported",
                tip="--out must be the same folder on all machines, on a shared file system",
            ),
        )

    def _warn_of_no_worker(self) -> None:
        if time.monotonic() - self._warned_s > SECONDS_BETWEEN_WARNINGS:
            self._warned_s = time.monotonic()
            console.warn(
                "no worker has the toolchain and program version of this batch; start one: "
                "`worker --scheduler …`"
            )


def _offer(resources: dict[str, float]) -> dict[str, float]:
    return {name: count for name, count in resources.items() if name.startswith(RESOURCE_PREFIX)}


def _our_error(problem: BaseException | None) -> BaseException:
    """Convert Dask's error about a job whose workers died into one of our errors."""
    if problem is None or isinstance(problem, dask().KilledWorker):
        return EngineError(
            f"the workers that ran the job died: {problem}",
            tip="read the logs of the workers, and check that the workers have enough memory",
        )
    return problem
