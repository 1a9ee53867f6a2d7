"""Convert the variants of a model at the same time and deliver what came out."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from runner.checking import check_new, for_provenance
from runner.conversion import Conversion, Request, Settings, convert
from runner.engines.base import Folders
from runner.export import CONFIG_NAME, GRAPH_NAME, GRAPH_TEXT_NAME
from runner.export import LOG_NAME as EXPORT_LOG_NAME
from runner.folders import check_apart, mountable
from runner.outputs import OutputDir
from runner.provenance import PROVENANCE_NAME, write_provenance
from runner.speedups import speedups_env
from runner.toco import LOG_NAME as TOCO_LOG_NAME
from runner.together import run_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.check import CheckReport
    from runner.checkpoint import CheckpointFiles
    from runner.engines.base import Engine, Session, Toolchain
    from runner.identity import SettledFile
    from runner.recipe import Recipe, Variant
    from runner.scripts import ScriptOptions


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """Variants of one model, all converted from one model directory into one output directory."""

    recipe: Recipe
    checkpoints: Mapping[str, CheckpointFiles]
    model_dir: Path
    out_dir: Path
    settings: Settings
    options: ScriptOptions
    force: bool = False
    with_paths: bool = False

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants to convert: those there is a checkpoint for."""
        return tuple(self.recipe.variants[name] for name in self.checkpoints)


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What one variant left in the output directory."""

    variant: str
    file: Path
    copy: Path
    settled: SettledFile

    @property
    def verdict(self) -> str:
        """Say in a sentence what is known of the file's identity."""
        if self.settled.matches_published:
            return "this is the published file: its MD5 and its git blob id are the published ones"
        return "not the published file; the same checkpoint and settings give these bytes again"

    def as_json(self) -> dict[str, object]:
        """Return what a program wants to know."""
        return {
            "variant": self.variant,
            "file": str(self.file),
            "copy": str(self.copy),
            **asdict(self.settled.digests),
            "matches_published": self.settled.matches_published,
        }


def convert_all(engine: Engine, request: BatchRequest) -> tuple[Delivered, ...]:
    """Convert all variants; one that fails does not keep the others from being delivered.

    Raises:
        UsageError: the folders cannot be used, or a file that is not ours stands in the way.
        RunnerError: what a variant failed with; with several, the first in the order of the request.
    """
    model_dir = mountable(request.model_dir)
    check_apart(request.out_dir, model_dir)
    out = OutputDir.at(request.out_dir)
    mountable(out.path)
    out.check_replaceable(
        [name for variant in request.variants for name in output_names(variant, request.settings)],
        provenances=[f"{variant.name}/{PROVENANCE_NAME}" for variant in request.variants],
        force=request.force,
    )
    toolchain = engine.prepare()
    with out.work_dir() as work_dir:
        folders = Folders(read_only=(model_dir,), writable=(work_dir,))
        env = {"TF_MODEL_DIR": str(model_dir), "TFLITE_MODEL_DIR": str(work_dir)}
        env.update(speedups_env(request.settings.speedups))
        with engine.open(folders, env) as session:
            return _convert_together(session, toolchain, request, out, work_dir)


def output_names(variant: Variant, settings: Settings) -> Iterator[str]:
    """Yield the names, below the output directory, of all that a conversion leaves there."""
    names = [CONFIG_NAME, GRAPH_NAME, variant.raw_name, variant.file_name, EXPORT_LOG_NAME, TOCO_LOG_NAME]
    if settings.keep_pbtxt:
        names.append(GRAPH_TEXT_NAME)
    yield from (f"{variant.name}/{name}" for name in names)
    yield variant.copy_name
    yield f"{variant.name}/{PROVENANCE_NAME}"


def _convert_together(
    session: Session, toolchain: Toolchain, request: BatchRequest, out: OutputDir, work_dir: Path
) -> tuple[Delivered, ...]:
    def convert_one(name: str) -> Delivered:
        conversion = convert(session, _request(request, request.recipe.variants[name], work_dir))
        report = check_new(session, conversion) if request.settings.check else None
        return _deliver(conversion, report, toolchain, out, request)

    return run_together(session, convert_one, request.checkpoints)


def _request(request: BatchRequest, variant: Variant, work_dir: Path) -> Request:
    own_work_dir = work_dir / variant.name
    own_work_dir.mkdir()
    return Request(
        recipe=request.recipe,
        variant=variant,
        checkpoint=request.checkpoints[variant.name],
        settings=request.settings,
        options=replace(request.options, label=variant.name, log_dir=request.options.log_dir / variant.name),
        work_dir=own_work_dir,
    )


def _deliver(
    conversion: Conversion,
    report: CheckReport | None,
    toolchain: Toolchain,
    out: OutputDir,
    request: BatchRequest,
) -> Delivered:
    """Write the provenance and move all products to their final names, the provenance last."""
    variant, work_dir = conversion.request.variant, conversion.request.work_dir
    for log in (conversion.exported.run.script.log, conversion.toco_run.script.log):
        shutil.copyfile(log, work_dir / log.name)
    shutil.copyfile(conversion.request.final, work_dir / variant.copy_name)
    paths = {"TF_MODEL_DIR": request.model_dir, "TFLITE_MODEL_DIR": out.path} if request.with_paths else None
    check = None if report is None else for_provenance(report)
    write_provenance(conversion, toolchain, work_dir / PROVENANCE_NAME, check=check, paths=paths)
    names = output_names(variant, conversion.request.settings)
    out.publish({name: work_dir / name.rpartition("/")[2] for name in names})
    return Delivered(
        variant=variant.name,
        file=out.path / variant.name / variant.file_name,
        copy=out.path / variant.copy_name,
        settled=conversion.settled,
    )
