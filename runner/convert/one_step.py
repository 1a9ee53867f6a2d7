"""Run only the export, on any SSD checkpoint, or only TOCO, on any frozen graph."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.checkpoint.compare import require_no_ranges
from runner.checkpoint.files import CONFIG_NAME, find_checkpoint
from runner.checkpoint.index import verify_data
from runner.convert.export import (
    GRAPH_NAME,
    GRAPH_TEXT_NAME,
    LOG_NAME,
    check_fit,
    config_argv,
    edit_config,
    export_argv,
    run_export,
)
from runner.convert.speedups import SPEEDUPS, speedups_env, usable_speedups
from runner.convert.toco import run_toco, toco_argv
from runner.download.file_kind import Content, read_head, recognise
from runner.engines.base import Folders
from runner.errors import UsageError
from runner.host.mounts import check_apart, is_system_folder, link_targets, mountable, mountable_when_made
from runner.host.output_dir import OutputDir
from runner.tflite import canonical

if TYPE_CHECKING:
    from pathlib import Path

    from runner.checkpoint.index import Bundle
    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import InferenceType
    from runner.recipes.settings import Settings
    from runner.scripts.run import ScriptOptions, ScriptRun


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """An SSD checkpoint to freeze; ``more_flags`` are further flags of the export script."""

    pipeline_config: Path
    checkpoint_prefix: Path
    settings: Settings
    options: ScriptOptions
    more_flags: tuple[str, ...] = ()
    speedups: tuple[str, ...] = SPEEDUPS
    ignore_quantization: bool = False
    """If the config has no graph_rewriter, export a quantization-aware checkpoint as a float model."""


@dataclass(frozen=True, kw_only=True)
class TocoRequest:
    """A frozen graph to convert; the other fields are arguments of `toco_argv`."""

    graph: Path
    output: Path
    inference_type: InferenceType
    input_array: str
    input_shape: tuple[int, ...] | None
    output_arrays: tuple[str, ...]
    mean_value: float | None
    std_value: float | None
    options: ScriptOptions
    more_flags: tuple[str, ...] = ()


def export_alone(engine: Engine, request: ExportRequest, out_dir: Path, *, overwrite: bool) -> Path:
    """Freeze a checkpoint into ``OUT/tflite_graph.pb``.

    Raises:
        UsageError: the folders cannot be used, or an output file already exists.
        ConfigError: the config or the checkpoint is missing, or they do not match; for example, the
            checkpoint has quantization ranges, but the config has no ``graph_rewriter`` to use them.
        IntegrityError: the checkpoint is damaged.
        ScriptError, OutputMissingError, EngineError: as `run_export`.
    """
    files = find_checkpoint(request.pipeline_config, request.checkpoint_prefix)
    verify_data(files.bundle)
    model_dir = mountable(files.prefix.parent)
    check_apart(mountable_when_made(out_dir), model_dir)
    # If the config is in another folder, mount only the file: the folder may be a home folder or contain the
    # output.
    read_only = (model_dir, *link_targets(files.paths, model_dir))
    out = OutputDir.at(out_dir)
    names = [CONFIG_NAME, GRAPH_NAME, LOG_NAME, *([GRAPH_TEXT_NAME] if request.settings.keep_pbtxt else [])]
    out.check_replaceable(names, ours=frozenset(), overwrite=overwrite)
    engine.prepare()
    with out.work_dir() as work_dir:
        folders = Folders(read_only=read_only, writable=(work_dir,))
        with engine.open(folders, speedups_env(request.speedups)) as session:
            session.wait_until_ready()
            run = _export(session, request, files.bundle, work_dir)
        shutil.copyfile(run.script.log, work_dir / LOG_NAME)
        out.publish({name: work_dir / name for name in names})
    return out.path / GRAPH_NAME


def _export(session: Session, request: ExportRequest, bundle: Bundle, work_dir: Path) -> ScriptRun:
    settings, config, prefix = request.settings, work_dir / CONFIG_NAME, request.checkpoint_prefix
    edit = config_argv(
        toolchain_dir=str(session.toolchain_dir),
        source=str(request.pipeline_config),
        target=str(config),
        settings=settings,
        is_quantized=None,
    )
    report = edit_config(session, edit, request.options)
    if not (report["is_quantized"] or request.ignore_quantization):
        require_no_ranges(
            bundle.tensors,
            prefix,
            f"{request.pipeline_config} has no graph_rewriter",
            tip="use the config that belongs to the checkpoint, or export it as float: --ignore-quantization",
        )
    check_fit(session, config=config, prefix=prefix, shown=request.pipeline_config, options=request.options)
    argv = export_argv(
        config=str(config),
        prefix=str(prefix),
        out_dir=str(work_dir),
        settings=settings,
        more_flags=request.more_flags,
    )
    return run_export(
        session,
        argv,
        work_dir,
        request.options,
        speedups=usable_speedups(request.speedups, keep_pbtxt=settings.keep_pbtxt),
        keep_pbtxt=settings.keep_pbtxt,
    )


def toco_alone(engine: Engine, request: TocoRequest, *, is_raw: bool, overwrite: bool) -> Path:
    """Convert a frozen graph into ``request.output``, in the fixed key order or exactly as TOCO wrote it.

    Raises:
        UsageError: the folders cannot be used, or the output file already exists.
        ScriptError, OutputMissingError, EngineError: as `run_toco`.
    """
    _check_files(request.graph, request.output)
    graph = request.graph.expanduser().resolve()
    out, name = OutputDir.at(request.output.parent), request.output.name
    out.check_replaceable([name], ours=frozenset(), overwrite=overwrite)
    engine.prepare()
    with out.work_dir() as work_dir:
        raw = work_dir / "raw.tflite"
        argv = toco_argv(
            graph=str(graph),
            output=str(raw),
            inference_type=request.inference_type,
            input_array=request.input_array,
            input_shape=request.input_shape,
            output_arrays=request.output_arrays,
            mean_value=request.mean_value,
            std_value=request.std_value,
            more_flags=request.more_flags,
        )
        with engine.open(Folders(read_only=(graph,), writable=(work_dir,)), {}) as session:
            session.wait_until_ready()
            run_toco(session, argv, raw, request.options)
        product = raw
        if not is_raw:
            product = work_dir / "final.tflite"
            product.write_bytes(canonical.normalize_keys(raw, None).content)
        out.publish({name: product})
    return out.path / name


def _check_files(graph: Path, output: Path) -> None:
    """Check the paths of the frozen graph and of the ``.tflite`` to write.

    Raises:
        UsageError: the graph is missing, a folder or a ``.tflite``.
        UsageError: the output is a folder or in a system folder.
    """
    if not graph.is_file():
        message = f"{graph} is a folder" if graph.is_dir() else f"there is no frozen graph {graph}"
        raise UsageError(message, tip="name a frozen graph; `export` makes one from a checkpoint")
    if recognise(read_head(graph)) is Content.TFLITE:
        raise UsageError(
            f"{graph} is a .tflite file already",
            tip="it needs no conversion; `inspect` describes it, `normalize` sorts its detection options",
        )
    if is_system_folder(output.parent.resolve()):
        raise UsageError(
            f"--out {output} is in a system folder", tip="choose a folder of your own, such as build/"
        )
    if output.is_dir():
        raise UsageError(
            f"--out {output} is a folder", tip=f"name the file to write: --out {output / 'model.tflite'}"
        )
