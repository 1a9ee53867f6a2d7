"""Job lists are checked completely, and each error names its line."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runner.batch.jobs import BatchJob, read_jobs
from runner.errors import ConfigError, UsageError
from tests.locations import DATA

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "model.ckpt-400000"


def write_checkpoint(folder: Path, *steps: int) -> None:
    """Write checkpoints of a training run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.config").write_text("model {}\n")
    for step in steps:
        for path in (DATA / "tiny_checkpoint" / "plain").glob(f"{PREFIX}.*"):
            shutil.copyfile(path, folder / path.name.replace("400000", str(step)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "train", 1000)
    return tmp_path


def read(folder: Path, name: str, text: str) -> tuple[BatchJob, ...]:
    (folder / name).write_text(text, "utf-8")
    return read_jobs([folder / name])


def test_toml_and_csv_say_the_same(folder: Path) -> None:
    toml = """
        [[job]]
        name = "first"
        recipe = "mobiledet_edgetpu"
        variant = "fp32"
        checkpoint = "train/model.ckpt-1000"

        [[job]]
        name = "own"
        config = "train/pipeline.config"
        checkpoint = "train/model.ckpt-1000"
    """
    table = "\ufeffname,recipe,variant,config,checkpoint\n"
    table += "first,mobiledet_edgetpu,fp32,,train/model.ckpt-1000\n"
    table += "own,,,train/pipeline.config,train/model.ckpt-1000\n"
    checkpoint = folder / "train" / "model.ckpt-1000"
    expected = (
        BatchJob(name="first", recipe="mobiledet_edgetpu", variant="fp32", checkpoint=checkpoint),
        BatchJob(name="own", config=folder / "train" / "pipeline.config", checkpoint=checkpoint),
    )
    assert read(folder, "jobs.toml", toml) == expected
    assert read(folder, "jobs.csv", table) == expected


GOOD = "a,r,,train/model.ckpt-1000\n"


@pytest.mark.parametrize(
    ("rows", "place", "what"),
    [
        ("name,recipe,colour,checkpoint\n", "line 1", "unknown column 'colour'"),
        ("name,name,recipe,checkpoint\n", "line 1", "two columns have the same name"),
        (f"name,recipe,config,checkpoint\n{GOOD}{GOOD}", "line 3", "the name a is already used"),
        ("name,recipe,config,checkpoint\na,r,c,train/model.ckpt-1000\n", "line 2", "both recipe and config"),
        ("name,recipe,config,checkpoint\na,,,train/model.ckpt-1000\n", "line 2", "neither recipe nor config"),
        ("name,recipe,config,checkpoint\na,r,\n", "line 2", "expected 4 cells"),
        ("name,recipe,config,checkpoint\na,r,,,\n", "line 2", "expected 4 cells"),
        ("name,recipe,checkpoint\na,r,\n", "line 2", "missing required field `checkpoint`"),
        (
            "name,config,variant,checkpoint\na,train/pipeline.config,fp32,train/model.ckpt-1000\n",
            "line 2",
            "has no variant 'fp32'",
        ),
        (
            "name,recipe,checkpoint\na,r,train/model.ckpt-2000\n",
            "line 2",
            "model.ckpt-2000.index is missing",
        ),
        ("name,config,checkpoint\na,none.config,train/model.ckpt-1000\n", "line 2", "there is no"),
        ('name,recipe,checkpoint\na,"r,train/model.ckpt-1000\n', "after line 1", "unexpected end"),
    ],
)
def test_csv_error_names_its_line(folder: Path, rows: str, place: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(folder, "jobs.csv", rows)
    assert f"jobs.csv, {place}: " in caught.value.message
    assert what in caught.value.message


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", "-x", "summary.csv", "a b", "a\n", "x" * 201])
def test_name_that_is_no_safe_folder_name_is_refused(folder: Path, name: str) -> None:
    text = f'[[job]]\nrecipe = "r"\ncheckpoint = "train/model.ckpt-1000"\nname = """{name}"""\n'
    with pytest.raises(ConfigError, match="cannot be the name of a result folder"):
        read(folder, "jobs.toml", text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[[job]\n", "jobs.toml: "),
        ("title = 1\n", r"has \[\[job\]\] tables and nothing else"),
        ("job = 3\n", r"has \[\[job\]\] tables and nothing else"),
        ("# none\n", "the batch has no jobs"),
        ('\n\n[[job]]\nname = "a"\ncolour = 1\n', "jobs.toml, line 3: .*colour"),
        ('job = [{name = "a"}]\n', "jobs.toml, job 1: .*checkpoint"),
        ('[[job]]\nname = 3\ncheckpoint = "c"\n', "jobs.toml, line 1: Expected `str`"),
    ],
)
def test_toml_error_names_its_line(folder: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        read(folder, "jobs.toml", text)


def test_list_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "jobs.csv").write_bytes(b"name\xff")
    with pytest.raises(ConfigError, match="byte 4 is not UTF-8"):
        read_jobs([folder / "jobs.csv"])


@pytest.mark.parametrize(
    ("name", "what"), [("none.toml", "cannot be read"), ("jobs.txt", "neither a .toml or .csv list")]
)
def test_source_that_is_no_list_is_a_usage_error(folder: Path, name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_jobs([folder / name])


@pytest.mark.parametrize(
    ("each", "steps"),
    [("newest", [1000]), ("2", [1000, 900]), ("all", [1000, 900, 20]), ("9", [1000, 900, 20])],
)
def test_training_run_gives_its_newest_checkpoints(tmp_path: Path, each: str, steps: list[int]) -> None:
    write_checkpoint(tmp_path / "runs" / "one", 20, 900, 1000)
    jobs = read_jobs([tmp_path / "runs" / "one"], each=each)
    assert [job.name for job in jobs] == [f"one-{step}" for step in steps]
    assert jobs[0].checkpoint == tmp_path / "runs" / "one" / "model.ckpt-1000"
    assert jobs[0].config == tmp_path / "runs" / "one" / "pipeline.config"


def test_folder_of_training_runs_gives_the_jobs_of_each(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "runs" / "one", 1)
    write_checkpoint(tmp_path / "runs" / "two", 3)
    (tmp_path / "runs" / "logs").mkdir()
    assert [job.name for job in read_jobs([tmp_path / "runs"])] == ["one-1", "two-3"]


def test_two_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a" / "run", 1)
    write_checkpoint(tmp_path / "b" / "run", 1)
    with pytest.raises(ConfigError, match="the name run-1 is already used"):
        read_jobs([tmp_path / "a", tmp_path / "b"])


def test_folder_without_training_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a training run"):
        read_jobs([tmp_path])


@pytest.mark.parametrize("each", ["0", "-1", "oldest", ""])
def test_each_that_is_no_number_is_refused(folder: Path, each: str) -> None:
    with pytest.raises(UsageError, match="--each"):
        read_jobs([folder / "train"], each=each)


def test_recipe_of_ones_own_is_relative_to_the_list(folder: Path) -> None:
    (job,) = read(folder, "jobs.csv", "name,recipe,checkpoint\na,my/recipe,train/model.ckpt-1000\n")
    assert job.recipe == str(folder / "my" / "recipe")
