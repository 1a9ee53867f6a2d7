"""Convert the variants of a model at the same time and deliver what came out, or what is in the cache."""

from __future__ import annotations

import importlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from runner import console
from runner.convert.export import CONFIG_NAME, GRAPH_NAME, GRAPH_TEXT_NAME
from runner.convert.export import LOG_NAME as EXPORT_LOG_NAME
from runner.convert.pipeline import Request, Settings, convert
from runner.convert.speedups import speedups_env
from runner.convert.toco import LOG_NAME as TOCO_LOG_NAME
from runner.deliver.cache import Maker, conversion_key, runner_digest
from runner.engines.base import Folders
from runner.evidence.provenance.write import PROVENANCE_NAME, named_digests, write_provenance
from runner.host.digests import digest_file
from runner.host.mounts import check_apart, link_targets, mountable
from runner.host.output_dir import OutputDir
from runner.scripts.parallel import run_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from runner.checkpoint.files import CheckpointFiles
    from runner.convert.pipeline import Conversion
    from runner.deliver.cache import ConversionCache
    from runner.engines.base import Engine, Session, Toolchain
    from runner.evidence.check.run import CheckReport
    from runner.host.digests import FileDigests
    from runner.recipes.recipe import Recipe, Variant
    from runner.scripts.run import ScriptOptions

USED_LATER: Final = (
    "runner.tflite.canonical",
    "runner.evidence.check.files",
    "runner.evidence.provenance.statement",
)
"""What is needed once the toolchain has done its work, and takes a third of a second to import."""


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """Variants of one model, all converted from one model directory into one output directory.

    ``cache`` None: nothing is taken from it, nothing is kept. ``toolchains`` are the digests of those that
    may do the work: what one of them has made before is as good as made now. ``force`` makes it now.
    """

    recipe: Recipe
    checkpoints: Mapping[str, CheckpointFiles]
    model_dir: Path
    out_dir: Path
    settings: Settings
    options: ScriptOptions
    force: bool = False
    with_paths: bool = False
    cache: ConversionCache | None = None
    toolchains: tuple[str, ...] = ()

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
    digests: FileDigests
    matches_published: bool

    @property
    def verdict(self) -> str:
        """Say in a sentence what is known of the file's identity."""
        if self.matches_published:
            return "this is the published file: its MD5 and its git blob id are the published ones"
        return "not the published file; the same checkpoint and settings give these bytes again"

    def as_json(self) -> dict[str, object]:
        """Return what a program wants to know."""
        return {
            "variant": self.variant,
            "file": str(self.file),
            "copy": str(self.copy),
            **asdict(self.digests),
            "matches_published": self.matches_published,
        }


