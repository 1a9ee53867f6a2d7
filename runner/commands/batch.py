"""Commands for many checkpoints: convert a batch locally or on a cluster, and run a cluster worker."""

from __future__ import annotations

import functools
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import (
    AsJson,
    Choices,
    OptionalPath,
    OutDir,
    ToolchainOptions,
    choose_engine,
    takes_options,
)
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.batch.job_options import JobOptions
    from runner.batch.jobs import BatchJob
    from runner.batch.run import BatchResult, RunJobs
    from runner.evaluation.annotations import ImageSet

app = typer.Typer()


class BatchChoices(Choices):
    """The settings that the user chose for all jobs.

    ``check`` is omitted: in a batch, the option ``--check`` selects which results are checked.
    """

    left_out = frozenset({"check"})

    @staticmethod
    def default_of(name: str) -> str:
        """Return the default of a setting, as text for ``--help``."""
        return "template" if name == "export" else Choices.default_of(name)


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Which jobs to run and how."""

    out: OutDir
    each: Annotated[
        str,
        typer.Option(
            metavar="newest|all|N",
            help="Which checkpoints of a training run to convert: the newest, all, or the N newest.",
        ),
    ] = "newest"
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run only this job; can be repeated.")
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Run the I-th of N parts. All parts can share one --out."),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the jobs on the workers of this Dask scheduler."),
    ] = None
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="Number of parallel jobs. Default: as many as cores and free memory allow."),
    ] = None
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Do not start further jobs after the first failure.")
    ] = False
    check: Annotated[
        str,
        typer.Option(
            metavar="all|audit|none",
            help="Which results to compare with their frozen graphs: all, those of audited jobs, or none.",
        ),
    ] = "audit"
    audit_every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Audit the first, the last and every N-th job of each model: compare a graph made from a "
            "template with the graph of the export script.",
        ),
    ] = 50
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Compute the accuracy of each result, as `evaluate` does."),
    ] = False
    annotations: Annotated[
        OptionalPath, typer.Option(metavar="JSON", help="For --evaluate: the boxes, in COCO's format.")
    ] = None
    images: Annotated[
        OptionalPath, typer.Option(metavar="DIR", help="For --evaluate: the folder of the images.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="For --evaluate: only the first N images.")] = None
    with_paths: Annotated[
        bool, typer.Option("--with-paths", help="Record this machine's folders in the provenance.")
    ] = False
    force: Annotated[bool, typer.Option("--force", help="Convert again, even if --out has the result.")] = (
        False
    )
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in --out that this program did not make.")
    ] = False


@app.command()
@takes_options
def batch(
    jobs: Annotated[
        list[Path], typer.Argument(help="Lists (.toml or .csv) or folders of training runs.", metavar="JOBS…")
    ],
    *,
    options: BatchOptions,
    settings: BatchChoices,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Convert many checkpoints, locally or on a cluster.

    The results of a job are written to OUT/<name>/. A result that already exists and was made from the same
    inputs is kept. If a job fails, the remaining jobs still run. The exit code is that of the first failed
    job in the list.
    """
    from runner.batch.jobs import read_jobs
    from runner.batch.run import choose_jobs, run_batch
    from runner.batch.shard import read_shard

    shard = None if options.shard is None else read_shard(options.shard)
    everything = read_jobs(jobs, each=options.each)
    mine = choose_jobs(everything, shard=shard, only=tuple(options.only or ()))
    job_options = _job_options(mine, options, settings, toolchain)
    run_jobs = _on_cluster if options.scheduler else _here
    result = run_batch(everything, mine, job_options, run_jobs(options, toolchain))
    _print_result(result, as_json=as_json)
    raise typer.Exit(result.exit_code)


def _job_options(
    jobs: tuple[BatchJob, ...], options: BatchOptions, settings: Choices, toolchain: ToolchainOptions
) -> JobOptions:
    from runner.batch.job_options import Check, JobOptions, choose_audited
    from runner.convert.speedups import chosen_speedups

    try:
        check = Check(options.check)
    except ValueError:
        raise UsageError(
            f"--check {options.check}: invalid value", tip="use all, audit (only the audited jobs) or none"
        ) from None
    return JobOptions(
        out_dir=options.out.expanduser().absolute(),
        choices=settings,
        speedups=chosen_speedups(),
        check=check,
        audited=choose_audited(jobs, options.audit_every),
        image_set=_image_set(options),
        with_paths=options.with_paths,
        force=options.force,
        overwrite=options.overwrite,
        timeout_s=toolchain.timeout_s,
        memory_mib=toolchain.memory_mib,
    )


