"""Make checkpoints with random weights, in the layout of the zoo's archives.

The stand-in for a recipe has the variables and the quantization ranges of the published checkpoint. A
synthetic checkpoint is made from a config alone and has the variables of the model that the config describes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from runner import console
from runner.checkpoint.files import CONFIG_NAME
from runner.convert.export import export_argv, run_export
from runner.convert.speedups import SPEEDUPS
from runner.engines.base import Folders
from runner.errors import ConfigError
from runner.host.cache_dir import cache_dir, exclusive, translate_disk_errors
from runner.recipes.settings import Nms, Settings
from runner.scripts.parallel import run_together
from runner.scripts.run import Script, run_step

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import Recipe
    from runner.scripts.run import ScriptOptions


README_NAME: Final = "README.txt"
README_TITLE: Final = b"A STAND-IN CHECKPOINT"
"""The start of the README that docker/steps/stand_in.py writes into the folder of each variant."""


def is_stand_in(folder: Path) -> bool:
    """Return whether a folder contains a stand-in checkpoint, with random weights."""
    readme = folder / README_NAME
    return readme.is_file() and readme.read_bytes().startswith(README_TITLE)


def make_stand_in(engine: Engine, recipe: Recipe, *, seed: int, options: ScriptOptions) -> Path:
    """Make a stand-in, or take it from the cache, and return its model directory.

    Raises:
        EngineError, BuildError: the toolchain is not available.
        ScriptError: the step that makes the stand-in failed.
    """
    toolchain = engine.prepare()
    model_dir = cache_dir() / "stand-in" / f"{recipe.name}-{seed}-{toolchain.digest[:16]}"
    with exclusive(model_dir):
        missing = [name for name, it in recipe.variants.items() if not (model_dir / it.folder).is_dir()]
        if missing:
            with translate_disk_errors(model_dir):
                model_dir.mkdir(parents=True, exist_ok=True)
            with console.step(f"make the stand-in checkpoint in {model_dir}"):
                write_stand_in(engine, recipe, model_dir, variants=missing, seed=seed, options=options)
    return model_dir


def write_stand_in(
    engine: Engine,
    recipe: Recipe,
    model_dir: Path,
    *,
    variants: Iterable[str],
    seed: int,
    options: ScriptOptions,
) -> None:
    """Make the stand-ins for some variants in an empty folder.

    Raises:
        ConfigError: the recipe has no table of the published variables.
        EngineError: the toolchain is not available, or it stopped.
        ScriptError: the step that makes the stand-in failed.
    """
    data_dir = _require_tables(recipe, variants)
    folders = Folders(read_only=(data_dir,), writable=(model_dir,))
    with engine.open(folders, {}) as session:

        def write_one(name: str) -> None:
            argv = [str(session.toolchain_dir / "steps" / "stand_in.py")]
            argv += ["--recipe-dir", str(data_dir), "--variant", name]
            argv += ["--output", str(model_dir), "--seed", str(seed)]
            script = Script(
                name="stand_in.py",
                argv=tuple(argv),
                log_name=f"stand_in-{name}.log",
                options=replace(options, label=name),
            )
            with console.step("make the checkpoint", of=name):
                run_step(session, script)

        run_together(session, write_one, variants, memory_mib=options.memory_mib)


def _require_tables(recipe: Recipe, variants: Iterable[str]) -> Path:
    """Return the recipe's folder, if it has the table of variables that a stand-in is made from."""
    # stand_in.py reads the table from the folder NAME of the recipe, and writes to NAME in --output.
    without = [
        name
        for name in variants
        if recipe.variants[name].tensor_table is None or recipe.variants[name].folder != name
    ]
    if recipe.data_dir is None or without:
        raise ConfigError(
            f"no stand-in can be made for {recipe.name} {', '.join(without)}: a stand-in needs the table "
            "NAME/tensors.tsv of a variant whose folder has the name of the variant",
            tip="name a checkpoint with --model-dir DIR, or run `demo` without --recipe",
        )
    return recipe.data_dir


@dataclass(frozen=True, kw_only=True)
class SyntheticArchive:
    """An unpacked archive to make from a pipeline config: config, checkpoint and, if requested, graph.

    ``folder`` is the folder for the config: the archive's top folder, or a variant's folder in it.
    """

    pipeline_config: Path
    folder: Path
    prefix_name: str
    seed: int = 0
    ships_graph: bool = False


def write_synthetic(session: Session, archive: SyntheticArchive, options: ScriptOptions) -> Path:
    """Make the files of an archive and return the prefix of its checkpoint.

    The session must be able to read the config and to write to the parent of ``archive.folder``.

    Raises:
        ConfigError: the config does not describe an SSD model, or the folder contains something else.
        ScriptError: the step or the export failed.
        EngineError: the engine stopped during the run.
    """
    argv = [str(session.toolchain_dir / "steps" / "stand_in.py")]
    argv += ["--pipeline-config", str(archive.pipeline_config), "--output", str(archive.folder)]
    argv += ["--prefix-name", archive.prefix_name, "--seed", str(archive.seed)]
    script = Script(name="stand_in.py", argv=tuple(argv), log_name="stand_in.log", options=options)
    with console.step("make the checkpoint", of=options.label):
        run_step(session, script)
    prefix = archive.folder / archive.prefix_name
    if archive.ships_graph:
        _write_graph(session, archive, prefix, options)
    return prefix


def _write_graph(session: Session, archive: SyntheticArchive, prefix: Path, options: ScriptOptions) -> None:
    """Write ``tflite_graph.pb`` beside the checkpoint, exported with the export script's defaults."""
    argv = export_argv(
        config=str(archive.folder / CONFIG_NAME),
        prefix=str(prefix),
        out_dir=str(archive.folder),
        settings=Settings(nms=Nms.FAST),
    )
    run_export(session, argv, archive.folder, options, speedups=SPEEDUPS, keep_pbtxt=False)