def convert_all(choose_engine: Callable[[], Engine], request: BatchRequest) -> tuple[Delivered, ...]:
    """Deliver all variants, from the cache or converted now by an engine that is asked for only then.

    One that fails does not keep the others from being delivered.

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
        ours=_digests_of_ours(request, out),
        force=request.force,
    )
    with out.work_dir() as work_dir:
        cached = _deliver_cached(request, out, work_dir)
        missing = [name for name in request.checkpoints if name not in cached]
        made = _convert_now(choose_engine(), request, missing, out, work_dir) if missing else ()
    everything = {**cached, **{delivered.variant: delivered for delivered in made}}
    return tuple(everything[name] for name in request.checkpoints)


def _digests_of_ours(request: BatchRequest, out: OutputDir) -> frozenset[str]:
    provenances = (out.path / variant.name / PROVENANCE_NAME for variant in request.variants)
    return frozenset().union(*map(named_digests, provenances))


def output_names(variant: Variant, settings: Settings) -> Iterator[str]:
    """Yield the names, below the output directory, of all that a conversion leaves there."""
    names = [CONFIG_NAME, GRAPH_NAME, variant.raw_name, variant.file_name, EXPORT_LOG_NAME, TOCO_LOG_NAME]
    if settings.keep_pbtxt:
        names.append(GRAPH_TEXT_NAME)
    yield from (f"{variant.name}/{name}" for name in names)
    yield variant.copy_name
    yield f"{variant.name}/{PROVENANCE_NAME}"


def _request(request: BatchRequest, name: str, work_dir: Path) -> Request:
    return Request(
        recipe=request.recipe,
        variant=request.recipe.variants[name],
        checkpoint=request.checkpoints[name],
        settings=request.settings,
        options=replace(request.options, label=name, log_dir=request.options.log_dir / name),
        work_dir=work_dir / name,
    )


# --- from the cache ---------------------------------------------------------------------------------------


def _deliver_cached(request: BatchRequest, out: OutputDir, work_dir: Path) -> Mapping[str, Delivered]:
    """Deliver what was converted before; no engine is needed for that."""
    if request.cache is None or request.force:
        return {}
    runner = runner_digest()
    makers = [Maker(toolchain=toolchain, runner=runner) for toolchain in request.toolchains]
    with ThreadPoolExecutor() as executor:
        taken = executor.map(lambda name: _take(request, name, makers, out, work_dir), request.checkpoints)
        return {delivered.variant: delivered for delivered in taken if delivered is not None}


def _take(
    request: BatchRequest, name: str, makers: Iterable[Maker], out: OutputDir, work_dir: Path
) -> Delivered | None:
    conversion_request = _request(request, name, work_dir)
    variant, folder = conversion_request.variant, conversion_request.work_dir
    names = _kept_names(variant, request.settings)
    keys = (
        _key(replace(conversion_request, settings=settings), maker, request, out)
        for maker in makers
        for settings in dict.fromkeys((replace(request.settings, check=True), request.settings))
    )
    if request.cache is None or not any(request.cache.take(key, names, folder) for key in keys):
        return None
    console.note(f"[{name}] converted before, taken from the cache; --force converts it again")
    digests = digest_file(conversion_request.final)
    published = variant.published is not None and variant.published.is_of(digests)
    return _publish(conversion_request, out, digests, matches_published=published)


def _kept_names(variant: Variant, settings: Settings) -> Iterable[str]:
    """Return the names of what the cache keeps: all but the copy."""
    prefix = f"{variant.name}/"
    names = output_names(variant, settings)
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _key(conversion_request: Request, maker: Maker, request: BatchRequest, out: OutputDir) -> str:
    return conversion_key(conversion_request, maker, _named_paths(request, out))


def _named_paths(request: BatchRequest, out: OutputDir) -> Mapping[str, Path] | None:
    """Return the folders of this machine that the provenance is to name, None if it is to name none."""
    return {"TF_MODEL_DIR": request.model_dir, "TFLITE_MODEL_DIR": out.path} if request.with_paths else None


# --- converted now ----------------------------------------------------------------------------------------


def _convert_now(
    engine: Engine, request: BatchRequest, names: Iterable[str], out: OutputDir, work_dir: Path
) -> tuple[Delivered, ...]:
    toolchain = engine.prepare()

    def key_now(conversion_request: Request) -> str:
        maker = Maker(toolchain=toolchain.digest, runner=runner_digest())
        return _key(conversion_request, maker, request, out)

    def convert_one(name: str) -> Delivered:
        conversion_request = _request(request, name, work_dir)
        conversion_request.work_dir.mkdir()
        key = key_now(conversion_request)
        conversion = convert(session, conversion_request)
        report = _check(session, conversion) if request.settings.check else None
        _finish(conversion, report, toolchain, out, request)
        if request.cache is not None and key == key_now(conversion_request):
            # Else the checkpoint or this program was changed meanwhile, and nobody knows which one was read.
            files = _kept_names(conversion_request.variant, request.settings)
            request.cache.keep(key, [conversion_request.work_dir / file for file in files])
        settled = conversion.settled
        return _publish(conversion_request, out, settled.digests, matches_published=settled.matches_published)

    model_dir = mountable(request.model_dir)
    inputs = [path for files in request.checkpoints.values() for path in files.paths]
    folders = Folders(read_only=(model_dir, *link_targets(inputs, model_dir)), writable=(work_dir,))
    env = {"TF_MODEL_DIR": str(model_dir), "TFLITE_MODEL_DIR": str(work_dir)}
    env.update(speedups_env(request.settings.speedups))
    with engine.open(folders, env) as session:
        for name in USED_LATER:  # while the toolchain starts
            importlib.import_module(name)
        return run_together(session, convert_one, names, memory_mib=request.options.memory_mib)


def _check(session: Session, conversion: Conversion) -> CheckReport:
    from runner.evidence.check.files import check_new

    return check_new(session, conversion)


def _finish(
    conversion: Conversion,
    report: CheckReport | None,
    toolchain: Toolchain,
    out: OutputDir,
    request: BatchRequest,
) -> None:
    """Add the logs and the provenance to what was made."""
    from runner.evidence.check.files import for_provenance

    work_dir = conversion.request.work_dir
    for log in (conversion.exported.run.script.log, conversion.toco_run.script.log):
        shutil.copyfile(log, work_dir / log.name)
    check = None if report is None else for_provenance(report)
    paths = _named_paths(request, out)
    write_provenance(conversion, toolchain, work_dir / PROVENANCE_NAME, check=check, paths=paths)


def _publish(
    conversion_request: Request, out: OutputDir, digests: FileDigests, *, matches_published: bool
) -> Delivered:
    """Move all products to their final names, the provenance last."""
    variant, work_dir = conversion_request.variant, conversion_request.work_dir
    shutil.copyfile(conversion_request.final, work_dir / variant.copy_name)
    names = output_names(variant, conversion_request.settings)
    out.publish({name: work_dir / name.rpartition("/")[2] for name in names})
    return Delivered(
        variant=variant.name,
        file=out.path / variant.name / variant.file_name,
        copy=out.path / variant.copy_name,
        digests=digests,
        matches_published=matches_published,
    )
