"""Commands that convert the checkpoints of a recipe: all variants, one kind, or a stand-in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner import console
from runner.commands.options import (
    DEFAULT_OUT,
    AsJson,
    Choices,
    ModelDir,
    OutDir,
    RecipeName,
    TocoToolchain,
    ToolchainOptions,
    choose_engine,
    takes_options,
)
from runner.errors import UsageError
from runner.recipes.recipe import DEFAULT_RECIPE

if TYPE_CHECKING:
    from pathlib import Path

    from runner.deliver.plan import Plan
    from runner.deliver.request import Request
    from runner.deliver.run import Result
    from runner.recipes.recipe import Recipe
    from runner.scripts.provider import ToolchainProvider

app = typer.Typer()

PAGE_NAME: Final = "report.html"


@dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
    """Which TOCO to use, where to write the results, what to record about them, which files to replace."""

    out: OutDir = DEFAULT_OUT
    toco_toolchain: TocoToolchain = None
    with_paths: Annotated[
        bool, typer.Option("--with-paths", help="Record this machine's folders in the provenance.")
    ] = False
    force: Annotated[
        bool, typer.Option("--force", help="Convert again, even if the cache has the result.")
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in --out that this program did not make.")
    ] = False
    report: Annotated[
        bool, typer.Option("--report", help="Also write OUT/report.html, a page about the results.")
    ] = False


DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan only: build, start, download and write nothing."),
]


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Where the checkpoints are."""

    recipe: RecipeName = DEFAULT_RECIPE
    model_dir: ModelDir = None
    checkpoint_prefix: Annotated[
        str | None,
        typer.Option(help="The file name prefix of the checkpoints. Default: the one in the recipe."),
    ] = None


def _add_command(name: str, description: str, *, is_quantized: bool | None = None) -> None:
    """Add a command that converts all variants of a recipe, or only the float or the quantized variants.

    All commands that this function adds take the same options.
    """

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
        options = ConvertOptions(checkpoint, settings, delivery, toolchain)
        from runner.recipes.recipe import load_recipe

        recipe = load_recipe(checkpoint.recipe)
        _convert(recipe, _variants_of(recipe, is_quantized), options, dry_run=dry_run, as_json=as_json)

    app.command(name, help=description)(convert_variants)


_add_command("fp32", "Make the float .tflite of a recipe: mobiledet.tflite.", is_quantized=False)
_add_command("uint8", "Make the quantized .tflite of a recipe: mobiledet_qat.tflite.", is_quantized=True)
_add_command("build-all", "Make all .tflite files of a recipe, in parallel.")


def _variants_of(recipe: Recipe, is_quantized: bool | None) -> tuple[str, ...]:
    """Return the names of the variants of one kind, or of all if ``is_quantized`` is None.

    Raises:
        UsageError: there is no such variant.
    """
    found = tuple(it.name for it in recipe.variants.values() if is_quantized in (None, it.is_quantized))
    if not found:
        kind = "quantized" if is_quantized else "float"
        raise UsageError(
            f"{recipe.name} has no {kind} variant",
            tip=f"`build-all` converts all its variants: {', '.join(recipe.variants)}",
        )
    return found


