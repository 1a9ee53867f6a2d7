"""Run one job of a batch in a running toolchain: plan, convert in a scratch folder, deliver, evaluate."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from runner import console
from runner.batch.job_options import plan_job
from runner.batch.outcome import Outcome, State
from runner.batch.results import (
    BATCH_DIR,
    Record,
    check_replaceable,
    deliver,
    find_finished,
)
from runner.checkpoint.compare import report_weights
from runner.convert.model_facts import obtain_facts
from runner.convert.pipeline import Workplace
from runner.convert.speedups import speedups_env
from runner.deliver.run import open_others, run_conversion
from runner.engines.base import Folders
from runner.errors import DiskFullError, EngineError, RunnerError
from runner.evaluation.detector import open_detector
from runner.evaluation.evaluate import evaluate
from runner.evaluation.set_run import RunSettings
from runner.host.cache_dir import translate_disk_errors
from runner.host.disk import translate_disk_full
from runner.host.output_dir import OutputDir
from runner.host.scratch import scratch_folder
from runner.scripts.run import ScriptOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.batch.job_options import JobOptions
    from runner.batch.jobs import BatchJob
    from runner.convert.model_facts import ModelFacts
    from runner.deliver.plan import Plan
    from runner.deliver.run import Result
    from runner.deliver.templates import Templates
    from runner.engines.base import Engine
    from runner.evaluation.annotations import ImageSet

JOB_LOG: Final = "job.log"
WHOLE: Final = "whole"
"""The folder of the finished products in a job's work folder."""
TEMPLATES: Final = "templates"
"""The folder of the graph templates, in the scratch folder that all jobs share."""


class WorkDiskFullError(DiskFullError):
    """The disk of the scratch folder is full: a problem of this machine, not of the job."""


def run_job(
    job: BatchJob, job_options: JobOptions, engine: Engine, templates: Templates, scratch: Path, log_dir: Path
) -> Outcome:
    """Run a job and return its outcome; an error is returned as an outcome too.

    ``scratch`` is a folder on this machine that the toolchain can write to.
    """
    started, logs = time.monotonic(), log_dir / job.name
    with _log(logs):
        try:
            outcome = add_accuracy(
                _run(job, job_options, engine, templates, scratch, logs), job_options.image_set
            )
        except RunnerError as problem:
            console.error(problem)
            outcome = failed(job, problem)
    log = _kept_log(logs, job_options.out_dir, job.name) if outcome.state is State.FAILED else None
    wall_s = round(time.monotonic() - started, 2)
    return msgspec.structs.replace(outcome, wall_s=wall_s, host=socket.gethostname(), log=log)


def failed(job: BatchJob, problem: BaseException) -> Outcome:
    """Return the outcome of a job that ended with an error."""
    if isinstance(problem, RunnerError):
        reason, tip, code = problem.message, problem.tip, problem.exit_code
    else:
        reason, tip, code = f"a bug in this program: {problem!r}", None, RunnerError.exit_code
    return Outcome(
        name=job.name,
        state=State.FAILED,
        exit_code=code,
        reason=reason,
        tip=tip,
        is_of_machine=isinstance(problem, WorkDiskFullError | EngineError),
    )


def _run(
    job: BatchJob, job_options: JobOptions, engine: Engine, templates: Templates, scratch: Path, logs: Path
) -> Outcome:
    options = ScriptOptions(log_dir=logs, timeout_s=job_options.timeout_s, memory_mib=job_options.memory_mib)

    def read_facts(config: Path, repair: tuple[str, ...]) -> ModelFacts:
        return obtain_facts(engine, config, options, repair=repair)

    plan = plan_job(job, job_options, engine.prepare().digest, read_facts)
    target = job_options.out_dir / job.name
    if not job_options.force and (record := find_finished(target, _keys(plan))) is not None:
        return _good(job, State.KEPT, target, record)
    check_replaceable(plan, target)
    for conversion in plan.conversions:
        report_weights(conversion.checkpoint.verdict, conversion.checkpoint.prefix, conversion.variant)
    with scratch_folder(scratch) as work_dir:
        run = _Run(
            plan=plan,
            engine=engine,
            templates=templates,
            is_audited=job.name in job_options.audited,
            options=options,
        )
        with _work_disk(work_dir):
            result = _convert_or_retry(run, work_dir)
        known = Record(
            name=job.name,
            key=_keys(plan)[0],
            final=result.file.name,
            files={result.file.name: result.digests.sha256},
            template=result.template,
        )
        delivery = deliver(work_dir / WHOLE, job_options.out_dir, known)
    state = State.CONVERTED if delivery.is_ours else State.KEPT
    outcome = _good(job, state, target, delivery.record)
    if result.audit is None or result.audit.passed:
        return outcome
    return msgspec.structs.replace(outcome, failed_template=result.audit.template_sha256)


