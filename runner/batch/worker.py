"""A Dask worker with one warm toolchain.

Its resource is named after the digests of the toolchain and of this program, and jobs ask for that resource:
a worker with another toolchain never gets one. It has no nanny: what starts it (Slurm, Kubernetes, ssh) may
start it again.
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

    from runner.batch.jobs import BatchJob
    from runner.batch.order import Order
    from runner.batch.outcome import Outcome
    from runner.engines.base import Engine

RESOURCE_PREFIX: Final = "mobiledet-runner:"
CONNECT_TIMEOUT_S: Final = 15.0
PATIENCE_S: Final = 600.0
"""How long a worker waits for a scheduler that does not answer any more."""
LOST_ERRORS: Final = (OSError, asyncio.TimeoutError)
"""The exceptions that Dask raises when a connection is lost or cannot be made."""
LOST: Final = "worker-handle-scheduler-connection-broken"


@dataclass(kw_only=True)
class _Bench:
    """The engine and folders that the jobs of this worker share, and why it must leave the cluster, if so."""

    engine: Engine
    templates: Templates
    scratch: Path
    log_dir: Path
    resource: str
    fault: RunnerError | None = field(default=None)


_bench: _Bench | None = None
"""The bench of this process: Dask sends jobs a function, and the function finds it here."""


def dask() -> ModuleType:
    """Return the package ``distributed``.

    Raises:
        UsageError: it is not installed.
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
    """Serve the batches of a scheduler until this worker is told to close.

    ``inputs`` are folders with checkpoints. An isolated engine mounts them once; for a checkpoint in another
    folder it has to start a toolchain for that job alone.

    Raises:
        EngineError: the scheduler is gone, or the toolchain does not work here.
        DiskFullError: the disk of the scratch folder is full.
        IdentityError: a batch is for another toolchain or program.
        UsageError: an input folder cannot be used, or Dask is not installed.
    """
    global _bench  # noqa: PLW0603 - jobs arrive as calls of `run_remote` in this process
    dask()
    folders = tuple(map(mountable, inputs))
    with scratch_folder() as made:
        scratch = made.resolve()
        shared = SharedEngine(engine, Folders(read_only=folders, writable=(scratch,)))
        toolchain = shared.prepare()
        _bench = _Bench(
            engine=shared,
            templates=Templates(folder=scratch / TEMPLATES, toolchain=toolchain.digest),
            scratch=scratch,
            log_dir=new_log_dir(),
            resource=resource_of(toolchain.digest),
        )
        try:
            with shared.open(Folders(), {}) as session:
                session.wait_until_ready()
            console.note(f"toolchain {toolchain.digest[:12]} is ready for {parallel} jobs at once")
            asyncio.run(_serve(address, _bench, parallel))
        finally:
            _bench = None
            shared.close()


async def _serve(address: str, bench: _Bench, parallel: int) -> None:
    """Run a Dask worker; start it again when the scheduler comes back after a restart."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            is_lost = await _serve_once(address, bench, parallel)
        except LOST_ERRORS as problem:
            if time.monotonic() > give_up_s:
                raise EngineError(f"there is no scheduler at {address}: {problem}") from problem
            await asyncio.sleep(1.0)
            continue
        if bench.fault is not None:
            raise bench.fault
        if not is_lost:
            return
        console.note(f"the scheduler {address} does not answer; waiting for it")
        give_up_s = time.monotonic() + PATIENCE_S


async def _serve_once(address: str, bench: _Bench, parallel: int) -> bool:
    """Serve until the worker is closed; return whether that is because the scheduler was lost."""
    reasons: list[str] = []

    class _Worker(dask().Worker):  # type: ignore[misc]
        async def close(self, *arguments: object, reason: str = "", **more: object) -> object:
            reasons.append(reason)
            return await super().close(*arguments, reason=reason, **more)

    async with _Worker(
        address,
        nthreads=parallel,
        resources={bench.resource: parallel},
        memory_limit=0,  # the toolchain's scripts have limits of their own
        local_directory=str(bench.scratch),
        death_timeout=CONNECT_TIMEOUT_S,
    ) as worker:
        console.note(f"serving {address} as {worker.address}")
        await worker.finished()
    return LOST in reasons[:1]


def run_remote(job: BatchJob, order: Order) -> Outcome:
    """Run a job in the process of a worker.

    Raises:
        Reschedule: this worker cannot run it and leaves the cluster; another may.
    """
    if _bench is not None and _bench.fault is None:
        outcome = run_job(job, order, _bench.engine, _bench.templates, _bench.scratch, _bench.log_dir)
        if not outcome.is_of_machine:
            return outcome
        kind = DiskFullError if outcome.exit_code == DiskFullError.exit_code else EngineError
        _leave(dask().get_worker(), kind(str(outcome.reason), tip=outcome.tip))
    else:
        time.sleep(0.5)  # it is leaving, and the scheduler may not know it yet
    raise dask().Reschedule


async def refuse(wanted: list[str], dask_worker: Worker) -> None:
    """Leave the cluster, if this worker has another toolchain or program version and no jobs.

    A batch calls this on workers that cannot run its jobs; ``wanted`` are the resources that could.
    """
    if _bench is not None and _bench.resource not in wanted and not dask_worker.state.executing:
        _leave(
            dask_worker,
            IdentityError(
                f"a batch needs toolchain and program version {' or '.join(map(_shown, wanted))}, "
                f"but this worker has {_shown(_bench.resource)}",
                tip="install the same version of this program on all machines, with the same --models",
            ),
        )


def _shown(resource: str) -> str:
    return resource.removeprefix(RESOURCE_PREFIX)


def _leave(worker: Worker, fault: RunnerError) -> None:
    if _bench is not None and _bench.fault is None:
        _bench.fault = fault
        worker.loop.add_callback(worker.close, reason="mobiledet-runner-fault")
