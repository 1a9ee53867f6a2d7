"""The story of a conversion, from top to bottom: prepare, export, convert, finish.

One way, no loops. Each product is made in a work folder and gets its final name when everything is whole; the
checkpoint is only ever read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner import console
from runner.convert.export import GRAPH_NAME, Exported, ExportRequest, config_flags, export_argv, export_graph
from runner.convert.speedups import SPEEDUPS
from runner.convert.toco import TocoRequest, run_toco, toco_argv

if TYPE_CHECKING:
    from pathlib import Path

    from runner.checkpoint.files import CheckpointFiles
    from runner.engines.base import Session
    from runner.recipes.recipe import Recipe, Variant
    from runner.scripts.run import ScriptOptions, ScriptRun
    from runner.tflite.canonical import SettledFile


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user may choose about a conversion; the defaults are the recipe's."""

    score_threshold: float
    max_detections: int
    keep_pbtxt: bool = False
    check: bool = True
    speedups: tuple[str, ...] = SPEEDUPS

    @classmethod
    def of(cls, recipe: Recipe) -> Settings:
        """Return the settings with which the published files were made."""
        return cls(score_threshold=recipe.score_threshold, max_detections=recipe.max_detections)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One variant of one model, converted from one checkpoint. The work folder is its own."""

    recipe: Recipe
    variant: Variant
    checkpoint: CheckpointFiles
    settings: Settings
    options: ScriptOptions
    work_dir: Path

    @property
    def raw(self) -> Path:
        """TOCO's own product, before its options are put in order."""
        return self.work_dir / self.variant.raw_name

    @property
    def final(self) -> Path:
        """The product under the name the variant was published under."""
        return self.work_dir / self.variant.file_name


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """All that a conversion made, still in its work folder."""

    request: Request
    exported: Exported
    toco_run: ScriptRun
    settled: SettledFile


def convert(session: Session, request: Request) -> Conversion:
    """Turn a checkpoint into the ``.tflite`` file of a variant.

    Raises:
        ConfigError: the pipeline config cannot be converted this way.
        ScriptError: a script of the toolchain failed; its log and last lines are on the error.
        OutputMissingError: a script succeeded and wrote nothing usable.
        EngineError: the engine died in the middle.
    """
    exported = export_graph(session, _export_request(request))
    toco_run = run_toco(session, _toco_request(request, exported.graph))
    settled = finish(request)
    return Conversion(request=request, exported=exported, toco_run=toco_run, settled=settled)


def planned_commands(request: Request) -> tuple[tuple[str, ...], ...]:
    """Return the commands that ``convert`` runs, without running them; of our own step only the flags."""
    export_request = _export_request(request)
    toco_request = _toco_request(request, request.work_dir / GRAPH_NAME)
    return config_flags(export_request), export_argv(export_request), toco_argv(toco_request)


def finish(request: Request) -> SettledFile:
    """Choose the one order of TOCO's options that the final file has, and write that file."""
    from runner.tflite import canonical

    with console.step("settle the bytes", of=request.variant.name):
        settled = canonical.settle(request.raw, request.variant.published)
        request.final.write_bytes(settled.content)
    return settled


def _export_request(request: Request) -> ExportRequest:
    settings = request.settings
    return ExportRequest(
        pipeline_config=request.checkpoint.config,
        checkpoint_prefix=request.checkpoint.prefix,
        is_quantized=request.variant.is_quantized,
        score_threshold=settings.score_threshold,
        max_detections=settings.max_detections,
        use_regular_nms=True,
        keep_pbtxt=settings.keep_pbtxt,
        work_dir=request.work_dir,
        options=request.options,
        speedups=settings.speedups,
    )


def _toco_request(request: Request, graph: Path) -> TocoRequest:
    recipe, variant = request.recipe, request.variant
    return TocoRequest(
        graph=graph,
        output=request.raw,
        inference_type=variant.inference_type,
        input_array=recipe.input_array,
        input_shape=recipe.input_shape,
        output_arrays=recipe.output_arrays,
        mean_value=variant.mean_value,
        std_value=variant.std_value,
        options=request.options,
    )
