"""The conversion pipeline: edit the config, export, convert, normalize the key order.

All products are written to a work folder; `runner.deliver.run` moves them to their final names. The
checkpoint is only read.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner import console
from runner.convert.export import LOG_NAME as EXPORT_LOG_NAME
from runner.convert.export import check_fit, edit_config, run_export, show_edits
from runner.convert.plan import CONFIG_FILE, MODEL_DIR, OUT_DIR, TOOLCHAIN_DIR, at
from runner.convert.toco import run_toco
from runner.graph.template import fill_template

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.convert.plan import Commands, ConversionPlan
    from runner.engines.base import Session
    from runner.graph.template import Audit, Template
    from runner.scripts.run import ScriptOptions
    from runner.tflite.canonical import NormalizedFile


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """The real folders that replace the placeholders in plans. Each variant works in its own subfolder."""

    model_dir: Path
    out_dir: Path
    options: ScriptOptions

    def folder(self, plan: ConversionPlan) -> Path:
        """Return the work folder of the plan's variant, a subfolder with the variant's name."""
        return self.out_dir / plan.variant.name

    def options_for(self, plan: ConversionPlan) -> ScriptOptions:
        """Return the script options for a plan, with its own label and log folder."""
        name = plan.variant.name
        return replace(self.options, label=name, log_dir=self.options.log_dir / name)

    def commands(self, plan: ConversionPlan, session: Session) -> Commands:
        """Return the commands of a plan with real folders instead of placeholders."""
        folders = {
            MODEL_DIR: str(self.model_dir),
            OUT_DIR: str(self.out_dir if plan.products.folder else self.folder(plan)),
            TOOLCHAIN_DIR: str(session.toolchain_dir),
            CONFIG_FILE: str(plan.checkpoint.config.path),
        }
        planned = plan.commands
        return replace(
            planned,
            config=at(planned.config, folders),
            export=at(planned.export, folders),
            toco=at(planned.toco, folders),
        )


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The outcome of a conversion; its products are still in the work folder.

    ``logs`` are the logs of its scripts, which are products too. ``template`` is the graph template that was
    filled; None if the script exported the graph or the archive contains it. ``audit`` is the comparison of
    the template's graph with the script's graph; None if this checkpoint was not used for an audit.
    """

    plan: ConversionPlan
    folder: Path
    options: ScriptOptions
    config_report: Mapping[str, Any]
    logs: tuple[Path, ...]
    normalized: NormalizedFile
    template: Template | None = None
    audit: Audit | None = None

    @property
    def graph(self) -> Path:
        """The frozen graph."""
        return self.folder / self.plan.products.graph

    @property
    def raw(self) -> Path:
        """TOCO's output before its key order is normalized."""
        return self.folder / self.plan.products.raw

    @property
    def final(self) -> Path:
        """The normalized file."""
        return self.folder / self.plan.products.final


def convert(
    session: Session,
    plan: ConversionPlan,
    place: Workplace,
    template: Template | None = None,
    *,
    toco_session: Session | None = None,
) -> Conversion:
    """Turn a checkpoint into the ``.tflite`` file of a variant. A template, if given, replaces the export.

    ``toco_session`` is a session of the toolchain that runs TOCO; by default, ``session`` runs TOCO too.

    Raises:
        ConfigError: the pipeline config is invalid, or does not describe the variant.
        ScriptError: a toolchain script failed; the error contains the path of its log and its last lines.
        OutputMissingError: a script succeeded but wrote no usable output.
        EngineError: the engine stopped during the run.
    """
    folder, options, commands = place.folder(plan), place.options_for(plan), place.commands(plan, session)
    if template is None:
        report = edit_config(session, commands.config, options)
        export_logs = _export(session, plan, commands, folder, options)
    else:
        report = template.config_report
        export_logs = _fill(session, plan, template, folder, options)
    toco_run = run_toco(toco_session or session, commands.toco, folder / plan.products.raw, options)
    return Conversion(
        plan=plan,
        folder=folder,
        options=options,
        config_report=report,
        logs=(*export_logs, toco_run.script.log),
        normalized=finish(plan, folder),
        template=template,
    )


def _export(
    session: Session, plan: ConversionPlan, commands: Commands, folder: Path, options: ScriptOptions
) -> tuple[Path, ...]:
    """Make the frozen graph: export it, or copy the one in the archive; return the logs."""
    if plan.checkpoint.graph is not None:
        shutil.copyfile(plan.checkpoint.graph.path, folder / plan.products.graph)
        return ()
    if not plan.checkpoint.verdict.is_compared:
        config = plan.checkpoint.config.path
        prefix = plan.checkpoint.prefix
        check_fit(session, config=folder / plan.products.config, prefix=prefix, shown=config, options=options)
    keep_pbtxt = plan.products.graph_text is not None
    run = run_export(session, commands.export, folder, options, speedups=plan.speedups, keep_pbtxt=keep_pbtxt)
    return (run.script.log,)


def _fill(
    session: Session, plan: ConversionPlan, template: Template, folder: Path, options: ScriptOptions
) -> tuple[Path, ...]:
    """Make the frozen graph and the config from a template; return the logs."""
    shutil.copyfile(template.config, folder / plan.products.config)
    show_edits(template.config_report, options)
    graph, prefix = folder / plan.products.graph, plan.checkpoint.prefix
    return (fill_template(session, template, prefix, graph, options, log_name=EXPORT_LOG_NAME),)


def finish(plan: ConversionPlan, folder: Path) -> NormalizedFile:
    """Normalize the key order of TOCO's output and write the final file."""
    from runner.tflite import canonical

    with console.step("normalize the key order", of=plan.variant.name):
        normalized = canonical.normalize_keys(folder / plan.products.raw, plan.variant.published)
        (folder / plan.products.final).write_bytes(normalized.content)
    return normalized
