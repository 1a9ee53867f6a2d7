"""The command lines of a recipe, as a user would type them: the export and TOCO in both dialects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.convert.export import GRAPH_NAME, export_argv
from runner.convert.plan import MODEL_DIR, OUT_DIR, below
from runner.convert.toco import toco_argv
from runner.proof.dialects import as_tflite_convert
from runner.recipes.recipe import CHECKPOINT
from runner.toolchain.catalog import load_toolchain

if TYPE_CHECKING:
    from runner.recipes.recipe import Variant


@dataclass(frozen=True, kw_only=True)
class VariantCommands:
    """The commands of one variant.

    ``export`` is None if the variant starts from a frozen graph. ``tflite_convert`` is None if a TOCO flag
    has no counterpart in that dialect.
    """

    export: tuple[str, ...] | None
    toco: tuple[str, ...]
    tflite_convert: tuple[str, ...] | None


def commands_of(variant: Variant) -> VariantCommands:
    """Return the commands that convert a variant, with placeholders for the two folders."""
    source, out_dir = below(MODEL_DIR, variant.folder), f"{OUT_DIR}/{variant.name}"
    is_exported = variant.starts_from == CHECKPOINT
    export = export_argv(
        config=f"{out_dir}/pipeline.config",
        prefix=f"{source}/{variant.checkpoint_prefix}",
        out_dir=out_dir,
        settings=variant.settings,
        more_flags=variant.export_flags,
    )
    toco = toco_argv(
        graph=f"{out_dir}/{GRAPH_NAME}" if is_exported else f"{source}/{variant.starts_from}",
        output=f"{out_dir}/{variant.raw_name}",
        inference_type=variant.inference_type,
        input_array=variant.input_array,
        input_shape=variant.input_shape,
        output_arrays=variant.output_arrays,
        mean_value=variant.mean_value,
        std_value=variant.std_value,
        more_flags=variant.all_toco_flags,
    )
    return VariantCommands(
        export=export if is_exported else None,
        toco=toco,
        tflite_convert=as_tflite_convert(toco, load_toolchain(variant.toolchain).tflite_convert_flags),
    )
