"""The jobs of a batch, read from a TOML or CSV list or found in folders of training runs.

A list is checked completely before anything starts. Paths in it are relative to the folder of the list.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import tomli

from runner.checkpoint.files import CONFIG_NAME, find_checkpoint
from runner.checkpoint.index import index_path
from runner.errors import ConfigError, UsageError
from runner.recipes.recipe import recipe_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER_NAME: Final = re.compile(r"\w[\w.+-]{0,199}")
KINDS: Final = (".toml", ".csv")
STEP_INDEX: Final = re.compile(r"model\.ckpt-(\d+)\.index")
DESCRIBED_IN: Final = "see docs/clusters.md for the format of job lists"
ALL: Final = "all"
NEWEST: Final = "newest"


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """One conversion of a batch, as plain data: either a recipe's variant or a model with its own config.

    ``name`` is also the name of the folder for the results. ``checkpoint`` is the prefix of the checkpoint's
    files. For a recipe, the config is the ``pipeline.config`` beside the checkpoint.
    """

    name: str
    checkpoint: Path
    recipe: str | None = None
    variant: str | None = None
    config: Path | None = None

    @property
    def config_file(self) -> Path:
        """The pipeline config."""
        return self.config or self.checkpoint.parent / CONFIG_NAME


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job in a list; the fields are the columns of a CSV file or the keys of a ``[[job]]`` table."""

    name: str
    checkpoint: str
    recipe: str | None = None
    config: str | None = None
    variant: str | None = None


def read_jobs(sources: Iterable[Path], *, each: str = NEWEST) -> tuple[BatchJob, ...]:
    """Read the jobs of all sources. A file is a job list; a folder is a training run or contains several.

    ``each`` selects the checkpoints of a training run: the newest, all, or the N newest.

    Raises:
        UsageError: ``each`` or a source is invalid.
        ConfigError: a list is invalid, a checkpoint is missing, or two jobs have the same name.
    """
    count = _count_of(each)
    placed = [it for source in sources for it in _jobs_of(source.expanduser(), count)]
    _require_different_names(placed)
    if not placed:
        raise ConfigError("the batch has no jobs", tip=DESCRIBED_IN)
    return tuple(job for _, job in placed)


def _count_of(each: str) -> int | None:
    """Return how many of a training run's newest checkpoints to take; None means all."""
    if each in (ALL, NEWEST):
        return 1 if each == NEWEST else None
    if re.fullmatch(r"[1-9]\d{0,8}", each):
        return int(each)
    raise UsageError(
        f"--each {each}: not {NEWEST}, {ALL} or a number above 0",
        tip="--each 3 takes the 3 newest checkpoints of each training run",
    )


def _jobs_of(source: Path, count: int | None) -> Iterator[tuple[str, BatchJob]]:
    if source.is_dir():
        return _jobs_of_runs(source, count)
    if source.suffix not in KINDS:
        raise UsageError(f"{source} is neither a .toml or .csv list nor a folder", tip=DESCRIBED_IN)
    try:
        content = source.read_bytes()
    except OSError as problem:
        raise UsageError(f"{source} cannot be read: {problem.strerror}") from problem
    rows = _toml_rows if source.suffix == ".toml" else _csv_rows
    return (
        (place, _job(row, place, source.absolute().parent))
        for place, row in rows(source, _text(source, content))
    )


