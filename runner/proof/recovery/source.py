"""Find the pipeline config for a ``.tflite``: the user's config, or the config of a recipe that fits it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from runner.checkpoint.compare import read_tensor_table
from runner.checkpoint.files import CONFIG_NAME
from runner.convert.own_model import QUANTIZED_FLAGS, recipe_with
from runner.errors import ConfigError, UsageError
from runner.proof.match import conversion_of
from runner.recipes.recipe import CHECKPOINT, Recipe, Variant, load_recipe, recipe_names
from runner.recipes.settings import SUPPRESSION, Nms, Settings
from runner.recipes.status import structure_of
from runner.tflite.key_orders import read_post_process_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.proof.recovery.file_tensors import FileTensors
    from runner.tflite.model import Model

PREFIX: Final = "model.ckpt"
MODEL_NAME: Final = "model"
EXPORT_FLAGS: Final = ("max_classes_per_detection", "detections_per_class")
CLASSES: Final = "model.ssd.num_classes"
EXPORTABLE: Final = {f"{SUPPRESSION}.max_total_detections": 100}
"""A published config may have the benchmark's lower limit on detections; the export script rejects it."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A pipeline config, and a recipe whose single variant converts checkpoints of that config.

    ``published`` is the recipe's variant, with the tables of the published checkpoint, or None if the user
    passed a config.
    """

    config: Path
    title: str
    """Where the config comes from, as text."""
    recipe: Recipe
    variant: Variant
    published: Variant | None


def find_source(
    model: Model, tensors: FileTensors, *, recipe: str | None, config: Path | None
) -> ModelSource:
    """Return the config for a file, and the settings for repeating the file's conversion.

    Recipes with a table of the published variables are preferred. The config of any other recipe is only used
    for the architecture; everything else is read from the file.

    Raises:
        UsageError: both a recipe and a config are given.
        ConfigError: there is no such config, or no recipe that fits the file and has a config.
    """
    if recipe is not None and config is not None:
        raise UsageError("--recipe and --pipeline-config cannot be combined", tip="pass only one of them")
    if config is not None:
        return _of_config(model, tensors, config)
    loaded = [load_recipe(it) for it in (recipe_names() if recipe is None else [recipe])]
    fitting = (
        *(_of_recipe(it, variant) for it in loaded for variant in _fitting(it, tensors)),
        *(_of_architecture(model, tensors, it, name) for it in loaded for name in _alike(it, tensors)),
    )
    if not fitting:
        message = f"no recipe with a config fits {model.source}"
        if recipe is not None:
            message = f"{model.source} has other variables than {recipe}, or that recipe has no config"
        raise ConfigError(
            message,
            tip="pass the model's own config with --pipeline-config FILE",
        )
    return fitting[0]


def _fitting(recipe: Recipe, tensors: FileTensors) -> Iterator[Variant]:
    """Yield the variants whose published checkpoint has exactly the file's kernels."""
    kernels = tensors.kernels()
    for variant in recipe.variants.values():
        table = variant.tensor_table
        if table is None or variant.is_quantized != tensors.is_quantized:
            continue
        shapes = {name: shape for name, (_, shape, _) in read_tensor_table(table).items() if len(shape) == 4}
        if shapes == _with_shapes_of(kernels, shapes):
            yield variant


def _alike(recipe: Recipe, tensors: FileTensors) -> Iterator[str]:
    """Yield the variants whose config gives the file's kernels; the number of classes may differ."""
    for name, variant in recipe.variants.items():
        if variant.is_quantized == tensors.is_quantized and tensors.structure == structure_of(variant):
            yield name


def _with_shapes_of(
    kernels: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """Return kernels keyed by the variable names that ``wanted`` uses.

    In a quantized file, the name of a depthwise kernel does not show that it is one; ``wanted`` shows it.
    """
    named = {}
    for name, shape in kernels.items():
        depthwise = f"{name.removesuffix('/weights')}/depthwise_weights"
        named[depthwise if depthwise in wanted else name] = shape
    return named


def _of_recipe(recipe: Recipe, variant: Variant) -> ModelSource:
    if variant.data_dir is None:
        raise ConfigError(f"the recipe {recipe.name} has no pipeline.config for {variant.name}")
    here = replace(
        variant,
        folder="",
        checkpoint_prefix=PREFIX,
        starts_from=CHECKPOINT,
        copy_name=None,
        config_set={**variant.config_set, **EXPORTABLE},
    )
    return ModelSource(
        config=variant.data_dir / CONFIG_NAME,
        title=_title(recipe, variant.name),
        recipe=replace(recipe, variants={variant.name: here}),
        variant=here,
        published=variant,
    )


def _title(recipe: Recipe, variant: str) -> str:
    return f"the recipe {recipe.name}, variant {variant}"


def _of_architecture(model: Model, tensors: FileTensors, recipe: Recipe, name: str) -> ModelSource:
    """Return the source for a recipe whose config only describes the architecture."""
    folder = recipe.variants[name].data_dir
    if folder is None:
        raise ConfigError(f"the recipe {recipe.name} has no pipeline.config for {name}")
    options = read_post_process_options(model)
    values = {} if options is None else options.values
    classes = {CLASSES: int(values["num_classes"])} if "num_classes" in values else {}
    return _of_config(model, tensors, folder / CONFIG_NAME, title=_title(recipe, name), config_set=classes)


def _of_config(
    model: Model,
    tensors: FileTensors,
    config: Path,
    *,
    title: str | None = None,
    config_set: Mapping[str, int] = MappingProxyType({}),
) -> ModelSource:
    """Return the source for a config alone; everything else is read from the file."""
    config = config.expanduser().resolve()
    if not config.is_file():
        raise ConfigError(f"there is no config {config}", tip="pass the pipeline.config of the model")
    conversion = conversion_of(model)
    variant = Variant(
        name=MODEL_NAME,
        inference_type=conversion.inference_type,
        input_shape=conversion.input_shape,
        checkpoint_prefix=PREFIX,
        settings=_settings_of(model),
        mean_value=conversion.mean_value,
        std_value=conversion.std_value,
        input_array=conversion.input_array,
        config_set=config_set,
        export_flags=_export_flags_of(model),
        toco_flags=QUANTIZED_FLAGS if tensors.is_quantized else (),
        file_name=f"{MODEL_NAME}.tflite",
    )
    return ModelSource(
        config=config,
        title=title or str(config),
        recipe=recipe_with(variant),
        variant=variant,
        published=None,
    )


def _settings_of(model: Model) -> Settings:
    """Return the settings that can be read from a file's detection operator."""
    options = read_post_process_options(model)
    values = {} if options is None else options.values
    return Settings(
        score_threshold=_number(values, "nms_score_threshold"),
        nms_iou_threshold=_number(values, "nms_iou_threshold"),
        nms=Nms.REGULAR if values.get("use_regular_nms", False) else Nms.FAST,
        max_detections=int(values.get("max_detections", 10)),
    )


def _export_flags_of(model: Model) -> tuple[str, ...]:
    """Return the export script's flags for options of the detection operator that are not in `Settings`."""
    options = read_post_process_options(model)
    values = {} if options is None else options.values
    return tuple(f"--{name}={int(values[name])}" for name in EXPORT_FLAGS if name in values)


def _number(values: Mapping[str, bool | int | float], name: str) -> float | None:
    return float(values[name]) if name in values else None
