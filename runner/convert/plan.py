"""Plan one conversion: its inputs with their digests, the names of its products, its commands.

Commands use placeholders for folders that depend on the machine or the session; `at` replaces them. The
provenance records the commands with the placeholders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from runner.checkpoint.compare import check_model
from runner.checkpoint.fetch import Origin, origin_of
from runner.checkpoint.files import CONFIG_NAME, CheckpointFiles, FrozenGraphFiles, find_checkpoint
from runner.convert.export import GRAPH_NAME, GRAPH_TEXT_NAME, config_argv, export_argv, repair_flags
from runner.convert.export import LOG_NAME as EXPORT_LOG_NAME
from runner.convert.speedups import usable_speedups
from runner.convert.toco import LOG_NAME as TOCO_LOG_NAME
from runner.convert.toco import toco_argv
from runner.recipes.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.checkpoint.compare import CheckpointVerdict
    from runner.checkpoint.files import ModelFiles
    from runner.convert.model_facts import ModelFacts
    from runner.recipes.recipe import Recipe, Variant

    Sha256Of = Callable[[Path], str]

MODEL_DIR: Final = "${TF_MODEL_DIR}"
OUT_DIR: Final = "${TFLITE_MODEL_DIR}"
TOOLCHAIN_DIR: Final = "${TOOLCHAIN_DIR}"
"""Placeholders in commands for the model directory, the output directory and the toolchain's folder."""
CONFIG_FILE: Final = "${PIPELINE_CONFIG}"
"""Placeholder for a pipeline config that is not in the model directory."""
PROVENANCE_NAME: Final = "provenance.json"


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A checkpoint file: its path, its name relative to the model directory, and its sha256.

    The name of a config outside the model directory is a placeholder.
    """

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CheckpointInputs:
    """A checkpoint with its pipeline config, and the result of its comparison with the published one.

    ``graph`` is set if the conversion starts from a frozen graph; then there is no index and no data.
    """

    prefix: Path
    config: InputFile
    index: InputFile | None
    data: tuple[InputFile, ...]
    graph: InputFile | None = None
    verdict: CheckpointVerdict
    origin: Origin | None

    @property
    def files(self) -> tuple[InputFile, ...]:
        """All files of the checkpoint."""
        start = (self.graph, self.index)
        return (self.config, *(file for file in start if file is not None), *self.data)

    def as_it_is_now(self, variant: Variant, sha256_of: Sha256Of) -> CheckpointInputs:
        """Return this checkpoint with the current digests of its files and a new verdict.

        Raises:
            IntegrityError: the checkpoint has been damaged since this object was created.
        """
        now = {file: replace(file, sha256=sha256_of(file.path)) for file in self.files}
        if all(before == after for before, after in now.items()):
            return self
        files: ModelFiles
        if self.graph is not None:
            files = FrozenGraphFiles(config=self.config.path, graph=self.graph.path)
        else:
            files = find_checkpoint(self.config.path, self.prefix)
        return replace(
            self,
            config=now[self.config],
            index=None if self.index is None else now[self.index],
            data=tuple(now[file] for file in self.data),
            graph=None if self.graph is None else now[self.graph],
            verdict=check_model(files, variant),
        )


@dataclass(frozen=True, kw_only=True)
class ProductNames:
    """The file names of a conversion's products in ``folder``, which is relative to the output directory.

    ``copy``, if there is one, is written directly to the output directory. There is no ``export_log`` if
    nothing is exported.
    """

    folder: str
    config: str = CONFIG_NAME
    graph: str = GRAPH_NAME
    graph_text: str | None
    raw: str
    final: str
    export_log: str | None = EXPORT_LOG_NAME
    toco_log: str = TOCO_LOG_NAME
    provenance: str = PROVENANCE_NAME
    copy: str | None

    @property
    def in_folder(self) -> tuple[str, ...]:
        """The file names in the variant's folder, with the provenance last."""
        names = (
            self.config,
            self.graph,
            self.raw,
            self.final,
            self.export_log,
            self.toco_log,
            self.graph_text,
        )
        return (*(name for name in names if name is not None), self.provenance)


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The commands of a conversion, in the order in which they run; ``export`` is empty without an export."""

    config: tuple[str, ...]
    export: tuple[str, ...]
    toco: tuple[str, ...]

    @property
    def all(self) -> tuple[tuple[str, ...], ...]:
        """The commands as one tuple."""
        return tuple(filter(None, (self.config, self.export, self.toco)))


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """The plan for converting one checkpoint to one variant. It is plain data and can be pickled."""

    recipe: str
    recipe_digest: str
    variant: Variant
    settings: Settings
    checkpoint: CheckpointInputs
    products: ProductNames
    commands: Commands
    speedups: tuple[str, ...]


def plan_conversion(
    recipe: Recipe,
    variant: Variant,
    checkpoint: CheckpointInputs,
    facts: ModelFacts,
    settings: Settings,
    *,
    speedups: tuple[str, ...],
    is_flat: bool = False,
) -> ConversionPlan:
    """Plan a conversion: everything that is known before the toolchain runs.

    With ``is_flat``, the products are written directly to the output directory, without a further copy.
    """
    starts_from_graph = checkpoint.graph is not None
    products = ProductNames(
        # A model without a recipe has only one variant, which needs no separate folder.
        folder=variant.name if recipe.name and not is_flat else "",
        graph_text=GRAPH_TEXT_NAME if settings.keep_pbtxt and not starts_from_graph else None,
        export_log=None if starts_from_graph else EXPORT_LOG_NAME,
        raw=variant.raw_name,
        final=variant.file_name,
        copy=None if is_flat else variant.copy_name,
    )
    folder = below(OUT_DIR, products.folder)
    commands = Commands(
        config=config_argv(
            toolchain_dir=TOOLCHAIN_DIR,
            source=_in_model_dir(checkpoint.config.name),
            target=f"{folder}/{products.config}",
            # In a graph from the archive, the settings are fixed; an edited config would not describe it.
            settings=Settings() if starts_from_graph else settings,
            is_quantized=facts.is_quantized,
            fields=variant.config_set,
            repair=repair_flags(variant),
        ),
        export=()
        if starts_from_graph
        else export_argv(
            config=f"{folder}/{products.config}",
            prefix=f"{below(MODEL_DIR, variant.folder)}/{checkpoint.prefix.name}",
            out_dir=folder,
            settings=settings,
            more_flags=variant.export_flags,
        ),
        toco=toco_argv(
            graph=f"{folder}/{products.graph}",
            output=f"{folder}/{products.raw}",
            inference_type=variant.inference_type,
            input_array=variant.input_array,
            input_shape=facts.input_shape,
            output_arrays=variant.output_arrays,
            mean_value=variant.mean_value,
            std_value=variant.std_value,
            more_flags=variant.all_toco_flags,
        ),
    )
    return ConversionPlan(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        variant=variant,
        settings=settings,
        checkpoint=checkpoint,
        products=products,
        commands=commands,
        speedups=usable_speedups(speedups, keep_pbtxt=settings.keep_pbtxt),
    )


def checkpoint_inputs(
    files: ModelFiles, model_dir: Path, variant: Variant, sha256_of: Sha256Of
) -> CheckpointInputs:
    """Compare a checkpoint with the published one and compute the digests of its files.

    Raises:
        IntegrityError: the checkpoint is damaged.
    """

    def input_file(path: Path) -> InputFile:
        is_there = path.parent == files.prefix.parent
        name = below(variant.folder, path.name) if is_there else CONFIG_FILE
        return InputFile(path=path, name=name, sha256=sha256_of(path))

    return CheckpointInputs(
        prefix=files.prefix,
        config=input_file(files.config),
        index=input_file(files.index) if isinstance(files, CheckpointFiles) else None,
        data=tuple(map(input_file, files.shards)) if isinstance(files, CheckpointFiles) else (),
        graph=input_file(files.graph) if isinstance(files, FrozenGraphFiles) else None,
        verdict=check_model(files, variant),
        origin=origin_of(model_dir),
    )


def _in_model_dir(name: str) -> str:
    return name if name == CONFIG_FILE else f"{MODEL_DIR}/{name}"


def below(folder: str, name: str) -> str:
    """Join a folder and a name, either of which may be empty."""
    return "/".join(filter(None, (folder, name)))


def at(argv: tuple[str, ...], folders: Mapping[str, str]) -> tuple[str, ...]:
    """Return a command with its placeholders replaced by real folders."""
    for placeholder, folder in folders.items():
        argv = tuple(word.replace(placeholder, folder) for word in argv)
    return argv
