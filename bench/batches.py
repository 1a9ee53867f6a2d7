"""Measure batches of checkpoints of one model: on this machine, and on workers of a cluster on this machine.

Each batch starts without any template or result in the cache, as for a user's first batch; only the
toolchain is built. CPU and memory are those of the whole machine, so servers and containers are included.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.engines.base import Folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from report import Sample

    from bench import Bench
    from runner.engines.base import Engine

COUNTS: Final = (1, 8, 32, 64)
WORKERS: Final = (1, 2, 3)
JOBS_PER_CLUSTER: Final = 12
PREFIX: Final = "model.ckpt-400000"
ADDRESS: Final = "tcp://127.0.0.1:18786"
SECONDS_TO_START: Final = 120
NO_MORE_AUDITS: Final = "1000"
"""The value of ``--audit-every`` with which only the first and the last job are audited."""

BOUNDS: Final = {"fp32": (0.15, 0.10, 0.35), "uint8": (0.18, 0.13, 0.35)}
"""The limits of three CPU ratios: a job in a batch of 32, one more job, a single conversion."""

BATCHES: Final = """## Batches by template

Times are per job. Each batch starts without a template in the cache, so the script exports its first job.
The first and the last job are audited and checked. **One more job** is the cost that a job adds to a batch:
the difference between 64 and 8 jobs, divided by 56. A **single conversion** is one cold run of the program,
with `--no-check` and with the template in the cache. The CPU ratio is the CPU seconds divided by those of the
commands by hand.

| | wall s | CPU s | memory MiB | CPU ratio |
|---|---:|---:|---:|---:|"""
CLUSTER: Final = f"""
## A cluster

{JOBS_PER_CLUSTER} uint8 jobs with `--check none`, on workers that run one job at a time, all on this machine.
Scheduler, workers and client sent the bytes over the loopback interface; they read checkpoints and write
results through the file system.

| workers | wall s | CPU s | memory MiB | bytes sent per job |
|---:|---:|---:|---:|---:|"""
MANY: Final = """
## 10 000 checkpoints on 100 machines

Computed from the tables above, not measured: each of 100 machines like this one converts 100 checkpoints.