def _keys(plan: Plan) -> tuple[str, ...]:
    return tuple(key for by_toolchain in plan.keys.values() for keys in by_toolchain.values() for key in keys)


def _good(job: BatchJob, state: State, target: Path, record: Record) -> Outcome:
    sha256 = record.files[record.final]
    file = str(target / record.final)
    return Outcome(name=job.name, state=state, file=file, sha256=sha256, template=record.template)


def add_accuracy(outcome: Outcome, image_set: ImageSet | None) -> Outcome:
    """Add the accuracy and the latency of a result, if requested."""
    if image_set is None or outcome.file is None:
        return outcome
    detector, truth = open_detector(Path(outcome.file)), image_set.read()
    image_set.check_classes(truth.categories, detector.class_count)
    result = evaluate(detector, truth, image_set.images, RunSettings())
    return msgspec.structs.replace(
        outcome,
        coco_ap=result.coco.ap,
        coco_ap_50=result.coco.ap_50,
        mlperf_map=result.mlperf_map,
        median_ms=result.latency.median_ms,
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The arguments of the conversion of a job.

    If ``is_audited``, a graph that is made from a template is compared with the export script's graph.
    """

    plan: Plan
    engine: Engine
    templates: Templates
    is_audited: bool
    options: ScriptOptions


def _convert_or_retry(run: _Run, work_dir: Path) -> Result:
    """Convert, and retry once if the toolchain died: another job that shares it may be the cause."""
    try:
        return _convert_once(run, work_dir / "first", work_dir / WHOLE)
    except EngineError as problem:
        console.warn(f"{problem.message}; the job runs again")
        return _convert_once(run, work_dir / "again", work_dir / WHOLE)


def _convert_once(run: _Run, place: Path, whole: Path) -> Result:
    plan = run.plan
    place.mkdir()
    (conversion,) = plan.conversions
    env = {"TF_MODEL_DIR": str(plan.model_dir), "TFLITE_MODEL_DIR": str(place)}
    folders = Folders(read_only=plan.read_only, writable=(place,))
    with (
        run.engine.open(folders, env | speedups_env(conversion.speedups)) as session,
        open_others(plan, run.engine, place) as others,
    ):
        return run_conversion(
            session,
            plan,
            conversion,
            Workplace(model_dir=plan.model_dir, out_dir=place, options=run.options),
            run.engine.prepare(),
            OutputDir(path=whole),
            cache=None,
            templates=run.templates,
            audit_in=session if run.is_audited else None,
            other=others.get(conversion.variant.toolchain),
        )


@contextlib.contextmanager
def _work_disk(work_dir: Path) -> Iterator[None]:
    """Raise `WorkDiskFullError` if the disk of the scratch folder is full."""
    try:
        with translate_disk_full(work_dir, tip="free some space, or set TMPDIR to a folder on a larger disk"):
            yield
    except DiskFullError as problem:
        raise WorkDiskFullError(problem.message, tip=problem.tip, last_lines=problem.last_lines) from problem


@contextlib.contextmanager
def _log(logs: Path) -> Iterator[None]:
    """Write the messages of a job to its own log file."""
    with translate_disk_errors(logs):
        logs.mkdir(parents=True, exist_ok=True)
        log = (logs / JOB_LOG).open("w", encoding="utf-8")
    with log:

        def write(message: str) -> None:
            log.write(f"{message}\n")
            log.flush()

        with console.diverted(write):
            yield


def _kept_log(logs: Path, out_dir: Path, name: str) -> str:
    """Copy the logs of a failed job to the output directory, where every machine can read them."""
    kept = out_dir / BATCH_DIR / "logs" / name
    with contextlib.suppress(OSError):  # in that case, return the path of the original log
        shutil.copytree(logs, kept, dirs_exist_ok=True)
        return str(kept / JOB_LOG)
    return str(logs / JOB_LOG)
