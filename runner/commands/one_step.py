"""Commands that run one step: export a checkpoint, or convert a frozen graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import (
    DEFAULT_OUT,
    AsJson,
    DropUnknownFields,
    ExportChoices,
    IgnoreQuantization,
    ModelDir,
    OneToolchainOptions,
    OptionalPath,
    OutDir,
    Overwrite,
    RecipeName,
    ToolchainOptions,
    choose_engine,
    read_shape,
    takes_options,
)
from runner.errors import UsageError
from runner.recipes.recipe import DEFAULT_RECIPE, InferenceType
from runner.recipes.settings import Settings

if TYPE_CHECKING:
    from runner.convert.inference_graph import InferenceGraphRequest

app = typer.Typer()


@app.command()
@takes_options
def export(
    *,
    pipeline_config: Annotated[Path, typer.Option(help="The pipeline config of an SSD model.")],
    checkpoint: Annotated[
        Path, typer.Option(help="The prefix of the checkpoint, such as DIR/model.ckpt-400000.")
    ],
    out: OutDir = DEFAULT_OUT,
    settings: ExportChoices,
    ignore_quantization: IgnoreQuantization = False,
    overwrite: Overwrite = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Freeze any SSD checkpoint into OUT/tflite_graph.pb.

    The defaults are the settings of the published MobileDet models.
    """
    from runner.convert.one_step import ExportRequest, export_alone
    from runner.convert.speedups import chosen_speedups

    request = ExportRequest(
        pipeline_config=pipeline_config.expanduser().resolve(),
        checkpoint_prefix=checkpoint.expanduser().resolve(),
        settings=Settings(**settings),
        options=toolchain.script_options(),
        speedups=chosen_speedups(),
        ignore_quantization=ignore_quantization,
    )
    _print_path(export_alone(choose_engine(toolchain), request, out, overwrite=overwrite), as_json=as_json)


@app.command("export-inference-graph")
@takes_options
def export_inference_graph(
    *,
    recipe: RecipeName = DEFAULT_RECIPE,
    variant: Annotated[
        str | None, typer.Option(help="A variant of the recipe. Not needed if the recipe has only one.")
    ] = None,
    model_dir: ModelDir = None,
    pipeline_config: Annotated[
        OptionalPath, typer.Option(help="Instead of a recipe: the pipeline config of an SSD model.")
    ] = None,
    checkpoint: Annotated[
        OptionalPath, typer.Option(help="The prefix of the checkpoint, such as DIR/model.ckpt-1000.")
    ] = None,
    drop_unknown_fields: DropUnknownFields = False,
    out: Annotated[Path, typer.Option(help="The output directory; it is created if it does not exist.")],
    overwrite: Overwrite = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Export a frozen graph and a SavedModel.

    Both are for TensorFlow; no .tflite is made from them. The detection API's export_inference_graph.py
    writes them to OUT, with the checkpoint and the config. For MobileDet, this script is run with the
    arguments that MLCommons used.
    """
    from runner.convert.inference_graph import export_inference_graph as export_graph

    request = _inference_graph_request(recipe, variant, model_dir, pipeline_config, checkpoint)
    if drop_unknown_fields:
        request = replace(request, repair=(*request.repair, "--drop-unknown-fields"))
    options = toolchain.script_options()
    graph = export_graph(choose_engine(toolchain), request, out, options, overwrite=overwrite)
    _print_path(graph, as_json=as_json)


def _inference_graph_request(
    recipe: str, variant: str | None, model_dir: Path | None, config: Path | None, prefix: Path | None
) -> InferenceGraphRequest:
    """Return what to export: a variant of a recipe, or a model without a recipe.

    Raises:
        UsageError: a recipe and a config are both given; only one of --pipeline-config and --checkpoint is
            given; or the recipe has several variants and none is chosen.
        RunnerError: the checkpoint is missing or unusable.
    """
    from runner.convert.inference_graph import of_own_model, of_recipe
    from runner.recipes.recipe import load_recipe

    if config is not None and prefix is not None:
        if variant is not None or recipe != DEFAULT_RECIPE:
            raise UsageError("--pipeline-config cannot be combined with --recipe or --variant")
        return of_own_model(config, prefix)
    if config is not None or prefix is not None:
        raise UsageError("--pipeline-config and --checkpoint must be given together")
    loaded = load_recipe(recipe)
    if variant is None and len(loaded.variants) > 1:
        raise UsageError(
            f"{loaded.name} has {len(loaded.variants)} variants",
            tip=f"name one with --variant: {', '.join(loaded.variants)}",
        )
    return of_recipe(loaded, variant or next(iter(loaded.variants)), model_dir)


@app.command(context_settings={"ignore_unknown_options": True})
@takes_options
def toco(
    graph: Annotated[Path, typer.Argument(help="The frozen graph, such as tflite_graph.pb.")],
    more_flags: Annotated[
        list[str] | None,
        typer.Argument(
            help="After `--`: further flags of the native toco, passed unchanged. They override the options."
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="The .tflite to write.")],
    inference_type: Annotated[
        InferenceType, typer.Option(help="FLOAT or QUANTIZED_UINT8.")
    ] = InferenceType.FLOAT,
    input_array: Annotated[str, typer.Option(help="Name of the input.")] = "normalized_input_image_tensor",
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of the input, NHWC, such as 1,320,320,3. Default: the graph's.")
    ] = None,
    output_arrays: Annotated[
        str, typer.Option(help="Names of the outputs. Default: the outputs of TFLite_Detection_PostProcess.")
    ] = ",".join(f"TFLite_Detection_PostProcess{suffix}" for suffix in ("", ":1", ":2", ":3")),
    mean_value: Annotated[
        float | None, typer.Option(help="Mean of a quantized input: real = (quantized - mean) / std.")
    ] = None,
    std_value: Annotated[
        float | None, typer.Option(help="Standard deviation of a quantized input: see --mean-value.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Keep the key order that TOCO wrote.")] = False,
    overwrite: Overwrite = False,
    toolchain: OneToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Convert any frozen graph with TOCO.

    The keys of the post-processing options are put in a fixed order, unless --raw is given.

    If you convert your own quantized model, add `-- --change_concat_input_ranges=false`: with TOCO's default,
    true, all prediction heads are clipped to the range of the first.
    """
    from runner.convert.one_step import TocoRequest, toco_alone

    request = TocoRequest(
        graph=graph.expanduser().resolve(),
        output=out.expanduser().absolute(),
        inference_type=inference_type,
        input_array=input_array,
        input_shape=None if input_shape is None else read_shape(input_shape),
        output_arrays=tuple(output_arrays.split(",")),
        mean_value=mean_value,
        std_value=std_value,
        options=toolchain.script_options(),
        more_flags=tuple(more_flags or ()),
    )
    _print_path(
        toco_alone(choose_engine(toolchain), request, is_raw=raw, overwrite=overwrite), as_json=as_json
    )


def _print_path(path: Path, *, as_json: bool) -> None:
    from runner.host.digests import digest_file

    digests = digest_file(path)
    if as_json:
        console.result_json({"file": path, "sha256": digests.sha256, "size_bytes": digests.size_bytes})
    else:
        console.result(f"{digests.sha256}  {path}")
