"""A batch on one machine: each job has its result, a failure stops no other job, a second run continues."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from runner.batch.results import RECORD_NAME, is_delivered
from runner.evaluation.samples import write_samples
from runner.toolchain.pins import PROJECT_ROOT
from tests.integration.changed_template import flip_a_bit
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Program

pytestmark = pytest.mark.any_engine

PREFIX = "model.ckpt-400000"


@pytest.fixture
def damaged(stand_in_dir: Path, tmp_path: Path) -> Path:
    """The prefix of a float checkpoint with a wrong byte."""
    folder = tmp_path / "damaged"
    shutil.copytree(stand_in_dir / "fp32", folder)
    data = folder / f"{PREFIX}.data-00000-of-00001"
    with data.open("r+b") as file:
        file.seek(1000)
        file.write(bytes([255 - file.read(1)[0]]))
    return folder / PREFIX


def write_jobs(folder: Path, *rows: tuple[str, str, Path]) -> Path:
    path = folder / "jobs.csv"
    lines = (f"{name},mobiledet_edgetpu,{variant},{checkpoint}\n" for name, variant, checkpoint in rows)
    path.write_text("name,recipe,variant,checkpoint\n" + "".join(lines))
    return path


def test_batch_delivers_reports_and_goes_on(
    program: Program, stand_in_dir: Path, damaged: Path, tmp_path: Path
) -> None:
    float_checkpoint, out = stand_in_dir / "fp32" / PREFIX, tmp_path / "out"
    jobs = write_jobs(
        tmp_path,
        ("broken", "fp32", damaged),
        ("float", "fp32", float_checkpoint),
        ("quantized", "uint8", stand_in_dir / "uint8" / PREFIX),
    )
    done = program("batch", jobs, "--out", out, "--json")
    assert done.exit_code == 7, done.stderr
    states = {job["name"]: job["state"] for job in done.json["jobs"]}
    assert states == {"broken": "failed", "float": "converted", "quantized": "converted"}
    assert json.loads((out / "summary.json").read_bytes()) == done.json
    assert is_delivered(out, "float", FINAL_SHA256["fp32"])
    assert is_delivered(out, "quantized", FINAL_SHA256["uint8"])
    assert not (out / "broken").exists()
    assert {path.name for path in (out / "float").iterdir()} == {
        *("pipeline.config", "tflite_graph.pb", "mobiledet.raw.tflite", "mobiledet.tflite"),
        *("export.log", "toco.log", "provenance.json", RECORD_NAME),
    }
    (log,) = (line.removeprefix("  log: ") for line in done.stderr.splitlines() if "  log: " in line)
    assert "damaged" in (out.parent / log).read_text()
    (alone,) = (line for line in done.stderr.splitlines() if "  to run it alone: " in line)
    assert alone.endswith(f"-m runner batch {jobs} --out {out} --json --only broken")

    before = (out / "float").stat().st_ino
    (out / "quantized" / "tflite_graph.pb").write_bytes(b"changed")
    again = program("batch", jobs, "--out", out, "--only", "float", "--only", "quantized")
    assert again.exit_code == 2, again.stderr  # a file that we did not write is not replaced
    assert "tflite_graph.pb already exists and was not made by this tool" in again.stderr
    assert (out / "float").stat().st_ino == before
    write_samples(tmp_path / "set", count=2, seed=0)
    labelled = ("--annotations", tmp_path / "set/annotations.json", "--images", tmp_path / "set/images")
    good = ("--only", "float", "--only", "quantized", "--overwrite")
    again = program("batch", jobs, "--out", out, *good, "--evaluate", *labelled, "--json")
    assert again.exit_code == 0, again.stderr
    _, kept, converted = again.json["jobs"]
    assert (kept["state"], converted["state"]) == ("was there", "converted")
    alone = program("evaluate", kept["file"], converted["file"], *labelled, "--json").json["files"]
    for job, evaluation in zip((kept, converted), alone, strict=True):
        assert (job["coco_ap"], job["mlperf_map"]) == (evaluation["coco"]["ap"], evaluation["mlperf_map"])
        assert job["median_ms"] > 0
    assert is_delivered(out, "quantized", FINAL_SHA256["uint8"])
    for name in ("float", "quantized"):
        verified = program("verify", "--provenance", out / name / "provenance.json")
        assert verified.exit_code == 0, verified.stderr


@pytest.mark.slow
def test_fail_fast_starts_no_more_jobs(
    program: Program, stand_in_dir: Path, damaged: Path, tmp_path: Path
) -> None:
    jobs = write_jobs(
        tmp_path, ("broken", "fp32", damaged), ("float", "fp32", stand_in_dir / "fp32" / PREFIX)
    )
    done = program("batch", jobs, "--out", tmp_path / "out", "--fail-fast", "--parallel", "1", "--json")
    assert done.exit_code == 7, done.stderr
    assert [job["state"] for job in done.json["jobs"]] == ["failed", "not run"]
    assert not (tmp_path / "out" / "float").exists()


@pytest.mark.slow
def test_training_runs_are_converted_as_convert_does(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    train, out = tmp_path / "runs" / "train", tmp_path / "out"
    shutil.copytree(stand_in_dir / "fp32", train)
    done = program("batch", tmp_path / "runs", "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    (job,) = done.json["jobs"]
    assert job["file"] == str(out / "train-400000" / "model.tflite")
    paths = ("--pipeline-config", train / "pipeline.config", "--checkpoint", train / PREFIX)
    alone = program("convert", *paths, "--out", tmp_path / "alone", "--json")
    assert alone.json[0]["sha256"] == job["sha256"]
    assert program("verify", job["file"]).exit_code == 0


def start(program: Program, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "runner", "batch", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
        env={**os.environ, "RUNNER_ENGINE": program.engine_name},
    )


@pytest.mark.slow
def test_shards_share_an_output_directory(program: Program, stand_in_dir: Path, tmp_path: Path) -> None:
    names, out = ("a", "b", "c"), tmp_path / "out"
    jobs = write_jobs(tmp_path, *((name, "fp32", stand_in_dir / "fp32" / PREFIX) for name in names))
    shards = [start(program, jobs, "--out", out, "--shard", shard) for shard in ("2/2", "1/2")]
    for shard in shards:
        _, said = shard.communicate()
        assert shard.returncode == 0, said
    summary = json.loads((out / "summary.json").read_bytes())
    assert [(job["name"], job["state"]) for job in summary["jobs"]] == [(name, "converted") for name in names]
    assert all(is_delivered(out, name, FINAL_SHA256["fp32"]) for name in names)


def test_interrupt_ends_a_batch_and_the_next_goes_on(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows = [(name, "fp32", stand_in_dir / "fp32" / PREFIX) for name in ("a", "b")]
    arguments = (write_jobs(tmp_path, *rows), "--out", out, "--parallel", "1")
    running = start(program, *arguments)
    while not (out / "a").exists():
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    before = (out / "a").stat().st_ino
    assert not (out / "b").exists()
    done = program("batch", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    assert [job["state"] for job in done.json["jobs"]] == ["was there", "converted"]
    assert (out / "a").stat().st_ino == before


@pytest.mark.slow
def test_later_jobs_fill_a_template_and_audited_ones_compare_it(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    out, names = tmp_path / "out", ("a", "b", "c")
    rows = [(name, "fp32", stand_in_dir / "fp32" / PREFIX) for name in names]
    done = program("batch", write_jobs(tmp_path, *rows), "--out", out, "--parallel", "1")
    assert done.exit_code == 0, done.stderr
    assert all(is_delivered(out, name, FINAL_SHA256["fp32"]) for name in names)
    records = [(out / name / "provenance.json").read_text() for name in names]
    # The first is exported, or fills and audits a template that an earlier run has left in the cache.
    assert ["templateAudit" in record for record in records[1:]] == [False, True]
    assert all('"graphFrom": "template"' in record for record in records[1:])


@pytest.mark.slow
def test_results_of_a_changed_template_are_made_again_by_the_script(
    program: Program, stand_in_dir: Path, damaged: Path, empty_cache: Path, tmp_path: Path
) -> None:
    """The first job, which is audited, fails before it uses the template, so the second uses it unaudited."""
    out, checkpoint = tmp_path / "out", stand_in_dir / "fp32" / PREFIX
    env = {"RUNNER_CACHE_DIR": str(empty_cache)}
    only = write_jobs(tmp_path, ("only", "fp32", checkpoint))
    assert program("batch", only, "--out", tmp_path / "first", env=env).exit_code == 0
    (entry,) = (empty_cache / "templates").iterdir()
    flip_a_bit(entry, b"anchors")

    rows = [("broken", damaged), ("filled", checkpoint), ("audited", checkpoint)]
    jobs = write_jobs(tmp_path, *((name, "fp32", prefix) for name, prefix in rows))
    done = program("batch", jobs, "--out", out, "--parallel", "1", "--json", env=env)
    assert done.exit_code == 7, done.stderr
    assert "a graph template failed an audit after filled used it" in done.stderr
    _, filled, audited = done.json["jobs"]
    assert audited["failed_template"] is not None
    for job in (filled, audited):
        assert (job["state"], job["template"]) == ("converted", None)
        assert is_delivered(out, job["name"], FINAL_SHA256["fp32"])
        assert '"graphFrom": "script"' in (out / job["name"] / "provenance.json").read_text()