@app.command()
@takes_options
def demo(
    *,
    recipe: RecipeName = DEFAULT_RECIPE,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights.")] = 0,
    settings: Choices,
    delivery: DeliveryOptions,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Convert a stand-in checkpoint with random weights, without a download.

    The stand-in has the variables and quantization ranges of the published checkpoint, but random weights, so
    its detections are meaningless. If a recipe ships its checkpoints, those are converted instead.
    """
    from runner.convert.stand_in import make_stand_in
    from runner.recipes.recipe import load_recipe

    loaded = load_recipe(recipe)
    if loaded.ships_checkpoint:
        options = ConvertOptions(CheckpointOptions(), settings, delivery, toolchain)
        _convert(loaded, tuple(loaded.variants), options, as_json=as_json)
        return
    model_dir = make_stand_in(choose_engine(toolchain), loaded, seed=seed, options=toolchain.script_options())
    console.note("   the stand-in's weights are random: the detections of the two files are meaningless")
    options = ConvertOptions(CheckpointOptions(model_dir=model_dir), settings, delivery, toolchain)
    _convert(loaded, tuple(loaded.variants), options, as_json=as_json, is_stand_in=True)


@dataclass(frozen=True)
class ConvertOptions:
    """The options of a command that converts."""

    checkpoint: CheckpointOptions
    settings: Choices
    delivery: DeliveryOptions
    toolchain: ToolchainOptions


def _convert(
    recipe: Recipe,
    variants: tuple[str, ...],
    options: ConvertOptions,
    *,
    as_json: bool,
    dry_run: bool = False,
    is_stand_in: bool = False,
) -> None:
    prefix = options.checkpoint.checkpoint_prefix
    if prefix is not None:
        recipe = recipe.with_variants(checkpoint_prefix=prefix)
    request = new_request(recipe, variants, options.checkpoint.model_dir, options)
    run_request(replace(request, is_stand_in=is_stand_in), options, dry_run=dry_run, as_json=as_json)


def new_request(
    recipe: Recipe, variants: tuple[str, ...], model_dir: Path | None, options: ConvertOptions
) -> Request:
    """Return the request to convert variants of a recipe with the options of a command."""
    from runner.deliver.request import Request

    if options.delivery.toco_toolchain is not None:
        recipe = recipe.with_variants(toolchain=options.delivery.toco_toolchain)
    return Request(
        recipe=recipe,
        variants=variants,
        model_dir=model_dir,
        out_dir=options.delivery.out,
        choices=options.settings,
        models=options.toolchain.models,
        with_paths=options.delivery.with_paths,
        force=options.delivery.force,
        overwrite=options.delivery.overwrite,
    )


def run_request(request: Request, options: ConvertOptions, *, dry_run: bool, as_json: bool) -> None:
    """Convert as requested and print the results; in a dry run, print only the plan."""
    from runner.deliver.request import handle_request, plan_only

    provider = options.toolchain.provider()
    if not dry_run:
        page = request.out_dir / PAGE_NAME if options.delivery.report else None
        if page is not None:
            _require_page(page, overwrite=request.overwrite)
        results = handle_request(request, provider)
        _print_results(results, as_json=as_json)
        if page is not None:
            _write_page(page, request.recipe, results, provider)
    elif (plan := plan_only(request, provider)) is None:
        _print_missing(request.recipe, as_json=as_json)
    else:
        _print_plan(plan, as_json=as_json)


def _require_page(page: Path, *, overwrite: bool) -> None:
    from runner.report.write import require_replaceable

    require_replaceable(page, overwrite=overwrite)


def _write_page(page: Path, recipe: Recipe, results: tuple[Result, ...], provider: ToolchainProvider) -> None:
    from runner.report.collect import ReportRequest, collect
    from runner.report.subject import find_subjects
    from runner.report.write import write_page

    reference = None if recipe.data_dir is None else recipe.reference
    subjects = find_subjects([result.file for result in results], recipe=reference)
    console.note(f"page: {write_page(collect(ReportRequest(subjects=subjects), provider), page)}")


def _print_missing(recipe: Recipe, *, as_json: bool) -> None:
    """Print that there is no plan yet, because the checkpoint would have to be downloaded first."""
    from runner.checkpoint.fetch import archive_url

    if as_json:
        console.result_json({"checkpoint": None, "would_download": archive_url(recipe)})
    else:
        console.result(
            f"no plan: the checkpoint is not in the cache; a run would first download {archive_url(recipe)}"
        )


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    from runner.deliver.show import plan_json, plan_lines

    if as_json:
        console.result_json(plan_json(plan))
    else:
        console.result("\n".join(plan_lines(plan)))


def _print_results(results: tuple[Result, ...], *, as_json: bool) -> None:
    """Print the results: as JSON, or in the format that ``sha256sum -c`` reads."""
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
