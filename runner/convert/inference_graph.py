"""Export the inference graph of an SSD checkpoint with ``export_inference_graph.py``.

The result is a graph for TensorFlow, with its own preprocessing and post-processing; ``convert/export.py``
makes the graph for TFLite. `runner.proof.rebuild` runs the same script to rebuild a published graph.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runner import console
from runner.checkpoint.compare import check_model, report_weights, require_fit
from runner.checkpoint.fetch import obtain_model_dir
from runner.checkpoint.files import CONFIG_NAME, find_checkpoint, locate_folder
from runner.checkpoint.index import verify_data
from runner.convert.export import check_fit, config_argv, edit_config, repair_flags
from runner.engines.base import Folders
from runner.errors import ConfigError
from runner.graph.canonical import canonical_graph
from runner.host.mounts import check_apart, link_targets, mountable, mountable_when_made
from runner.host.output_dir import OutputDir
from runner.recipes.settings import Settings
from runner.scripts.run import Script, require_output, run_step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.checkpoint.files import CheckpointFiles
    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import Recipe
    from runner.recipes.settings import Value
    from runner.scripts.run import ScriptOptions

FROZEN_NAME: Final = "frozen_inference_graph.pb"
SAVED_MODEL_NAME: Final = "saved_model/saved_model.pb"
LOG_NAME: Final = "export_inference_graph.log"
PRODUCTS: Final = (
    FROZEN_NAME,
    SAVED_MODEL_NAME,
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    "model.ckpt.meta",
    "checkpoint",
    CONFIG_NAME,
)
"""The files that the script writes; the frozen graph is the first."""


@dataclass(frozen=True, kw_only=True)
class InferenceGraphRequest:
    """A checkpoint to export, and the edits of its config.

    ``config_override`` is a text proto that the script merges into the edited config.
    """

    files: CheckpointFiles
    config_override: str = ""
    fields: Mapping[str, Value | str] = field(default_factory=dict)
    repair: tuple[str, ...] = ()


def inference_graph_script(
    session: Session,
    *,
    config: Path,
    prefix: Path,
    out_dir: Path,
    config_override: str,
    options: ScriptOptions,
    more: tuple[str, ...] = (),
) -> Script:
    """Return the step that runs ``export_inference_graph.py``; ``out_dir`` must be empty or missing.

    The step reports the command line of that script and the digest of the graph.
    """
    flags = {
        "--pipeline-config": str(config),
        "--checkpoint-prefix": str(prefix),
        "--config-override": config_override,
        "--output": str(out_dir),
    }
    return Script(
        name="meta_graph.py",
        argv=(
            str(session.toolchain_dir / "steps" / "meta_graph.py"),
            *(word for flag in flags.items() for word in flag),
            *more,
        ),
        log_name=LOG_NAME,
        options=options,
    )


def of_recipe(recipe: Recipe, name: str, model_dir: Path | None) -> InferenceGraphRequest:
    """Return the request to export a variant of a recipe.

    If ``model_dir`` is None, the published checkpoint is exported.

    A variant whose conversion starts from a frozen graph is exported from the checkpoint beside it.

    Raises:
        ConfigError: the recipe refuses the variant, or the checkpoint is missing or does not match it.
        IntegrityError: the checkpoint is damaged.
        DownloadError: the published checkpoint is not in the cache, and the download failed.
    """
    variant = recipe.variant(name)
    if variant.refused is not None:
        raise ConfigError(f"{recipe.name} {name} cannot be exported: {variant.refused}")
    folder = (model_dir or obtain_model_dir(recipe)).expanduser().resolve()
    folder = locate_folder(folder, recipe, variant)
    files = find_checkpoint(folder / CONFIG_NAME, folder / variant.checkpoint_prefix)
    verdict = check_model(files, variant)
    require_fit(verdict, files.prefix, variant)
    report_weights(verdict, files.prefix, variant)
    return InferenceGraphRequest(
        files=files,
        config_override=recipe.inference_graph_config_override,
        fields=variant.config_set,
        repair=repair_flags(variant),
    )


def of_own_model(config: Path, prefix: Path) -> InferenceGraphRequest:
    """Return the request to export a model without a recipe.

    Raises:
        ConfigError: a file is missing.
        IntegrityError: the checkpoint is damaged.
    """
    files = find_checkpoint(config.expanduser().resolve(), prefix.expanduser().resolve())
    verify_data(files.bundle)
    return InferenceGraphRequest(files=files)


def export_inference_graph(
    engine: Engine,
    request: InferenceGraphRequest,
    out_dir: Path,
    options: ScriptOptions,
    *,
    overwrite: bool,
) -> Path:
    """Export a checkpoint: write the files `PRODUCTS` and the log to ``out_dir``.

    Returns the path of the frozen graph.

    The attributes of the frozen graph's nodes are sorted, so that equal inputs give equal bytes.

    Raises:
        UsageError: the folders cannot be used, or an output file already exists.
        ConfigError: config and checkpoint do not match, or the config does not describe an SSD model.
        ScriptError, OutputMissingError, EngineError: the script failed or wrote no graph, or the
            engine stopped.
    """
    files = request.files
    model_dir = mountable(files.prefix.parent)
    check_apart(mountable_when_made(out_dir), model_dir)
    out = OutputDir.at(out_dir)
    out.check_replaceable([*PRODUCTS, LOG_NAME], ours=frozenset(), overwrite=overwrite)
    engine.prepare()
    with out.work_dir() as work_dir:
        folders = Folders(read_only=(model_dir, *link_targets(files.paths, model_dir)), writable=(work_dir,))
        with engine.open(folders, {}) as session:
            session.wait_until_ready()
            made = _export(session, request, work_dir, options)
        out.publish(made)
    return out.path / FROZEN_NAME


def _export(
    session: Session, request: InferenceGraphRequest, work_dir: Path, options: ScriptOptions
) -> dict[str, Path]:
    files, config, made = request.files, work_dir / CONFIG_NAME, work_dir / "made"
    edit = config_argv(
        toolchain_dir=str(session.toolchain_dir),
        source=str(files.config),
        target=str(config),
        settings=Settings(),
        is_quantized=None,
        fields=request.fields,
        repair=request.repair,
    )
    edit_config(session, edit, options)
    check_fit(session, config=config, prefix=files.prefix, shown=files.config, options=options)
    script = inference_graph_script(
        session,
        config=config,
        prefix=files.prefix,
        out_dir=made,
        config_override=request.config_override,
        options=options,
    )
    with console.step("export the inference graph", of=options.label):
        run_step(session, script)
    graph = require_output(made / FROZEN_NAME, script)
    graph.write_bytes(canonical_graph(graph.read_bytes()))
    shutil.copyfile(script.log, work_dir / LOG_NAME)
    return {
        **{name: require_output(made / name, script) for name in PRODUCTS},
        LOG_NAME: work_dir / LOG_NAME,
    }
