"""A Dask worker that keeps one toolchain running.

The worker offers a Dask resource whose name contains the digests of its toolchain and of this program. A job
requires the resource of one toolchain and one program version, so no other worker gets the job. The worker
runs without a Dask nanny; Slurm, Kubernetes or whatever else starts the worker may restart it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runner import console
from runner.batch.run_job import TEMPLATES, run_job
from runner.deliver.plan import program_digest
from runner.deliver.templates import Templates
from runner.engines.base import Folders
from runner.engines.persistent import SharedEngine
from runner.errors import DiskFullError, EngineError, IdentityError, RunnerError, UsageError
from runner.host.mounts import mountable
from runner.host.scratch import scratch_folder
from runner.scripts.logs import new_log_dir

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from distributed import Worker

    from runner.batch.job_options import JobOptions
    from runner.batch.jobs import BatchJob
    from runner.batch.outcome import Outcome
    from runner.engines.base import Engine

RESOURCE_PREFIX: Final = "mobiledet-runner:"
CONNECT_TIMEOUT_S: Final = 15.0
PATIENCE_S: Final = 600.0
"""How long a worker waits for a scheduler that has stopped answering."""
LOST_ERRORS: Final = (OSError, asyncio.TimeoutError)
"""The exceptions that Dask raises when a connection fails or is lost."""
LOST: Final = "worker-handle-scheduler-connection-broken"
"""The reason that Dask gives when it closes a worker because the connection to the scheduler broke."""


@dataclass(kw_only=True)
class _WorkerState:
    """State that the jobs of this worker share. If ``fault`` is set, the worker must leave the cluster."""

    engine: Engine
    templates: Templates
    scratch: Path
    log_dir: Path
    resource: str
    fault: RunnerError | None = field(default=None)


_state: _WorkerState | None = None
"""The state of this process; it is global because Dask calls `run_remote` with only a job and its options."""


def dask() -> ModuleType:
    """Return the package ``distributed``.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        import distributed
    except ModuleNotFoundError as problem:
        raise UsageError(
            f"a cluster needs the package {problem.name}, which is not installed",
            tip="install the extra: pip install 'mobiledet-runner[cluster]'",
        ) from problem
    return distributed


def resource_of(toolchain: str) -> str:
    """Return the name of the resource that a job for this toolchain and this program needs."""
    return f"{RESOURCE_PREFIX}{toolchain[:32]}:{program_digest()[:32]}"


def serve_batches(address: str, engine: Engine, *, parallel: int, inputs: tuple[Path, ...]) -> None:
    """Run the jobs that a Dask scheduler assigns to this worker, until the scheduler closes the worker.

    ``inputs`` are folders with checkpoints. An isolated engine mounts them once, for all jobs; for a
    checkpoint in any other folder, the engine starts a separate toolchain.

    Raises:
        EngineError: the scheduler is gone, or the toolchain does not work here.
        DiskFullError: the disk of the scratch folder is full.
        IdentityError: a batch needs another toolchain or program version.
        UsageError: an input folder cannot be used, or Dask is not installed.
    """
    global _state  # noqa: PLW0603 - jobs arrive as calls of `run_remote` in this process
    dask()
    folders = tuple(map(mountable, inputs))
    with scratch_folder() as made:
        scratch = made.resolve()
        shared = SharedEngine(engine, Folders(read_only=folders, writable=(scratch,)))
        toolchain = shared.prepare()
        _state = _WorkerState(
            engine=shared,
            templates=Templates(folder=scratch / TEMPLATES, toolchain=toolchain.digest),
            scratch=scratch,
            log_dir=new_log_dir(),
            resource=resource_of(toolchain.digest),
        )
        try:
            with shared.open(Folders(), {}) as session:
                session.wait_until_ready()
            console.note(f"toolchain {toolchain.digest[:12]} is ready for {parallel} parallel jobs")
            asyncio.run(_serve(address, _state, parallel))
        finally:
            _state = None
            shared.close()


async def _serve(address: str, state: _WorkerState, parallel: int) -> None:
    """Run a Dask worker; if the scheduler stops answering, wait for it and connect again."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            is_lost = await _serve_once(address, state, parallel)
        except LOST_ERRORS as problem:
            if time.monotonic() > give_up_s:
                raise EngineError(f"there is no scheduler at {address}: {problem}") from problem
            await asyncio.sleep(1.0)
            continue
        if state.fault is not None:
            raise state.fault
        if not is_lost:
            return
        console.note(f"the scheduler {address} does not answer; waiting for it")
        give_up_s = time.monotonic() + PATIENCE_S


async def _serve_once(address: str, state: _WorkerState, parallel: int) -> bool:
    """Run a Dask worker until it closes; return whether it closed because the scheduler was lost."""
    reasons: list[str] = []

    class _Worker(dask().Worker):  # type: ignore[misc]
        async def close(self, *arguments: object, reason: str = "", **more: object) -> object:
            reasons.append(reason)
            return await super().close(*arguments, reason=reason, **more)

    async with _Worker(
        address,
        nthreads=parallel,
        resources={state.resource: parallel},
        memory_limit=0,  # the toolchain's scripts have their own limits
        local_directory=str(state.scratch),
        death_timeout=CONNECT_TIMEOUT_S,
    ) as worker:
        console.note(f"serving {address} as {worker.address}")
        await worker.finished()
    return LOST in reasons[:1]


def run_remote(job: BatchJob, job_options: JobOptions) -> Outcome:
    """Run a job in the process of a worker.

    Raises:
        Reschedule: this worker cannot run the job and leaves the cluster; another worker may run it.
    """
    if _state is not None and _state.fault is None:
        outcome = run_job(job, job_options, _state.engine, _state.templates, _state.scratch, _state.log_dir)
        if not outcome.is_of_machine:
            return outcome
        kind = DiskFullError if outcome.exit_code == DiskFullError.exit_code else EngineError
        _leave(dask().get_worker(), kind(str(outcome.reason), tip=outcome.tip))
    else:
        time.sleep(0.5)  # this worker is leaving, and the scheduler may not know it yet
    raise dask().Reschedule


async def refuse(wanted: list[str], dask_worker: Worker) -> None:
    """Leave the cluster if this worker has another toolchain or program version and no running jobs.

    A batch calls this on workers that cannot run its jobs; ``wanted`` are the resources that the jobs need.
    """
    if _state is not None and _state.resource not in wanted and not dask_worker.state.executing:
        _leave(
            dask_worker,
            IdentityError(
                f"a batch needs toolchain and program version {' or '.join(map(_shown, wanted))}, "
                f"but this worker has {_shown(_state.resource)}",
                tip="install the same version of this program on all machines, with the same --models",
            ),
        )


def _shown(resource: str) -> str:
    return resource.removeprefix(RESOURCE_PREFIX)


def _leave(worker: Worker, fault: RunnerError) -> None:
    if _state is not None and _state.fault is None:
        _state.fault = fault
        worker.loop.add_callback(worker.close, reason="mobiledet-runner-fault")
