"""The command that converts the user's own model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.convert import (
    CheckpointOptions,
    ConvertOptions,
    DeliveryOptions,
    DryRun,
    new_request,
    run_request,
)
from runner.commands.options import (
    AsJson,
    DropUnknownFields,
    IgnoreQuantization,
    OwnChoices,
    ToolchainOptions,
    choose_engine,
    read_shape,
    takes_options,
)
from runner.errors import UsageError
from runner.recipes.recipe import InferenceType

if TYPE_CHECKING:
    from runner.convert.model_facts import ModelFacts
    from runner.convert.own_model import OwnModel

app = typer.Typer()


@app.command()
@takes_options
def convert(
    toco_flags: Annotated[
        list[str] | None,
        typer.Argument(help="After `--`: further flags of the native toco, passed unchanged."),
    ] = None,
    *,
    pipeline_config: Annotated[Path, typer.Option(help="The pipeline config of an SSD model.")],
    checkpoint: Annotated[
        Path, typer.Option(help="The prefix of the checkpoint, such as DIR/model.ckpt-1000.")
    ],
    name: Annotated[
        str, typer.Option(help="The results are called NAME.tflite and NAME.raw.tflite.")
    ] = "model",
    mean_value: Annotated[
        float | None,
        typer.Option(
            help="Mean of a quantized input: real = (quantized - mean) / std. Default of mean and std: 128."
        ),
    ] = None,
    std_value: Annotated[
        float | None, typer.Option(help="Standard deviation of a quantized input: see --mean-value.")
    ] = None,
    inference_type: Annotated[
        InferenceType | None, typer.Option(help="FLOAT or QUANTIZED_UINT8. Default: as in the config.")
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="NHWC, such as 1,320,320,3. Default: as in the config.")
    ] = None,
    ignore_quantization: IgnoreQuantization = False,
    drop_unknown_fields: DropUnknownFields = False,
    settings: OwnChoices,
    delivery: DeliveryOptions,
    dry_run: DryRun = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Convert your own TF1 SSD checkpoint, in one command.

    OUT/model.tflite is float or uint8, depending on the config. It is compared with its frozen graph, and a
    provenance is written beside it.

    A quantized model is converted with --change_concat_input_ranges=false, as tensorflow/models recommends.
    """
    from runner.convert.own_model import OwnModel, own_recipe

    config, prefix = pipeline_config.expanduser().resolve(), checkpoint.expanduser().resolve()
    _require_name(name)
    model = OwnModel(
        name=name,
        checkpoint_prefix=prefix.name,
        mean_value=mean_value,
        std_value=std_value,
        toco_flags=tuple(toco_flags or ()),
        drop_unknown_fields=drop_unknown_fields,
        inference_type=inference_type,
        ignore_quantization=ignore_quantization,
        input_shape=None if input_shape is None else read_shape(input_shape),
    )
    facts = _facts(config, prefix, model, toolchain, is_dry=dry_run)
    if facts is None:
        _print_unread(config, as_json=as_json)
        return
    options = ConvertOptions(CheckpointOptions(), settings, delivery, toolchain)
    request = new_request(own_recipe(model, facts), (name,), prefix.parent, options)
    run_request(replace(request, pipeline_config=config), options, dry_run=dry_run, as_json=as_json)


def _require_name(name: str) -> None:
    """Check that a name can be used as the stem of a file name.

    Raises:
        UsageError: the name cannot be used.
    """
    if re.fullmatch(r"\w[\w.+-]*", name) is None:
        raise UsageError(
            f"--name {name!r} cannot be part of a file name", tip="use a name such as my-detector"
        )


def _facts(
    config: Path, prefix: Path, model: OwnModel, toolchain: ToolchainOptions, *, is_dry: bool
) -> ModelFacts | None:
    """Return the facts from the config. A dry run only reads the cache: None means that it has no facts.

    Raises:
        ConfigError: a file is missing, or the model cannot be converted.
    """
    from runner.checkpoint.files import find_checkpoint
    from runner.convert.model_facts import known_facts, obtain_facts
    from runner.convert.own_model import repair_of
    from runner.toolchain.digest import candidate_toolchain_digests

    find_checkpoint(config, prefix)
    repair = repair_of(model)
    facts = known_facts(config, candidate_toolchain_digests(toolchain.models), repair=repair)
    if facts is not None or is_dry:
        return facts
    return obtain_facts(choose_engine(toolchain), config, toolchain.script_options(), repair=repair)


def _print_unread(config: Path, *, as_json: bool) -> None:
    """Print that there is no plan, because the plan depends on a config that only the toolchain can read."""
    if as_json:
        console.result_json({"checkpoint": "found", "would_read": str(config)})
    else:
        console.result(f"no plan: a dry run starts no toolchain, and only the toolchain can read {config}")
