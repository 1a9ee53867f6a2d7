"""Make a recipe for the user's own model from command-line arguments instead of a ``recipe.toml``.

The defaults are those that tensorflow/models recommends, not those of the published MobileDet commands: fast
non-maximum suppression, and ``--change_concat_input_ranges=false`` for a quantized model. With TOCO's own
default, true, TOCO clips the scores of all prediction heads except the first.
Source: research/object_detection/g3doc/running_on_mobile_tensorflowlite.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.errors import UsageError
from runner.recipes.recipe import InferenceType, Recipe, Variant
from runner.recipes.settings import Nms, Settings

if TYPE_CHECKING:
    from runner.convert.model_facts import ModelFacts

OWN_RECIPE: Final = ""
"""The name, which is empty, of a recipe that is made from arguments."""
OWN_SETTINGS: Final = Settings(nms=Nms.FAST)
QUANTIZED_MEAN_AND_STD: Final = (128.0, 128.0)
QUANTIZED_FLAGS: Final = ("--change_concat_input_ranges=false",)
SIZE_FIELDS: Final = tuple(
    f"model.ssd.image_resizer.fixed_shape_resizer.{side}" for side in ("height", "width")
)
GIVEN_BY_US: Final = {
    "--mean_values": "--mean-value",
    "--std_values": "--std-value",
    **dict.fromkeys(("--input_shapes", "--input_shape"), "--input-shape"),
    "--inference_type": "--inference-type",
    **dict.fromkeys(("--input_file", "--output_file", "--input_arrays", "--input_array"), None),
    **dict.fromkeys(("--output_arrays", "--allow_custom_ops"), None),
}
"""The native flags that `toco_argv` writes, and the option that sets each; None if there is no option."""


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """The user's own model, as described by the arguments of `convert`; None or empty means the default.

    ``name`` is the stem of the file names. ``toco_flags`` are flags of the native tool. ``input_shape`` is
    NHWC; the graph is exported for this height and width instead of those in the config.
    """

    name: str
    checkpoint_prefix: str
    mean_value: float | None = None
    std_value: float | None = None
    toco_flags: tuple[str, ...] = ()
    drop_unknown_fields: bool = False
    inference_type: InferenceType | None = None
    ignore_quantization: bool = False
    input_shape: tuple[int, ...] | None = None


def repair_of(model: OwnModel) -> tuple[str, ...]:
    """Return the flags of the config step for a model, as `repair_flags` does for a variant."""
    return ("--drop-unknown-fields",) if model.drop_unknown_fields else ()


def own_recipe(model: OwnModel, facts: ModelFacts) -> Recipe:
    """Return the recipe for the user's own model, given the facts from its config.

    Raises:
        UsageError: one of ``toco_flags`` is not a flag, or this program sets it itself; or mean or std is
            given for a float model.
    """
    _require_additional(model.toco_flags)
    inference_type = _inference_type(model, facts)
    is_quantized = inference_type is InferenceType.QUANTIZED_UINT8
    if not is_quantized and (model.mean_value, model.std_value) != (None, None):
        what = "--inference-type is FLOAT" if facts.is_quantized else "the config describes a float model"
        raise UsageError(
            f"--mean-value and --std-value describe quantized input, but {what}",
            tip="omit both: a float model takes real numbers",
        )
    mean, std = QUANTIZED_MEAN_AND_STD if is_quantized else (None, None)
    shape = _input_shape(model, facts)
    variant = Variant(
        name=model.name,
        inference_type=inference_type,
        input_shape=shape,
        checkpoint_prefix=model.checkpoint_prefix,
        settings=OWN_SETTINGS,
        mean_value=mean if model.mean_value is None else model.mean_value,
        std_value=std if model.std_value is None else model.std_value,
        toco_flags=_with_defaults(model.toco_flags, QUANTIZED_FLAGS if is_quantized else ()),
        config_set={} if shape == facts.input_shape else dict(zip(SIZE_FIELDS, shape[1:3], strict=True)),
        drop_unknown_fields=model.drop_unknown_fields,
        is_graph_quantized=facts.is_quantized,
        ignore_quantization=model.ignore_quantization,
        file_name=f"{model.name}.tflite",
    )
    return recipe_with(variant)


def _inference_type(model: OwnModel, facts: ModelFacts) -> InferenceType:
    """Return the requested inference type, or else the type in the config.

    Raises:
        UsageError: uint8 is requested, but the config has no ``graph_rewriter``, so there are no ranges.
    """
    if model.inference_type is None:
        return InferenceType.QUANTIZED_UINT8 if facts.is_quantized else InferenceType.FLOAT
    if model.inference_type is InferenceType.QUANTIZED_UINT8 and not facts.is_quantized:
        raise UsageError(
            "--inference-type QUANTIZED_UINT8 needs ranges, but the config has no graph_rewriter",
            tip="use a config and a checkpoint from quantization-aware training; or, for placeholder ranges, "
            "run `export`, then `toco` with --default_ranges_min and --default_ranges_max",
        )
    return model.inference_type


def _input_shape(model: OwnModel, facts: ModelFacts) -> tuple[int, ...]:
    """Return the requested input shape, or else the shape in the config.

    Raises:
        UsageError: the requested shape differs from the shape in the config in more than height and width, or
            its height or width is below 1.
    """
    shape = model.input_shape or facts.input_shape
    if len(shape) != len(facts.input_shape) or min(shape) < 1 or shape[::3] != facts.input_shape[::3]:
        batch, height, width, channels = facts.input_shape
        raise UsageError(
            f"--input-shape {','.join(map(str, shape))} does not fit: only height and width can be chosen, "
            "each at least 1",
            tip=f"use {batch},HEIGHT,WIDTH,{channels}; the config has {height} and {width}",
        )
    return shape


def recipe_with(variant: Variant) -> Recipe:
    """Return the recipe for the user's own model, with only this variant."""
    return Recipe(name=OWN_RECIPE, title="the user's own model", variants={variant.name: variant})


def _require_additional(flags: tuple[str, ...]) -> None:
    for flag in flags:
        name = flag.partition("=")[0]
        if not flag.startswith("--"):
            raise UsageError(
                f"{flag!r} is not a flag of toco", tip="flags begin with two dashes and follow after `--`"
            )
        if name in GIVEN_BY_US:
            option = GIVEN_BY_US[name]
            raise UsageError(
                f"{name} is set by `convert` itself",
                tip=f"use {option}" if option else "`toco` converts a frozen graph with your own flags",
            )


def _with_defaults(flags: tuple[str, ...], defaults: tuple[str, ...]) -> tuple[str, ...]:
    given = {flag.partition("=")[0] for flag in flags}
    return (*(flag for flag in defaults if flag.partition("=")[0] not in given), *flags)
