"""Freeze an SSD checkpoint into a graph that TOCO can read, with ``export_tflite_ssd_graph.py``."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runner import console
from runner.convert.speedups import speedups_env
from runner.errors import ConfigError
from runner.graph.canonical import canonical_graph
from runner.recipes.settings import as_text, config_edits, export_flags
from runner.scripts.run import Script, ScriptOptions, ScriptRun, require_output, run_script, run_step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.engines.base import Session
    from runner.recipes.recipe import Variant
    from runner.recipes.settings import Settings, Value

GRAPH_NAME: Final = "tflite_graph.pb"
GRAPH_TEXT_NAME: Final = "tflite_graph.pbtxt"
LOG_NAME: Final = "export.log"


def config_argv(
    *,
    toolchain_dir: str,
    source: str,
    target: str,
    settings: Settings,
    is_quantized: bool | None,
    fields: Mapping[str, Value | str] = MappingProxyType({}),
    repair: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Return the command that checks a pipeline config and writes an edited copy of it.

    ``is_quantized`` is checked against the config; None accepts both kinds. ``fields`` are set in addition to
    the fields that the settings define; ``repair`` are the flags of `repair_flags`.
    """
    values = {**fields, **config_edits(settings)}
    edits = (f"{field}={as_text(value)}" for field, value in values.items())
    kind = () if is_quantized is None else ("--quantized", as_text(is_quantized))
    return (
        f"{toolchain_dir}/steps/pipeline_config.py",
        *("--input", source, "--output", target, "--max-detections", str(settings.max_detections), *kind),
        *(word for edit in edits for word in ("--set", edit)),
        *repair,
    )


def repair_flags(variant: Variant) -> tuple[str, ...]:
    """Return the flags that make the config step remove fields, even fields that it cannot parse."""
    removals = (word for field in variant.config_remove for word in ("--remove", field))
    return (*removals, *(("--drop-unknown-fields",) if variant.drop_unknown_fields else ()))


def export_argv(
    *, config: str, prefix: str, out_dir: str, settings: Settings, more_flags: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return MLCommons' published export command line, with the given paths, settings and further flags."""
    return (
        "export_tflite_ssd_graph.py",
        f"--pipeline_config_path={config}",
        f"--trained_checkpoint_prefix={prefix}",
        f"--output_directory={out_dir}",
        "--add_postprocessing_op=true",
        *export_flags(settings),
        *more_flags,
    )


def edit_config(session: Session, argv: tuple[str, ...], options: ScriptOptions) -> Mapping[str, Any]:
    """Write an edited copy of the pipeline config; return the changes and the facts that were read.

    Raises:
        ConfigError: the config is invalid, or does not describe the requested kind of model.
    """
    script = Script(name="pipeline_config.py", argv=argv, log_name="pipeline_config.log", options=options)
    report = run_step(session, script)
    show_edits(report, options)
    return report


def show_edits(report: Mapping[str, Any], options: ScriptOptions) -> None:
    """Print the edits that were made to a pipeline config."""
    for change in report["changes"]:
        console.note(
            f"   {console.label(options.label)}{change['field']}: {change['from']} -> {change['to']}"
        )


def run_export(
    session: Session,
    argv: tuple[str, ...],
    out_dir: Path,
    options: ScriptOptions,
    *,
    speedups: tuple[str, ...],
    keep_pbtxt: bool,
) -> ScriptRun:
    """Freeze the checkpoint into ``tflite_graph.pb`` in ``out_dir``.

    Input tensor: (1, height, width, 3) float32, NHWC, scaled to [-1, 1]. The script writes the attributes of
    the nodes in random order; this function sorts them, so that equal inputs give equal bytes.

    Raises:
        ScriptError: the script failed; the error contains the path of its log and its last lines.
        OutputMissingError: the script succeeded but wrote no graph.
        IntegrityError: the script wrote a file that is not a graph.
        EngineError: the engine stopped during the run.
    """
    script = Script(
        name="export_tflite_ssd_graph.py",
        argv=argv,
        log_name=LOG_NAME,
        options=options,
        env=speedups_env(speedups),
    )
    with console.step("export the frozen graph", of=options.label):
        result = run_script(session, script)
    graph = require_output(out_dir / GRAPH_NAME, script)
    graph.write_bytes(canonical_graph(graph.read_bytes()))
    if not keep_pbtxt:
        (out_dir / GRAPH_TEXT_NAME).unlink(missing_ok=True)
    return ScriptRun(script=script, result=result)


def check_fit(session: Session, *, config: Path, prefix: Path, shown: Path, options: ScriptOptions) -> None:
    """Check that the checkpoint has the variables of the model that an edited config describes.

    ``shown`` is the user's own config file, which error messages name instead of the edited copy.

    Raises:
        ConfigError: variables do not match; the message lists them.
    """
    step = str(session.toolchain_dir / "steps" / "check_checkpoint.py")
    script = Script(
        name="check_checkpoint.py",
        argv=(step, f"--pipeline-config={config}", f"--checkpoint-prefix={prefix}"),
        log_name="check_checkpoint.log",
        options=options,
    )
    with console.step("compare config and checkpoint", of=options.label):
        try:
            run_step(session, script)
        except ConfigError as problem:
            message = problem.message.replace(str(config), str(shown))
            raise ConfigError(message, tip=problem.tip) from problem
