"""Freeze an SSD checkpoint into a graph TOCO can read, with the real ``export_tflite_ssd_graph.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runner import console
from runner.convert.speedups import NO_GRAPH_TEXT, SPEEDUPS, speedups_env
from runner.errors import ConfigError
from runner.scripts.run import Script, ScriptOptions, ScriptRun, require_output, run_script, run_step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.engines.base import Session

CONFIG_NAME: Final = "pipeline.config"
GRAPH_NAME: Final = "tflite_graph.pb"
GRAPH_TEXT_NAME: Final = "tflite_graph.pbtxt"
LOG_NAME: Final = "export.log"


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """One checkpoint to freeze, in a work folder of its own.

    ``is_quantized`` says what the config has to be (None: either one); ``score_threshold`` None leaves the
    config's. ``must_fit`` has config and checkpoint compared first, for models that no recipe knows.
    """

    pipeline_config: Path
    checkpoint_prefix: Path
    is_quantized: bool | None
    score_threshold: float | None
    max_detections: int
    use_regular_nms: bool
    keep_pbtxt: bool
    work_dir: Path
    options: ScriptOptions
    speedups: tuple[str, ...] = SPEEDUPS
    must_fit: bool = False


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export made: the edited copy of the config with what was changed in it, and the graph."""

    config: Path
    config_argv: tuple[str, ...]
    config_report: Mapping[str, Any]
    graph: Path
    graph_text: Path | None
    run: ScriptRun
    speedups: tuple[str, ...] = ()


def export_graph(session: Session, request: ExportRequest) -> Exported:
    """Check and edit the pipeline config, then freeze the checkpoint into ``tflite_graph.pb``.

    Input tensor: (1, height, width, 3) float32, NHWC, scaled to [-1, 1].

    Raises:
        ConfigError: the pipeline config cannot be exported this way, or the checkpoint is of another model.
        ScriptError: the script failed; its log and last lines are on the error.
        OutputMissingError: the script succeeded and wrote no graph.
        EngineError: the engine died in the middle.
    """
    report = edit_config(session, request)
    if request.must_fit:
        check_fit(session, request)
    speedups = usable_speedups(request)
    script = Script(
        name="export_tflite_ssd_graph.py",
        argv=export_argv(request),
        log_name=LOG_NAME,
        options=request.options,
        env=speedups_env(speedups),
    )
    with console.step("export the frozen graph", of=request.options.label):
        result = run_script(session, script)
    graph = require_output(request.work_dir / GRAPH_NAME, script)
    graph_text = request.work_dir / GRAPH_TEXT_NAME
    if not request.keep_pbtxt:
        graph_text.unlink(missing_ok=True)
    return Exported(
        config=request.work_dir / CONFIG_NAME,
        config_argv=config_argv(session, request),
        config_report=report,
        graph=graph,
        graph_text=graph_text if request.keep_pbtxt else None,
        run=ScriptRun(script=script, result=result),
        speedups=speedups,
    )


def usable_speedups(request: ExportRequest) -> tuple[str, ...]:
    """Return the speed-ups that leave all that the request wants."""
    return tuple(name for name in request.speedups if not (request.keep_pbtxt and name == NO_GRAPH_TEXT))


def edit_config(session: Session, request: ExportRequest) -> Mapping[str, Any]:
    """Write an edited copy of the pipeline config and say what was changed in it.

    Raises:
        ConfigError: the config cannot be exported this way.
    """
    script = Script(
        name="pipeline_config.py",
        argv=config_argv(session, request),
        log_name="pipeline_config.log",
        options=request.options,
    )
    report = run_step(session, script)
    for change in report["changes"]:
        console.note(f"   {script.prefix}{change['field']}: {change['from']} -> {change['to']}")
    return report


def check_fit(session: Session, request: ExportRequest) -> None:
    """See that the checkpoint holds the variables of the model that the edited config describes.

    Raises:
        ConfigError: it does not; the variables are named.
    """
    config = request.work_dir / CONFIG_NAME
    step = str(session.toolchain_dir / "steps" / "check_checkpoint.py")
    script = Script(
        name="check_checkpoint.py",
        argv=(step, f"--pipeline-config={config}", f"--checkpoint-prefix={request.checkpoint_prefix}"),
        log_name="check_checkpoint.log",
        options=request.options,
    )
    with console.step("compare config and checkpoint", of=request.options.label):
        try:
            run_step(session, script)
        except ConfigError as problem:
            # The user has never seen the edited copy.
            message = problem.message.replace(str(config), str(request.pipeline_config))
            raise ConfigError(message, tip=problem.tip) from problem


def config_argv(session: Session, request: ExportRequest) -> tuple[str, ...]:
    """Return the command that edits the config with the detection API's own protobuf."""
    return (str(session.toolchain_dir / "steps" / "pipeline_config.py"), *config_flags(request))


def config_flags(request: ExportRequest) -> tuple[str, ...]:
    """Return what that command is told: from where to where, and what to change."""
    argv = ["--input", str(request.pipeline_config), "--output", str(request.work_dir / CONFIG_NAME)]
    argv += ["--max-detections", str(request.max_detections)]
    if request.is_quantized is not None:
        argv += ["--quantized", "true" if request.is_quantized else "false"]
    if request.score_threshold is not None:
        argv += ["--score-threshold", repr(request.score_threshold)]
    return tuple(argv)


def export_argv(request: ExportRequest) -> tuple[str, ...]:
    """Return the published command line, with this request's paths and numbers."""
    return (
        "export_tflite_ssd_graph.py",
        f"--pipeline_config_path={request.work_dir / CONFIG_NAME}",
        f"--trained_checkpoint_prefix={request.checkpoint_prefix}",
        f"--output_directory={request.work_dir}",
        "--add_postprocessing_op=true",
        f"--use_regular_nms={'true' if request.use_regular_nms else 'false'}",
        f"--max_detections={request.max_detections}",
    )
