"""Commands that run one step of a conversion: export a checkpoint, or convert a frozen graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner import console
from runner.commands.options import (
    DEFAULT_OUT,
    AsJson,
    ExportChoices,
    OneToolchainOptions,
    OutDir,
    Overwrite,
    ToolchainOptions,
    choose_engine,
    takes_options,
)
from runner.errors import UsageError
from runner.recipes.recipe import InferenceType
from runner.recipes.settings import Settings

app = typer.Typer()


@app.command()
@takes_options
def export(
    *,
    pipeline_config: Annotated[Path, typer.Option(help="The pipeline config of an SSD model.")],
    checkpoint: Annotated[
        Path, typer.Option(help="The prefix of its checkpoint, such as DIR/model.ckpt-400000.")
    ],
    out: OutDir = DEFAULT_OUT,
    settings: ExportChoices,
    ignore_quantization: Annotated[
        bool,
        typer.Option(
            "--ignore-quantization",
            help="If the config has no graph_rewriter: export a quantization-aware checkpoint as float.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Freeze any SSD checkpoint into OUT/tflite_graph.pb.

    With other settings than the published ones, the result is not the published file.
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


@app.command(context_settings={"ignore_unknown_options": True})
@takes_options
def toco(
    graph: Annotated[Path, typer.Argument(help="The frozen graph, such as tflite_graph.pb.")],
    more_flags: Annotated[
        list[str] | None,
        typer.Argument(
            help="After `--`: more flags of the native toco, as they are. They replace the options here."
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="The .tflite to write.")],
    inference_type: Annotated[
        InferenceType, typer.Option(help="FLOAT or QUANTIZED_UINT8.")
    ] = InferenceType.FLOAT,
    input_array: Annotated[str, typer.Option(help="Name of the input.")] = "normalized_input_image_tensor",
    input_shape: Annotated[
        str | None, typer.Option(help="Its shape, NHWC, such as 1,320,320,3. Default: the graph's.")
    ] = None,
    output_arrays: Annotated[
        str, typer.Option(help="Names of the outputs. Default: the four of TFLite_Detection_PostProcess.")
    ] = ",".join(f"TFLite_Detection_PostProcess{suffix}" for suffix in ("", ":1", ":2", ":3")),
    mean_value: Annotated[
        float | None, typer.Option(help="Of quantized input: real = (quantized - mean) / std.")
    ] = None,
    std_value: Annotated[float | None, typer.Option(help="Of quantized input: see --mean-value.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Keep the key order in which TOCO wrote the options.")
    ] = False,
    overwrite: Overwrite = False,
    toolchain: OneToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Convert any frozen graph with TOCO.

    The keys of the post-processing options are put in the fixed order, unless --raw is given.

    A quantized model of your own needs `-- --change_concat_input_ranges=false`: with TOCO's default, true,
    all prediction heads are clipped to the range of the first.
    """
    from runner.convert.one_step import TocoRequest, toco_alone

    request = TocoRequest(
        graph=graph.expanduser().resolve(),
        output=out.expanduser().absolute(),
        inference_type=inference_type,
        input_array=input_array,
        input_shape=None if input_shape is None else _shape(input_shape),
        output_arrays=tuple(output_arrays.split(",")),
        mean_value=mean_value,
        std_value=std_value,
        options=toolchain.script_options(),
        more_flags=tuple(more_flags or ()),
    )
    _print_path(
        toco_alone(choose_engine(toolchain), request, is_raw=raw, overwrite=overwrite), as_json=as_json
    )


def _shape(text: str) -> tuple[int, ...]:
    """Read a shape such as ``1,320,320,3``; TOCO itself checks the numbers.

    Raises:
        UsageError: it is not a list of whole numbers.
    """
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise UsageError(
            f"--input-shape {text!r} is not a shape", tip="whole numbers with commas between: 1,320,320,3"
        ) from None


def _print_path(path: Path, *, as_json: bool) -> None:
    from runner.host.digests import digest_file

    digests = digest_file(path)
    if as_json:
        console.result_json({"file": path, "sha256": digests.sha256, "size_bytes": digests.size_bytes})
    else:
        console.result(f"{digests.sha256}  {path}")
