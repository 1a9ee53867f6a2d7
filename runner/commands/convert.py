"""Commands that convert checkpoints: both variants, one of them, or a stand-in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import (
    DEFAULT_OUT,
    AsJson,
    Choices,
    ModelDir,
    OutDir,
    ToolchainOptions,
    choose_engine,
    takes_options,
)

if TYPE_CHECKING:
    from pathlib import Path

    from runner.convert.model_facts import ModelFacts
    from runner.deliver.plan import Plan
    from runner.deliver.run import Result
    from runner.recipes.recipe import Recipe, Variant

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
    """Where results go, and what is said about them."""

    out: OutDir = DEFAULT_OUT
    with_paths: Annotated[
        bool, typer.Option("--with-paths", help="Record this machine's folders in the provenance.")
    ] = False
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Convert again what is cached, and replace files in --out that this program did not make.",
        ),
    ] = False


DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print the plan; start no toolchain, and build, download and write nothing."
    ),
]


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Where the checkpoints are."""

    model_dir: ModelDir = None
    checkpoint_prefix: Annotated[
        str | None,
        typer.Option(help="The prefix of the checkpoint in fp32/ and uint8/. Default: model.ckpt-400000."),
    ] = None


def _add_command(name: str, variants: tuple[str, ...], description: str) -> None:
    """Add a command that converts these variants; all of them take the same options."""

    @takes_options
    def convert_variants(
        *,
        checkpoint: CheckpointOptions,
        settings: Choices,
        delivery: DeliveryOptions,
        dry_run: DryRun = False,
        toolchain: ToolchainOptions,
        as_json: AsJson = False,
    ) -> None:
        request = Request(settings, delivery, toolchain, dry_run=dry_run, as_json=as_json)
        _convert(variants, checkpoint, request)

    app.command(name, help=description)(convert_variants)


_add_command("fp32", ("fp32",), "Make mobiledet.tflite (float) from the fp32 checkpoint.")
_add_command("uint8", ("uint8",), "Make mobiledet_qat.tflite (uint8) from the uint8 checkpoint.")
_add_command("build-all", ("fp32", "uint8"), "Make both .tflite files, in parallel.")


@app.command()
@takes_options
def demo(
    *,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights.")] = 0,
    settings: Choices,
    delivery: DeliveryOptions,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Make both files from a stand-in checkpoint, without a download.

    The stand-in has the published variables and quantization ranges and random weights: its detections mean
    nothing.
    """
    from runner.convert.stand_in import make_stand_in
    from runner.recipes.recipe import load_recipe

    options = toolchain.script_options()
    model_dir = make_stand_in(choose_engine(toolchain), load_recipe(), seed=seed, options=options)
    console.note("   the stand-in's weights are random: what the two files detect means nothing")
    request = Request(settings, delivery, toolchain, as_json=as_json)
    source = Source(load_recipe(), ("fp32", "uint8"), model_dir, is_stand_in=True)
    run_conversions(source, request)


@dataclass(frozen=True)
class Request:
    """The options of a command that converts."""

    settings: Choices
    delivery: DeliveryOptions
    toolchain: ToolchainOptions
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Source:
    """What is converted; ``pipeline_config`` is that of a model without a recipe of its own."""

    recipe: Recipe
    variants: tuple[str, ...]
    model_dir: Path
    pipeline_config: Path | None = None
    is_stand_in: bool = False


def _convert(variants: tuple[str, ...], checkpoint: CheckpointOptions, request: Request) -> None:
    from runner.checkpoint.fetch import cached_model_dir, obtain_model_dir
    from runner.recipes.recipe import load_recipe

    recipe = load_recipe()
    prefix, model_dir = checkpoint.checkpoint_prefix, checkpoint.model_dir
    if prefix is not None:
        recipe = recipe.with_variants(checkpoint_prefix=prefix)
    if request.dry_run and model_dir is None and (model_dir := cached_model_dir(recipe)) is None:
        _print_missing(recipe, as_json=request.as_json)
        return
    run_conversions(Source(recipe, variants, model_dir or obtain_model_dir(recipe)), request)


def run_conversions(source: Source, request: Request) -> None:
    """Plan and deliver conversions and print the results; with ``dry_run``, print the plan only."""
    from runner.checkpoint.compare import report_weights
    from runner.deliver.cache import user_cache
    from runner.deliver.run import deliver

    plan = _plan(source, request)
    if not source.is_stand_in:
        for conversion in plan.conversions:
            report_weights(conversion.checkpoint.verdict, conversion.checkpoint.prefix, conversion.variant)
    for conversion in plan.conversions:
        for defect in conversion.variant.known_defects:
            console.warn(f"{conversion.variant.name}: {defect}")
    if request.dry_run:
        _print_plan(plan, as_json=request.as_json)
        return
    engine = partial(choose_engine, request.toolchain)
    results = deliver(plan, engine, request.toolchain.script_options(), user_cache())
    _print_results(results, as_json=request.as_json)


def _plan(source: Source, request: Request) -> Plan:
    from runner.convert.export import repair_flags
    from runner.convert.model_facts import obtain_facts
    from runner.convert.speedups import chosen_speedups
    from runner.deliver.plan import Asked, make_plan
    from runner.host.digest_memo import remembered_sha256
    from runner.host.digests import sha256_of
    from runner.toolchain.digest import candidate_toolchain_digests

    asked = Asked(
        recipe=source.recipe,
        variants=source.variants,
        model_dir=source.model_dir,
        pipeline_config=source.pipeline_config,
        out_dir=request.delivery.out,
        choices=request.settings,
        speedups=chosen_speedups(),
        toolchains=candidate_toolchain_digests(request.toolchain.models),
        with_paths=request.delivery.with_paths,
        force=request.delivery.force,
    )

    def read_facts(config: Path, variant: Variant) -> ModelFacts:
        engine, options = choose_engine(request.toolchain), request.toolchain.script_options()
        return obtain_facts(engine, config, options, repair=repair_flags(variant))

    # A digest that is remembered is one that is written down.
    digest = sha256_of if request.dry_run else remembered_sha256
    return make_plan(asked, sha256_of=digest, read_facts=read_facts)


def _print_missing(recipe: Recipe, *, as_json: bool) -> None:
    """Print that there is nothing to plan with yet, and what a run would download."""
    from runner.checkpoint.fetch import archive_url

    if as_json:
        console.result_json({"checkpoint": None, "would_download": archive_url(recipe)})
    else:
        console.result(f"the checkpoint is not here; a run would download {archive_url(recipe)}")


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    from runner.deliver.show import plan_json, plan_lines

    if as_json:
        console.result_json(plan_json(plan))
    else:
        console.result("\n".join(plan_lines(plan)))


def _print_results(results: tuple[Result, ...], *, as_json: bool) -> None:
    """Print what was made: as JSON, or in the form ``sha256sum -c`` reads."""
    if as_json:
        console.result_json([_result_json(result) for result in results])
        return
    for result in results:
        console.note(f"[{result.variant}] {result.verdict}")
        console.result(f"{result.digests.sha256}  {result.copy or result.file}")


def _result_json(result: Result) -> dict[str, object]:
    return {
        "variant": result.variant,
        "file": result.file,
        "copy": result.copy,
        **asdict(result.digests),
        "matches_published": result.matches_published,
    }
