"""A recipe for a model of one's own, made from command-line arguments instead of a ``recipe.toml``.

The defaults are those that tensorflow/models documents for one's own models, unlike the published MobileDet
lines: fast non-maximum suppression, and ``--change_concat_input_ranges=false``, without which TOCO clips the
scores of all prediction heads but the first. Source: research/object_detection/g3doc/
running_on_mobile_tensorflowlite.md.
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
"""The name of a recipe that was made from arguments."""
OWN_SETTINGS: Final = Settings(nms=Nms.FAST)
QUANTIZED_MEAN_AND_STD: Final = (128.0, 128.0)
QUANTIZED_FLAGS: Final = ("--change_concat_input_ranges=false",)
GIVEN_BY_US: Final = {
    "--mean_values": "--mean-value",
    "--std_values": "--std-value",
    **dict.fromkeys(
        ("--input_file", "--output_file", "--input_arrays", "--output_arrays", "--input_shapes"), None
    ),
    **dict.fromkeys(("--input_shape", "--input_array", "--inference_type", "--allow_custom_ops"), None),
}
"""Native flags that `toco_argv` writes, with the option that sets them."""


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """What the user says of a model of their own; what is None or empty has its default.

    ``name`` is the stem of the files' names. ``toco_flags`` are native flags.
    """

    name: str
    checkpoint_prefix: str
    mean_value: float | None = None
    std_value: float | None = None
    toco_flags: tuple[str, ...] = ()
    drop_unknown_fields: bool = False


def repair_of(model: OwnModel) -> tuple[str, ...]:
    """Return the flags with which the config of a model is read."""
    return ("--drop-unknown-fields",) if model.drop_unknown_fields else ()


def own_recipe(model: OwnModel, facts: ModelFacts) -> Recipe:
    """Return the recipe of a model of one's own, given what its config says.

    Raises:
        UsageError: a flag is none, or one that this program sets itself, or quantized input is described for
            a float model.
    """
    _require_additional(model.toco_flags)
    if not facts.is_quantized and (model.mean_value, model.std_value) != (None, None):
        raise UsageError(
            "--mean-value and --std-value describe quantized input, but the config is that of a float model",
            tip="a float model takes real numbers: leave both out",
        )
    mean, std = QUANTIZED_MEAN_AND_STD if facts.is_quantized else (None, None)
    variant = Variant(
        name=model.name,
        inference_type=InferenceType.QUANTIZED_UINT8 if facts.is_quantized else InferenceType.FLOAT,
        input_shape=facts.input_shape,
        checkpoint_prefix=model.checkpoint_prefix,
        settings=OWN_SETTINGS,
        mean_value=mean if model.mean_value is None else model.mean_value,
        std_value=std if model.std_value is None else model.std_value,
        toco_flags=_with_defaults(model.toco_flags, QUANTIZED_FLAGS if facts.is_quantized else ()),
        drop_unknown_fields=model.drop_unknown_fields,
        file_name=f"{model.name}.tflite",
    )
    return recipe_with(variant)


def recipe_with(variant: Variant) -> Recipe:
    """Return the recipe of a model of one's own, which has this variant only."""
    return Recipe(name=OWN_RECIPE, title="a model of one's own", variants={variant.name: variant})


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
                tip=f"use {option}" if option else "`toco` converts a frozen graph with flags of your own",
            )


def _with_defaults(flags: tuple[str, ...], defaults: tuple[str, ...]) -> tuple[str, ...]:
    given = {flag.partition("=")[0] for flag in flags}
    return (*(flag for flag in defaults if flag.partition("=")[0] not in given), *flags)
