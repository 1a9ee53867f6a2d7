"""Plan one conversion: its inputs with digests, the names of its products, its commands.

Commands use placeholders for folders that depend on the machine or the session; `at` replaces them. The
provenance records the commands with the placeholders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from runner.checkpoint.compare import check_checkpoint
from runner.checkpoint.fetch import Origin, origin_of
from runner.checkpoint.files import CONFIG_NAME
from runner.checkpoint.index import read_index
from runner.convert.export import GRAPH_NAME, GRAPH_TEXT_NAME, config_argv, export_argv
from runner.convert.export import LOG_NAME as EXPORT_LOG_NAME
from runner.convert.speedups import usable_speedups
from runner.convert.toco import LOG_NAME as TOCO_LOG_NAME
from runner.convert.toco import toco_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.checkpoint.compare import CheckpointVerdict
    from runner.checkpoint.files import CheckpointFiles
    from runner.convert.model_facts import ModelFacts
    from runner.recipes.recipe import Recipe, Variant
    from runner.recipes.settings import Settings

    Sha256Of = Callable[[Path], str]

MODEL_DIR: Final = "${TF_MODEL_DIR}"
OUT_DIR: Final = "${TFLITE_MODEL_DIR}"
TOOLCHAIN_DIR: Final = "${TOOLCHAIN_DIR}"
"""Placeholders in commands for the model directory, the output directory and the toolchain's folder."""
PROVENANCE_NAME: Final = "provenance.json"


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A checkpoint file: its path, its name relative to the model directory, its sha256."""

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CheckpointInputs:
    """A checkpoint with its pipeline config, and the result of its comparison with the published one."""

    prefix: Path
    config: InputFile
    index: InputFile
    data: tuple[InputFile, ...]
    verdict: CheckpointVerdict
    origin: Origin | None

    @property
    def files(self) -> tuple[InputFile, ...]:
        """All files of the checkpoint."""
        return (self.config, self.index, *self.data)

    def as_it_is_now(self, variant: Variant, sha256_of: Sha256Of) -> CheckpointInputs:
        """Return this checkpoint with the current digests of its files and the resulting verdict.

        Raises:
            IntegrityError: the checkpoint has been damaged since this object was made.
        """
        now = [replace(file, sha256=sha256_of(file.path)) for file in self.files]
        if tuple(now) == self.files:
            return self
        config, index, *data = now
        verdict = check_checkpoint(read_index(self.prefix), variant)
        return replace(self, config=config, index=index, data=tuple(data), verdict=verdict)


@dataclass(frozen=True, kw_only=True)
class ProductNames:
    """The file names of a conversion's products in the folder of its variant; ``copy`` is one level above."""

    config: str = CONFIG_NAME
    graph: str = GRAPH_NAME
    graph_text: str | None
    raw: str
    final: str
    export_log: str = EXPORT_LOG_NAME
    toco_log: str = TOCO_LOG_NAME
    provenance: str = PROVENANCE_NAME
    copy: str

    @property
    def in_folder(self) -> tuple[str, ...]:
        """The file names in the variant's folder, the provenance last."""
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
    """The commands of a conversion, in the order in which they run."""

    config: tuple[str, ...]
    export: tuple[str, ...]
    toco: tuple[str, ...]

    @property
    def all(self) -> tuple[tuple[str, ...], ...]:
        """The three commands as one tuple."""
        return (self.config, self.export, self.toco)


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """The plan of converting one variant from one checkpoint. It is plain data and can be pickled."""

    recipe: str
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
) -> ConversionPlan:
    """Plan a conversion: everything that is known before the toolchain runs."""
    products = ProductNames(
        graph_text=GRAPH_TEXT_NAME if settings.keep_pbtxt else None,
        raw=variant.raw_name,
        final=variant.file_name,
        copy=variant.copy_name,
    )
    folder = f"{OUT_DIR}/{variant.name}"
    commands = Commands(
        config=config_argv(
            toolchain_dir=TOOLCHAIN_DIR,
            source=f"{MODEL_DIR}/{checkpoint.config.name}",
            target=f"{folder}/{products.config}",
            settings=settings,
            is_quantized=facts.is_quantized,
        ),
        export=export_argv(
            config=f"{folder}/{products.config}",
            prefix=f"{MODEL_DIR}/{variant.name}/{checkpoint.prefix.name}",
            out_dir=folder,
            settings=settings,
        ),
        toco=toco_argv(
            graph=f"{folder}/{products.graph}",
            output=f"{folder}/{products.raw}",
            inference_type=variant.inference_type,
            input_array=recipe.input_array,
            input_shape=facts.input_shape,
            output_arrays=recipe.output_arrays,
            mean_value=variant.mean_value,
            std_value=variant.std_value,
        ),
    )
    return ConversionPlan(
        recipe=recipe.name,
        variant=variant,
        settings=settings,
        checkpoint=checkpoint,
        products=products,
        commands=commands,
        speedups=usable_speedups(speedups, keep_pbtxt=settings.keep_pbtxt),
    )


def checkpoint_inputs(files: CheckpointFiles, variant: Variant, sha256_of: Sha256Of) -> CheckpointInputs:
    """Compare a checkpoint with the published one and compute the digests of its files.

    Raises:
        IntegrityError: the checkpoint is damaged.
    """

    def input_file(path: Path) -> InputFile:
        return InputFile(path=path, name=f"{variant.name}/{path.name}", sha256=sha256_of(path))

    return CheckpointInputs(
        prefix=files.prefix,
        config=input_file(files.config),
        index=input_file(files.index),
        data=tuple(input_file(shard) for shard in files.shards),
        verdict=check_checkpoint(files.bundle, variant),
        origin=origin_of(files.prefix.parent.parent),
    )


def at(argv: tuple[str, ...], folders: Mapping[str, str]) -> tuple[str, ...]:
    """Return a command with its placeholders replaced by real folders."""
    for placeholder, folder in folders.items():
        argv = tuple(word.replace(placeholder, folder) for word in argv)
    return argv
