"""Commands that convert: both variants, one, a stand-in, or a single step of the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import (
    DEFAULT_OUT,
    AsJson,
    ModelDir,
    OutDir,
    ToolchainOptions,
    choose_engine,
    takes_options,
)

if TYPE_CHECKING:
    from runner.convert.pipeline import Settings
    from runner.deliver.run import Delivered
    from runner.recipes.recipe import Recipe

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """What can be chosen about a conversion."""

    out: OutDir = DEFAULT_OUT
    score_threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Detections below it are dropped. Default: the published 0.3."),
    ] = None
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="How many detections come out. Default: the published 10.")
    ] = None
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Prove that the file computes what the graph does.")
    ] = True
    keep_pbtxt: Annotated[
        bool, typer.Option("--keep-pbtxt", help="Keep the 47 MB text form of the graph.")
    ] = False
    with_paths: Annotated[
        bool, typer.Option("--with-paths", help="Name this machine's folders in the provenance.")
    ] = False
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Convert again what the cache has, and replace files in --out that this tool did not make.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Where the checkpoints are."""

    model_dir: ModelDir = None
    checkpoint_prefix: Annotated[
        str | None, typer.Option(help="Its prefix in fp32/ and uint8/. Default: model.ckpt-400000.")
    ] = None


@app.command()
@takes_options
def fp32(
    *,
    checkpoint: CheckpointOptions,
    conversion: ConversionOptions,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Make mobiledet.tflite (float) from the fp32 checkpoint."""
    _convert(("fp32",), checkpoint, conversion, toolchain, as_json=as_json)


@app.command()
@takes_options
def uint8(
    *,
    checkpoint: CheckpointOptions,
    conversion: ConversionOptions,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Make mobiledet_qat.tflite (uint8) from the uint8 checkpoint."""
    _convert(("uint8",), checkpoint, conversion, toolchain, as_json=as_json)


@app.command("build-all")
@takes_options
def build_all(
    *,
    checkpoint: CheckpointOptions,
    conversion: ConversionOptions,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Make both .tflite files, at the same time."""
    _convert(("fp32", "uint8"), checkpoint, conversion, toolchain, as_json=as_json)


@app.command()
@takes_options
def demo(
    *,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other weights.")] = 0,
    conversion: ConversionOptions,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Make both files from a stand-in checkpoint; no download.

    The stand-in is made on the spot. It has the published variables and quantization ranges, and made-up
    weights: its detections mean nothing.
    """
    from runner.convert.stand_in import make_stand_in
    from runner.recipes.recipe import load_recipe

    options = toolchain.script_options()
    model_dir = make_stand_in(choose_engine(toolchain), load_recipe(), seed=seed, options=options)
    console.note("   the stand-in's weights are made up: what the two files detect means nothing")
    checkpoint = CheckpointOptions(model_dir=model_dir)
    _convert(("fp32", "uint8"), checkpoint, conversion, toolchain, as_json=as_json, is_stand_in=True)


def _convert(
    variants: tuple[str, ...],
    checkpoint: CheckpointOptions,
    conversion: ConversionOptions,
    toolchain: ToolchainOptions,
    *,
    as_json: bool,
    is_stand_in: bool = False,
) -> None:
    from runner.checkpoint.compare import check_checkpoint, require_fit, tell_of_weights
    from runner.checkpoint.fetch import obtain_model_dir
    from runner.checkpoint.files import locate_checkpoint
    from runner.deliver.cache import user_cache
    from runner.deliver.run import BatchRequest, convert_all
    from runner.recipes.recipe import load_recipe
    from runner.toolchain.digest import candidate_toolchain_digests

    recipe = load_recipe()
    if checkpoint.checkpoint_prefix is not None:
        recipe = replace(recipe, checkpoint_prefix=checkpoint.checkpoint_prefix)
    model_dir = (checkpoint.model_dir or obtain_model_dir(recipe)).expanduser().resolve()
    checkpoints = {name: locate_checkpoint(model_dir, recipe, recipe.variants[name]) for name in variants}
    for name, files in checkpoints.items():
        verdict = check_checkpoint(files.bundle, recipe.variants[name])
        require_fit(verdict, files.prefix, recipe.variants[name])
        if not is_stand_in:
            tell_of_weights(verdict, files.prefix, recipe.variants[name])
    request = BatchRequest(
        recipe=recipe,
        checkpoints=checkpoints,
        model_dir=model_dir,
        out_dir=conversion.out,
        settings=_settings(conversion, recipe),
        options=toolchain.script_options(),
        force=conversion.force,
        with_paths=conversion.with_paths,
        cache=user_cache(),
        toolchains=candidate_toolchain_digests(toolchain.models),
    )
    delivered = convert_all(partial(choose_engine, toolchain), request)
    _print_delivered(delivered, as_json=as_json)


def _settings(conversion: ConversionOptions, recipe: Recipe) -> Settings:
    """Return the recipe's settings, but for what the user chose."""
    from runner.convert.pipeline import Settings
    from runner.convert.speedups import chosen_speedups

    settings = Settings.of(recipe)
    if conversion.score_threshold is not None:
        settings = replace(settings, score_threshold=conversion.score_threshold)
    if conversion.max_detections is not None:
        settings = replace(settings, max_detections=conversion.max_detections)
    return replace(
        settings, keep_pbtxt=conversion.keep_pbtxt, check=conversion.check, speedups=chosen_speedups()
    )


def _print_delivered(everything: tuple[Delivered, ...], *, as_json: bool) -> None:
    """Print what was made: as JSON, or in the form ``sha256sum -c`` reads."""
    if as_json:
        console.result_json([delivered.as_json() for delivered in everything])
        return
    for delivered in everything:
        console.note(f"[{delivered.variant}] {delivered.verdict}")
        console.result(f"{delivered.digests.sha256}  {delivered.copy}")
