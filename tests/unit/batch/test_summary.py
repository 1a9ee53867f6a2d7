"""The summary contains every job of the list, whichever run executed it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from runner.batch.job_options import JobOptions
from runner.batch.jobs import BatchJob
from runner.batch.outcome import Outcome, State, record_outcome
from runner.batch.run import BatchResult, choose_jobs, run_batch
from runner.batch.shard import Shard
from runner.batch.summary import write_summary
from runner.errors import UsageError
from runner.recipes.settings import Export

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = tuple(BatchJob(name=name, checkpoint=Path("/models/x"), config=Path("/c")) for name in ("a", "b", "c"))
GOOD = Outcome(name="a", state=State.CONVERTED, sha256="5" * 64, wall_s=1.5, host="one")
BAD = Outcome(name="b", state=State.FAILED, exit_code=5, reason="it broke,\nbadly", log="/out/b.log")


def test_shards_are_merged_and_what_did_not_run_is_there(tmp_path: Path) -> None:
    record_outcome(tmp_path, GOOD)
    write_summary(tmp_path, JOBS)
    record_outcome(tmp_path, BAD)  # by another shard
    summary = write_summary(tmp_path, JOBS)
    assert [it.state for it in summary.outcomes] == [State.CONVERTED, State.FAILED, State.NOT_RUN]
    written = json.loads((tmp_path / "summary.json").read_bytes())
    assert written == summary.plain
    assert written["counts"] == {"converted": 1, "was there": 0, "failed": 1, "not run": 1}
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["state"], row["reason"]) for row in rows] == [
        ("a", "converted", ""),
        ("b", "failed", "it broke,\nbadly"),
        ("c", "not run", ""),
    ]
    assert summary.table.splitlines()[-1] == "3 jobs: 1 converted, 1 failed, 1 not run"


def test_the_columns_of_an_evaluated_batch(tmp_path: Path) -> None:
    record_outcome(tmp_path, GOOD)
    plain = write_summary(tmp_path, JOBS[:2])
    assert "coco_ap" not in (tmp_path / "summary.csv").read_text().splitlines()[0]
    assert "mAP" not in plain.table
    measured = {"coco_ap": 0.5, "coco_ap_50": 0.75, "mlperf_map": 0.25, "median_ms": 1.5}
    record_outcome(tmp_path, msgspec.structs.replace(GOOD, **measured))
    summary = write_summary(tmp_path, JOBS[:2])
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[0][name] for name in measured] == ["0.5", "0.75", "0.25", "1.5"]
    assert [rows[1][name] for name in measured] == [""] * 4
    jobs = json.loads((tmp_path / "summary.json").read_bytes())["jobs"]
    assert jobs[0].items() >= measured.items()
    assert jobs[1]["coco_ap"] is None
    assert "COCO AP 0.5000  MLPerf mAP 0.2500  median 1.50 ms" in summary.table.splitlines()[0]


def test_damaged_outcome_counts_as_not_run(tmp_path: Path) -> None:
    record_outcome(tmp_path, GOOD)
    (tmp_path / ".batch" / "outcomes" / "a.json").write_text("{")
    assert write_summary(tmp_path, JOBS[:1]).outcomes[0].state is State.NOT_RUN


def job_options(out_dir: Path) -> JobOptions:
    return JobOptions(out_dir=out_dir, speedups=(), timeout_s=1, memory_mib=1)


def test_results_of_a_template_that_fails_an_audit_later_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doubtful = msgspec.structs.replace(GOOD, template="f" * 64)
    sure = Outcome(name="b", state=State.CONVERTED, template="0" * 64)
    audited = Outcome(name="c", state=State.CONVERTED, failed_template="f" * 64)
    runs = []

    def run_jobs(jobs: tuple[BatchJob, ...], job_options: JobOptions) -> Iterator[Outcome]:
        runs.append(([job.name for job in jobs], job_options.choices.get("export")))
        return iter((doubtful, sure, audited) if len(runs) == 1 else (GOOD,))

    result = run_batch(JOBS, JOBS, job_options(tmp_path / "out"), run_jobs)
    assert runs == [(["a", "b", "c"], None), (["a"], Export.SCRIPT)]
    assert result.outcomes == result.summary.outcomes == (GOOD, sure, audited)
    assert "a graph template failed an audit after a used it" in capsys.readouterr().err


def test_exit_code_is_that_of_the_first_failure_in_the_list(tmp_path: Path) -> None:
    worse = Outcome(name="c", state=State.FAILED, exit_code=7, reason="damaged")
    result = run_batch(JOBS, JOBS, job_options(tmp_path / "out"), lambda *_: iter((worse, GOOD, BAD)))
    assert result.exit_code == 5
    assert [it.name for it in result.failed] == ["b", "c"]
    assert BatchResult(outcomes=(GOOD,), summary=result.summary).exit_code == 0


def test_output_around_a_checkpoint_is_refused(tmp_path: Path) -> None:
    job = BatchJob(name="a", checkpoint=tmp_path / "out" / "train" / "x", config=Path("/c"))
    with pytest.raises(UsageError, match="overlap"):
        run_batch((job,), (job,), job_options(tmp_path / "out"), lambda *_: iter(()))
    assert not (tmp_path / "out").exists()


def test_only_takes_the_named_jobs(tmp_path: Path) -> None:
    del tmp_path
    assert choose_jobs(JOBS, shard=None, only=("c",)) == (JOBS[2],)
    assert choose_jobs(JOBS, shard=Shard(number=1, count=2), only=()) == (JOBS[0], JOBS[2])
    with pytest.raises(UsageError, match="no job with this name"):
        choose_jobs(JOBS, shard=None, only=("d",))
