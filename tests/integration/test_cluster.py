"""A batch on a Dask cluster: whichever process dies, every job gets exactly one complete result."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from runner.batch.results import is_delivered
from runner.toolchain.pins import PROJECT_ROOT
from tests.disks import small_disk
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.integration.conftest import Program

pytestmark = pytest.mark.engine("local")  # a cluster's machines rarely have Docker, and one has the time

WAIT_S = 240.0


def wait_until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A program in a separate process, with a log and a folder for its temporary files."""

    process: subprocess.Popen[bytes]
    log: Path
    scratch: Path

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def is_exporting(self) -> bool:
        """Return whether this worker is running a job."""
        return any(self.scratch.glob("*/*/first/*/pipeline.config"))

    def wait_until_it_says(self, words: str) -> None:
        wait_until(lambda: words in self.said or self.process.poll() is not None, words)
        assert words in self.said, self.said

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A scheduler's address, and everything that a test started."""

    folder: Path
    checkpoint: Path
    port: int
    started: list[Started] = field(default_factory=list)

    @property
    def out_dir(self) -> Path:
        return self.folder / "out"

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def scheduler(self) -> Started:
        scheduler = self._start("dask", "scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        scheduler.wait_until_it_says("Scheduler at")
        return scheduler

    def worker(self, *, root: Path = PROJECT_ROOT, scratch: Path | None = None) -> Started:
        command = ("runner", "worker", "--scheduler", self.address, "--parallel", "1")
        return self._start(*command, root=root, scratch=scratch)

    def batch(self, count: int) -> Started:
        """Start a batch that converts the float stand-in ``count`` times."""
        jobs = self.folder / "jobs.toml"
        job = '[[job]]\nname = "job-{}"\nrecipe = "mobiledet_edgetpu"\nvariant = "fp32"\n'
        job += f"checkpoint = {json.dumps(str(self.checkpoint))}\n"
        jobs.write_text("\n".join(job.format(number) for number in range(count)))
        command = ("runner", "batch", str(jobs), "--out", str(self.out_dir), "--check", "none")
        return self._start(*command, "--scheduler", self.address)

    def _start(self, *command: str, root: Path = PROJECT_ROOT, scratch: Path | None = None) -> Started:
        number = len(self.started)
        scratch = scratch or self.folder / f"scratch-{number}"
        scratch.mkdir(exist_ok=True)
        log = self.folder / f"{command[1]}-{number}.log"
        variables: Mapping[str, str] = {
            **os.environ,
            "RUNNER_ENGINE": "local",
            "PYTHONPATH": str(root),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(scratch),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=root,
                env=variables,
                start_new_session=True,
            )
        self.started.append(Started(process=process, log=log, scratch=scratch))
        return self.started[-1]

    def results(self) -> Mapping[str, int]:
        """Return the inode of each result folder."""
        return {path.name: path.stat().st_ino for path in self.out_dir.glob("job-*")}

    def assert_all_delivered(self, count: int) -> None:
        """Check that every job has a complete and correct result, and a row in the summary."""
        names = [f"job-{number}" for number in range(count)]
        assert sorted(self.results()) == names
        for name in names:
            assert is_delivered(self.out_dir, name, FINAL_SHA256["fp32"])
        summary = json.loads((self.out_dir / "summary.json").read_bytes())
        assert [job["name"] for job in summary["jobs"]] == names
        assert {job["sha256"] for job in summary["jobs"]} == {FINAL_SHA256["fp32"]}


@pytest.fixture
def cluster(program: Program, stand_in_dir: Path, tmp_path: Path) -> Iterator[Cluster]:
    del program  # whose fixture built the toolchain
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Cluster(folder=tmp_path, checkpoint=stand_in_dir / "fp32" / "model.ckpt-400000", port=port)
    try:
        yield made
    finally:
        for started in reversed(made.started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.process.pid, signal.SIGKILL)
            started.process.wait()


def test_worker_killed_in_a_job_loses_none(cluster: Cluster) -> None:
    cluster.scheduler()
    workers = [cluster.worker() for _ in range(3)]
    batch = cluster.batch(4)
    wait_until(lambda: workers[0].is_exporting, "the first worker got no job")
    before = cluster.results()
    workers[0].kill()
    assert batch.wait() == 0, batch.said
    cluster.assert_all_delivered(4)
    assert before.items() <= cluster.results().items()


@pytest.mark.slow
def test_worker_that_joins_late_gets_jobs(cluster: Cluster) -> None:
    cluster.scheduler()
    first = cluster.worker()
    batch = cluster.batch(4)
    wait_until(lambda: first.is_exporting, "the first worker got no job")
    late = cluster.worker()
    wait_until(lambda: late.is_exporting or batch.process.poll() is not None, "the batch does not end")
    assert late.is_exporting, batch.said
    assert batch.wait() == 0, batch.said
    cluster.assert_all_delivered(4)


@pytest.mark.slow
def test_worker_with_another_toolchain_gets_no_job_and_leaves(cluster: Cluster, tmp_path: Path) -> None:
    other_root = tmp_path / "other"
    names = shutil.ignore_patterns(".venv", ".git", "__pycache__", "build", "tests", "*_cache")
    shutil.copytree(PROJECT_ROOT, other_root, ignore=names)
    with (other_root / "docker/server/memory.py").open("a") as server:
        server.write("# another toolchain\n")
    cluster.scheduler()
    other = cluster.worker(root=other_root)
    other.wait_until_it_says("serving")
    batch = cluster.batch(1)
    assert other.wait() == 8, other.said
    assert "a batch needs toolchain and program" in other.said
    assert not any(other.scratch.rglob("pipeline.config"))
    cluster.worker()
    assert batch.wait() == 0, batch.said
    cluster.assert_all_delivered(1)


@pytest.mark.slow
def test_scheduler_that_is_restarted_loses_no_job(cluster: Cluster) -> None:
    scheduler = cluster.scheduler()
    workers = [cluster.worker() for _ in range(2)]
    batch = cluster.batch(3)
    wait_until(lambda: any(worker.is_exporting for worker in workers), "no worker got a job")
    scheduler.kill()
    time.sleep(2.0)  # so that the workers and the batch notice
    cluster.scheduler()
    assert batch.wait() == 0, batch.said
    cluster.assert_all_delivered(3)
    assert any("waiting for it" in worker.said for worker in workers)


@pytest.mark.slow
@pytest.mark.as_root
def test_worker_whose_disk_is_full_leaves_and_its_job_runs_elsewhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "size=24m") as scratch:
        cluster.scheduler()
        small = cluster.worker(scratch=scratch)
        small.wait_until_it_says("serving")
        batch = cluster.batch(2)
        assert small.wait() == 6, small.said
        assert "is full" in small.said
        cluster.worker()
        assert batch.wait() == 0, batch.said
        cluster.assert_all_delivered(2)


@pytest.mark.slow
def test_batch_that_is_killed_and_started_again_keeps_what_is_there(cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.worker()
    batch = cluster.batch(3)
    wait_until(cluster.results, "no job ended")
    batch.kill()
    before = cluster.results()
    again = cluster.batch(3)
    assert again.wait() == 0, again.said
    cluster.assert_all_delivered(3)
    assert before.items() <= cluster.results().items()


@pytest.mark.slow
def test_scheduler_that_is_not_there_exits_3(cluster: Cluster) -> None:
    batch = cluster.batch(1)
    assert batch.wait() == 3, batch.said
    assert f"there is no scheduler at {cluster.address}" in batch.said