def _text(source: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{source}: byte {problem.start} is not UTF-8") from problem


def _require_different_names(placed: list[tuple[str, BatchJob]]) -> None:
    first: dict[str, str] = {}
    for place, job in placed:
        if job.name in first:
            raise ConfigError(
                f"{place}: the name {job.name} is already used at {first[job.name]}",
                tip="give each job its own name: it is the folder of the job's results",
            )
        first[job.name] = place


# --- lists ------------------------------------------------------------------------------------------------


def _toml_rows(source: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        tables = tomli.loads(text)
    except tomli.TOMLDecodeError as problem:
        raise ConfigError(f"{source}: {problem}", tip=DESCRIBED_IN) from problem
    rows = tables.pop("job", [])
    if tables or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{source}: a job list has [[job]] tables and nothing else", tip=DESCRIBED_IN)
    lines = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if re.match(r"\s*\[\[\s*[\"']?job[\"']?\s*\]\]", line)
    ]
    for number, row in enumerate(rows):
        # The lines are unknown if the jobs are written as an inline array.
        place = f"line {lines[number]}" if len(lines) == len(rows) else f"job {number + 1}"
        yield f"{source}, {place}", row


def _csv_rows(source: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    columns = reader.fieldnames or ()
    unknown = [name for name in columns if name not in Row.__struct_fields__]
    if unknown or len(set(columns)) != len(columns):
        what = f"unknown column {unknown[0]!r}" if unknown else "two columns have the same name"
        tip = f"the columns are {', '.join(Row.__struct_fields__)}"
        raise ConfigError(f"{source}, line 1: {what}", tip=tip)
    done = 1
    try:
        for row in reader:
            place, done = f"{source}, line {reader.line_num}", reader.line_num
            if None in row or None in row.values():
                raise ConfigError(f"{place}: expected {len(columns)} cells, as in the first line")
            yield place, {name: cell for name, cell in row.items() if cell}
    except csv.Error as problem:
        raise ConfigError(f"{source}, after line {done}: {problem}") from problem


def _job(row: dict[str, Any], place: str, folder: Path) -> BatchJob:
    try:
        checked = msgspec.convert(row, Row)
    except msgspec.ValidationError as problem:
        raise ConfigError(f"{place}: {problem}", tip=DESCRIBED_IN) from problem
    _require_consistent(checked, place)

    def path(text: str) -> Path:
        return folder / Path(text).expanduser()

    job = BatchJob(
        name=checked.name,
        checkpoint=path(checked.checkpoint),
        recipe=None if checked.recipe is None else _recipe_of(checked.recipe, folder),
        variant=checked.variant,
        config=None if checked.config is None else path(checked.config),
    )
    _require_checkpoint(job, place)
    return job


def _recipe_of(text: str, folder: Path) -> str:
    """Return the name of a recipe that ships with the program, or the path of another one."""
    return text if text in recipe_names() else str(folder / Path(text).expanduser())


def _require_consistent(row: Row, place: str) -> None:
    if not FOLDER_NAME.fullmatch(row.name) or row.name.startswith("summary."):
        raise ConfigError(
            f"{place}: the name {row.name!r} cannot be the name of a result folder",
            tip="use letters, digits and _ . + -; begin with a letter, a digit or _, but not with `summary.`",
        )
    if (row.recipe is None) == (row.config is None):
        what = "neither recipe nor config" if row.recipe is None else "both recipe and config"
        raise ConfigError(
            f"{place}: the job has {what}",
            tip="set exactly one of them: config is for a model without a recipe",
        )
    if row.config is not None and row.variant is not None:
        raise ConfigError(
            f"{place}: a model without a recipe has no variant {row.variant!r}",
            tip="omit variant: the config determines whether the model is quantized",
        )


def _require_checkpoint(job: BatchJob, place: str) -> None:
    """Check that the checkpoint and the config of a job exist.

    Their content is only read when the job runs, so a damaged file makes only this job fail.
    """
    if job.config_file.is_file() and index_path(job.checkpoint).is_file():
        return
    try:
        find_checkpoint(job.config_file, job.checkpoint)
    except ConfigError as problem:
        raise ConfigError(f"{place}: {problem.message}", tip=problem.tip) from problem


# --- folders of training runs -----------------------------------------------------------------------------


def _jobs_of_runs(folder: Path, count: int | None) -> Iterator[tuple[str, BatchJob]]:
    """Return the jobs of a training run, or of all runs in a folder."""
    runs = [folder] if _is_run(folder) else sorted(filter(_is_run, folder.iterdir()))
    if not runs:
        raise ConfigError(
            f"{folder} is not a training run and does not contain one",
            tip=f"name a folder with {CONFIG_NAME} and model.ckpt-N.index files",
        )
    return (placed for run in runs for placed in _jobs_of_run(run.absolute(), count))


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file() and bool(_steps(folder))


def _steps(folder: Path) -> list[int]:
    """Return the steps at which a run wrote checkpoints, newest first."""
    found = (STEP_INDEX.fullmatch(path.name) for path in folder.glob("*.index"))
    return sorted((int(it[1]) for it in found if it is not None), reverse=True)


def _jobs_of_run(run: Path, count: int | None) -> Iterator[tuple[str, BatchJob]]:
    for step in _steps(run)[:count]:
        row = {
            "name": f"{run.name}-{step}",
            "checkpoint": f"model.ckpt-{step}",
            "config": CONFIG_NAME,
        }
        place = f"{run}, step {step}"
        yield place, _job(row, place, run)
