"""Commands about recipes: list them, show one, generate one."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner import console
from runner.commands.options import AsJson, OptionalPath, ToolchainOptions, choose_engine, takes_options
from runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.recipes.recipe import Recipe, Variant

app = typer.Typer(
    name="recipes",
    no_args_is_help=True,
    help="List, show or generate recipes: models that the program knows by name.",
)


@app.command("list")
def list_recipes(*, as_json: AsJson = False) -> None:
    """List the recipes that ship with the program."""
    from runner.recipes.recipe import load_recipe, recipe_names

    rows = [row for name in recipe_names() for row in _rows(load_recipe(name))]
    if as_json:
        console.result_json(rows)
        return
    width = max(len(row["recipe"]) for row in rows)
    for row in rows:
        console.result(f"{row['recipe']:{width}}  {row['variant']:5}  {row['shape']:13}  {row['status']}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A recipe's name or folder.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show the contents of a recipe, and its command lines for native toco and for tflite_convert."""
    from runner.recipes.recipe import load_recipe

    loaded = load_recipe(recipe)
    if as_json:
        console.result_json(_as_json(loaded))
    else:
        console.result("\n".join(_lines(loaded)))


@app.command()
@takes_options
def new(
    folder: Annotated[Path, typer.Argument(help="The folder to write; its name becomes the recipe's name.")],
    *,
    pipeline_config: Annotated[
        OptionalPath, typer.Option(help="The pipeline config of a single model.")
    ] = None,
    model_dir: Annotated[
        OptionalPath, typer.Option(help="A folder with one or more models, each with its config.")
    ] = None,
    archive: Annotated[
        OptionalPath, typer.Option(help="An archive (.tar.gz or .tar) with one or more models.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where the archive can be downloaded.")] = None,
    title: Annotated[str | None, typer.Option(help="The title. Default: the folder's name.")] = None,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Generate a recipe.toml from a config, a model folder or an archive.

    From each config, the toolchain reads the input shape and whether the model is quantized. The settings of
    the recipe are the defaults of `convert`.
    """
    from runner.convert.model_facts import obtain_facts
    from runner.convert.new_recipe import FoundModel, find_models, recipe_text, write_recipe

    given = [path for path in (pipeline_config, model_dir, archive) if path is not None]
    if len(given) != 1:
        raise UsageError("exactly one of --pipeline-config, --model-dir and --archive is needed")
    with tempfile.TemporaryDirectory(prefix="recipe-") as scratch:
        if pipeline_config is not None:
            models: tuple[FoundModel, ...] = (FoundModel(config=_existing(pipeline_config)),)
        elif archive is not None:
            models = find_models(_unpacked(_existing(archive), Path(scratch)))
        else:
            models = find_models(given[0].expanduser().resolve())
        engine, options = choose_engine(toolchain), toolchain.script_options()
        known = tuple((model, obtain_facts(engine, model.config, options)) for model in models)
    target = folder.expanduser().absolute()
    path = write_recipe(target, recipe_text(title or target.name, known, url=url))
    if as_json:
        console.result_json({"recipe": str(path)})
    else:
        console.result(str(path))


def _existing(path: Path) -> Path:
    real = path.expanduser().resolve()
    if not real.is_file():
        raise UsageError(f"{path} does not exist or is not a file")
    return real


def _unpacked(archive: Path, scratch: Path) -> Path:
    """Unpack an archive and return the folder with its models, usually the only folder in it."""
    from runner.download.unpack import unpack

    unpack(archive, scratch)
    inside = [path for path in scratch.iterdir() if path.is_dir()]
    is_wrapped = len(inside) == 1 and len(list(scratch.iterdir())) == 1
    return inside[0] if is_wrapped else scratch


def _rows(recipe: Recipe) -> list[dict[str, Any]]:
    from runner.recipes.status import evidence_of, status_of

    return [
        {
            "recipe": recipe.name,
            "title": recipe.title,
            "variant": variant.name,
            "is_quantized": variant.is_quantized,
            "shape": "x".join(map(str, variant.input_shape or ())) or "in the config",
            "status": status_of(variant, evidence).value,
            "evidence": evidence,
            "refused": variant.refused,
            "known_defects": variant.known_defects,
        }
        for variant in recipe.variants.values()
        for evidence in (evidence_of(variant),)
    ]


def _as_json(recipe: Recipe) -> dict[str, Any]:
    from runner.proof.recipe_commands import commands_of

    entry = asdict(recipe)
    del entry["data_dir"]
    for name, variant in recipe.variants.items():
        del entry["variants"][name]["data_dir"]
        entry["variants"][name]["commands"] = asdict(commands_of(variant))
    return entry


def _lines(recipe: Recipe) -> Iterator[str]:
    yield f"{recipe.name}: {recipe.title}"
    yield from (f"archive: {url}" for url in (("none",) if recipe.archive is None else recipe.archive.urls))
    for variant in recipe.variants.values():
        yield ""
        yield from _variant_lines(variant)


def _variant_lines(variant: Variant) -> Iterator[str]:
    from runner.proof.dialects import shell_text
    from runner.proof.recipe_commands import commands_of
    from runner.recipes.settings import config_edits

    yield f"{variant.name}: {'quantized' if variant.is_quantized else 'float'}, {variant.file_name}"
    if variant.refused is not None:
        yield f"  refused: {variant.refused}"
    yield from (f"  known defect: {sentence}" for sentence in variant.known_defects)
    for accuracy in variant.accuracy:
        yield f"  {accuracy.metric} {accuracy.value:g} on {accuracy.dataset} ({accuracy.source})"
    if variant.published is not None:
        yield from (f"  published {name}: {digest}" for name, digest in variant.published.digests.items())
    edits = {**variant.config_set, **config_edits(variant.settings)}
    yield from (f"  config: {field} = {value}" for field, value in edits.items())
    yield from (f"  config: {field} is removed" for field in variant.config_remove)
    yield f"  TOCO: from the toolchain {variant.toolchain}, with the command line of {variant.dialect.value}"
    commands = commands_of(variant)
    for argv in (commands.export, commands.toco, commands.tflite_convert):
        if argv is not None:
            yield f"\n{shell_text(argv)}"
