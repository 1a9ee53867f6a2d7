"""The user's own models: find the provenance of a file, and rebuild the recipe that it records.

Nothing has been published about these models, so their files are identified by their provenance alone.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from runner.convert.own_model import OWN_SETTINGS, SIZE_FIELDS, recipe_with
from runner.convert.plan import PROVENANCE_NAME
from runner.errors import IntegrityError
from runner.evidence.provenance.read import read_provenance
from runner.evidence.provenance.write import named_digests
from runner.host.digests import sha256_of
from runner.recipes.recipe import InferenceType, Variant

if TYPE_CHECKING:
    from pathlib import Path

    from runner.evidence.provenance.read import Provenance
    from runner.recipes.recipe import Recipe


def own_provenance(path: Path) -> Provenance | None:
    """Return the provenance of a file or folder that `convert` made, or None if something else made it.

    Raises:
        IntegrityError: this tool's provenance is damaged.
    """
    beside = (path if path.is_dir() else path.parent) / PROVENANCE_NAME
    digests = named_digests(beside)
    if not digests:
        return None
    provenance = read_provenance(beside)
    if provenance.request.own_model is None:
        return None
    belongs = path.is_dir() or path.name == provenance.subject.name or sha256_of(path) in digests
    return provenance if belongs else None


def recorded_own_recipe(path: Path) -> Recipe | None:
    """Return the recipe of a file or folder that `convert` made, or None if something else made it.

    Raises:
        IntegrityError: this tool's provenance is damaged or incomplete.
    """
    provenance = own_provenance(path)
    return None if provenance is None else recorded_recipe(provenance)


def recorded_recipe(provenance: Provenance) -> Recipe | None:
    """Rebuild the recipe for the user's own model from its provenance; None if the user named a recipe.

    Raises:
        IntegrityError: the recorded command of TOCO is incomplete.
    """
    own = provenance.request.own_model
    if own is None:
        return None
    try:
        flags = _toco_flags(provenance)
        variant = Variant(
            name=provenance.request.variant,
            inference_type=InferenceType(flags["--inference_type"]),
            input_shape=tuple(int(size) for size in flags["--input_shapes"].split(",")),
            input_array=flags["--input_arrays"],
            output_arrays=tuple(flags["--output_arrays"].split(",")),
            checkpoint_prefix=provenance.request.checkpoint_prefix,
            settings=OWN_SETTINGS,
            mean_value=own.mean_value,
            std_value=own.std_value,
            toolchain=provenance.request.toolchain,
            toco_flags=own.toco_flags,
            drop_unknown_fields=own.drop_unknown_fields,
            is_graph_quantized=_is_graph_quantized(provenance),
            ignore_quantization=own.ignore_quantization,
            file_name=provenance.subject.name,
        )
    except (KeyError, ValueError, IndexError) as problem:
        raise IntegrityError(f"{provenance.path} records no complete toco command: {problem}") from problem
    return recipe_with(variant)


def convert_command(provenance: Provenance) -> tuple[str, ...]:
    """Return the options of `convert` that repeat a conversion, with placeholders for folders.

    Raises:
        ValueError: the conversion used a recipe.
    """
    own, request = provenance.request.own_model, provenance.request
    if own is None:
        raise ValueError(f"{provenance.path} is the provenance of a recipe")
    config = own.pipeline_config
    is_elsewhere = config.startswith("${")
    words = ["--pipeline-config", config if is_elsewhere else f"${{TF_MODEL_DIR}}/{PurePosixPath(config)}"]
    words += [
        "--checkpoint",
        f"${{TF_MODEL_DIR}}/{request.checkpoint_prefix}",
        "--out",
        "${TFLITE_MODEL_DIR}",
    ]
    words += [] if request.variant == "model" else ["--name", request.variant]
    words += [] if own.mean_value is None else ["--mean-value", f"{own.mean_value:g}"]
    words += [] if own.std_value is None else ["--std-value", f"{own.std_value:g}"]
    words += ["--drop-unknown-fields"] if own.drop_unknown_fields else []
    words += ["--ignore-quantization"] if own.ignore_quantization else []
    toco = _toco_flags(provenance)
    is_as_float = toco["--inference_type"] == InferenceType.FLOAT.value and _is_graph_quantized(provenance)
    words += ["--inference-type", InferenceType.FLOAT.value] if is_as_float else []
    has_other_size = any(word.startswith(SIZE_FIELDS) for word in provenance.steps[0].argv)
    return (*words, *(("--input-shape", toco["--input_shapes"]) if has_other_size else ()))


def _toco_flags(provenance: Provenance) -> dict[str, str]:
    return dict(word.split("=", 1) for word in provenance.steps[-1].argv if "=" in word)


def _is_graph_quantized(provenance: Provenance) -> bool:
    """Return whether the step that edited the config ran with ``--quantized true``."""
    config, flag = provenance.steps[0].argv, "--quantized"
    return flag in config and config[config.index(flag) + 1] == "true"