| | minutes | GB read by each machine |
|---|---:|---:|"""

# Runs in the toolchain. Each copy has different weights. The factor is positive, so minima stay below maxima
# and variances above 0.
COPIES: Final = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import tensorflow.compat.v1 as tf
source, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
reader = tf.train.NewCheckpointReader(source)
tensors = {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}
names = sorted(tensors)
places = [tf.placeholder(tensors[name].dtype) for name in names]
prefix = tf.placeholder(tf.string)
save = tf.raw_ops.SaveV2(
    prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=places
)
with tf.Session() as session:
    for number in range(count):
        factor = np.float32(1 - number / 1024)
        values = [it * factor if it.dtype == np.float32 else it for it in map(tensors.get, names)]
        session.run(save, {prefix: "%s/%d/model.ckpt" % (folder, number), **dict(zip(places, values))})
"""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The checkpoints of the batches, and a separate cache."""

    bench: Bench
    folder: Path
    cache: Path

    def measure(self, by_hand: Mapping[str, Sample]) -> Iterator[str]:
        """Measure everything, and yield the lines of the report; ``by_hand`` is the baseline by variant."""
        samples: dict[tuple[str, int], Sample] = {}
        cold: dict[str, Sample] = {}
        self._batch("fp32", 1)  # builds the toolchain if this engine keeps it in the cache
        for variant in by_hand:
            for count in COUNTS:
                samples[variant, count] = self._batch(variant, count)
            cold[variant] = self._cold(variant)
        clusters = {count: self._cluster(count) for count in WORKERS}
        yield from _report(by_hand, samples, cold, clusters, self._sizes())

    def _batch(self, variant: str, count: int) -> Sample:
        """Measure a batch with an empty cache."""
        for name in ("templates", "conversions"):
            shutil.rmtree(self.cache / "mobiledet-runner" / name, ignore_errors=True)
        title = f"{variant}, batch of {count}"
        with self.bench.measuring(title):
            self._run("batch", self._jobs(variant, count), "--audit-every", NO_MORE_AUDITS)
        return self.bench.samples[title][-1]

    def _cold(self, variant: str) -> Sample:
        """Measure a single conversion with the template that the last batch left in the cache."""
        flags = ("--model-dir", self.bench.model_dir, "--export", "template", "--no-check")
        title = f"{variant}, cold, template"
        for _ in range(3):
            with self.bench.measuring(title):
                self._run(variant, *flags)
        return sorted(self.bench.samples[title], key=lambda it: it.cpu_s)[1]

    def _cluster(self, workers: int) -> tuple[Sample, int]:
        """Measure a batch on workers with one job each; also return the bytes that processes sent."""
        port = ADDRESS.rpartition(":")[2]
        scheduler = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", port]
        worker = [sys.executable, "-m", "runner", "worker", "--scheduler", ADDRESS, "--parallel", "1"]
        started = [scheduler, *[[*worker, "--inputs", str(self.folder)]] * workers]
        processes = [
            subprocess.Popen(it, env=self._env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for it in started
        ]
        try:
            _wait_for_workers(workers)
            before, title = _bytes_sent(), f"cluster of {workers}"
            with self.bench.measuring(title):
                jobs = self._jobs("uint8", JOBS_PER_CLUSTER)
                self._run("batch", jobs, "--scheduler", ADDRESS, "--check", "none")
            return self.bench.samples[title][-1], _bytes_sent() - before
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()

    def _jobs(self, variant: str, count: int) -> Path:
        """Write a list of jobs."""
        path = self.folder / f"{variant}-{count}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("name", "recipe", "variant", "checkpoint"))
            for number in range(count):
                prefix = self.folder / variant / str(number) / "model.ckpt"
                rows.writerow((f"{variant}-{number}", self.bench.recipe.name, variant, prefix))
        return path

    def _run(self, *arguments: str | Path) -> None:
        words = map(str, (*arguments, "--out", self.bench.new_folder(), "--json"))
        done = subprocess.run(
            [sys.executable, "-m", "runner", *words],
            env=self._env(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stderr)

    def _env(self) -> dict[str, str]:
        root = str(Path(__file__).resolve().parents[1])
        variables = {**os.environ, "XDG_CACHE_HOME": str(self.cache), "RUNNER_CACHE_MIB": "0"}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        return {**variables, "PYTHONPATH": root}

    def _sizes(self) -> dict[str, int]:
        """Return the bytes that a job reads, by variant."""
        return {
            variant: sum(path.stat().st_size for path in (self.folder / variant / "0").iterdir())
            for variant in BOUNDS
        }


def prepare(bench: Bench, engine: Engine, scratch: Path) -> Batches:
    """Write the checkpoints, each with different weights, with the configs beside them."""
    folder, cache = scratch / "checkpoints", scratch / "cache"
    cache.mkdir()
    for variant in BOUNDS:
        source = bench.model_dir / variant
        for number in range(max(COUNTS)):
            (folder / variant / str(number)).mkdir(parents=True)
            shutil.copy(source / "pipeline.config", folder / variant / str(number))
        with engine.open(Folders(read_only=(bench.model_dir,), writable=(folder,)), {}) as session:
            argv = ("env", "python3", "-c", COPIES, str(source / PREFIX), str(folder / variant))
            done = session.run(*argv, str(max(COUNTS)))
        if done.exit_code:
            sys.exit("\n".join(done.stderr))
    return Batches(bench=bench, folder=folder, cache=cache)


def _wait_for_workers(count: int) -> None:
    from distributed import Client

    with Client(ADDRESS, timeout=SECONDS_TO_START) as client:
        client.wait_for_workers(count, timeout=SECONDS_TO_START)


def _bytes_sent() -> int:
    """Return the bytes sent over the loopback interface since boot."""
    for line in Path("/proc/net/dev").read_text("ascii").splitlines():
        name, _, numbers = line.strip().partition(":")
        if name == "lo":
            return int(numbers.split()[8])
    sys.exit("/proc/net/dev has no line lo")


def _report(
    by_hand: Mapping[str, Sample],
    samples: Mapping[tuple[str, int], Sample],
    cold: Mapping[str, Sample],
    clusters: Mapping[int, tuple[Sample, int]],
    sizes: Mapping[str, int],
) -> Iterator[str]:
    rows: dict[str, tuple[Sample, float]] = {}
    for (variant, count), sample in samples.items():
        title = f"{variant}, {count} job{'s' * (count > 1)}"
        rows[title] = _per_job(sample, count), by_hand[variant].cpu_s
    for variant in by_hand:
        hand_s = by_hand[variant].cpu_s
        rows[f"{variant}, one more job"] = _one_more(samples, variant), hand_s
        rows[f"{variant}, single conversion"] = cold[variant], hand_s
    yield BATCHES
    for title, (sample, hand_s) in rows.items():
        yield f"| {title} | {_seconds(sample)} | {sample.peak_mib:.0f} | {sample.cpu_s / hand_s:.3f} |"
    yield from ("", "| CPU ratio | limit | measured | |", "|---|---:|---:|---|")
    for variant, bounds in BOUNDS.items():
        for title, bound in zip(("32 jobs", "one more job", "single conversion"), bounds, strict=True):
            sample, hand_s = rows[f"{variant}, {title}"]
            ratio = sample.cpu_s / hand_s
            kept = "kept" if ratio <= bound else "**missed**"
            yield f"| {variant}, {title} | {bound} | {ratio:.3f} | {kept} |"
    yield CLUSTER
    for workers, (sample, sent) in clusters.items():
        yield f"| {workers} | {_seconds(sample)} | {sample.peak_mib:.0f} | {sent / JOBS_PER_CLUSTER:,.0f} |"
    yield MANY
    for variant in by_hand:
        wall_s = samples[variant, 8].wall_s + 92 * _one_more(samples, variant).wall_s
        yield f"| {variant} | {wall_s / 60:.1f} | {100 * sizes[variant] / 1e9:.1f} |"


def _per_job(sample: Sample, count: int) -> Sample:
    return replace(sample, wall_s=sample.wall_s / count, cpu_s=sample.cpu_s / count)


def _one_more(samples: Mapping[tuple[str, int], Sample], variant: str) -> Sample:
    """Return the cost of one additional job in a batch."""
    few, many = samples[variant, 8], samples[variant, 64]
    added = replace(many, wall_s=many.wall_s - few.wall_s, cpu_s=many.cpu_s - few.cpu_s)
    return _per_job(added, 64 - 8)


def _seconds(sample: Sample) -> str:
    return f"{sample.wall_s:.2f} | {sample.cpu_s:.2f}"