def _image_set(options: BatchOptions) -> ImageSet | None:
    """Return the images for the evaluation, after checking them."""
    given = (options.annotations, options.images, options.limit)
    if not options.evaluate:
        if any(it is not None for it in given):
            raise UsageError("--annotations, --images and --limit need --evaluate")
        return None
    from runner.evaluation.annotations import ImageSet

    if options.annotations is None or options.images is None:
        raise UsageError("--evaluate needs --annotations and --images", tip="`samples` generates both")
    image_set = ImageSet(
        annotations=options.annotations.expanduser().absolute(),
        images=options.images.expanduser().absolute(),
        limit=options.limit,
    )
    image_set.read()
    return image_set


def _here(options: BatchOptions, toolchain: ToolchainOptions) -> RunJobs:
    from runner.batch.machine import jobs_at_once, memory_for, run_here
    from runner.scripts.logs import new_log_dir

    parallel = options.parallel or jobs_at_once()
    # The memory limit of a container applies to all its jobs together.
    engine = choose_engine(replace(toolchain, memory_mib=max(toolchain.memory_mib, memory_for(parallel))))
    return functools.partial(
        run_here,
        engine=engine,
        parallel=parallel,
        fail_fast=options.fail_fast,
        log_dir=new_log_dir(),
    )


def _on_cluster(options: BatchOptions, toolchain: ToolchainOptions) -> RunJobs:
    from runner.batch.cluster import run_on_cluster
    from runner.toolchain.digest import candidate_toolchain_digests

    return functools.partial(
        run_on_cluster,
        address=str(options.scheduler),
        toolchains=candidate_toolchain_digests(toolchain.models),
        fail_fast=options.fail_fast,
    )


def _print_result(result: BatchResult, *, as_json: bool) -> None:
    for outcome in result.failed:
        console.note(f"failed: {outcome.name}: {outcome.reason}")
        if outcome.tip:
            console.note(f"  try: {outcome.tip}")
        if outcome.log:
            console.note(f"  log: {outcome.log}")
        console.note(f"  to run it alone: {_alone(outcome.name)}")
    if as_json:
        console.result_json(result.summary.plain)
    else:
        console.result(result.summary.table)


def _alone(name: str) -> str:
    """Return this run's command, changed so that it runs only one job."""
    words, kept = iter(sys.argv[1:]), []
    for word in words:
        if word in ("--shard", "--only"):
            next(words, None)
        elif not word.startswith(("--shard=", "--only=")):
            kept.append(word)
    program = [sys.argv[0]] if Path(sys.argv[0]).suffix != ".py" else [sys.executable, "-m", "runner"]
    return shlex.join([*program, *kept, "--only", name])


@app.command()
@takes_options
def worker(
    *,
    scheduler: Annotated[str, typer.Option(metavar="ADDRESS", help="The address of the Dask scheduler.")],
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="Number of parallel jobs. Default: as many as cores and free memory allow."),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder with checkpoints, to mount into the container. Not needed by the local engine."
        ),
    ] = None,
    toolchain: ToolchainOptions,
) -> None:
    """Run batch jobs that a Dask scheduler distributes.

    The worker keeps one toolchain running for all jobs. Dask is an optional dependency: install the extra
    `cluster`. The worker only runs jobs of batches that use the same toolchain and the same version of this
    program; for any other batch it exits with code 8. If the scheduler restarts, the worker waits for it.
    """
    from runner.batch.machine import jobs_at_once, memory_for
    from runner.batch.worker import serve_batches

    count = parallel or jobs_at_once()
    engine = choose_engine(replace(toolchain, memory_mib=max(toolchain.memory_mib, memory_for(count))))
    serve_batches(scheduler, engine, parallel=count, inputs=tuple(inputs or ()))
