"""Commands for existing .tflite files and graphs: verify, diff, inspect, normalize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner import console
from runner.commands.options import (
    AsJson,
    OptionalPath,
    Overwrite,
    RecipeName,
    ToolchainOptions,
    takes_options,
)
from runner.errors import IdentityError, UsageError
from runner.recipes.recipe import DEFAULT_RECIPE

app = typer.Typer()

TfliteFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file.")]
ShowAll = Annotated[bool, typer.Option("--all", help="Print every difference, with full values.")]


@app.command()
def verify(
    file: Annotated[
        OptionalPath, typer.Argument(metavar="[FILE]", help="A .tflite file.", show_default=False)
    ] = None,
    *,
    recipe: RecipeName = DEFAULT_RECIPE,
    provenance: Annotated[
        OptionalPath,
        typer.Option(
            metavar="JSON", help="Check the digests in this provenance.json for all available files."
        ),
    ] = None,
    model_dir: Annotated[
        OptionalPath, typer.Option(help="With --provenance: the model directory of the conversion.")
    ] = None,
    against: Annotated[
        OptionalPath,
        typer.Option(metavar="REFERENCE", help="Compare with this file, not with the published one."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="fp32 or uint8. Default: the one that the file resembles.")
    ] = None,
    write: Annotated[
        OptionalPath,
        typer.Option(metavar="OUT", help="If FILE has the same content: write the published bytes to OUT."),
    ] = None,
    overwrite: Overwrite = False,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Report whether FILE is the published file, or what differs.

    Nothing is downloaded: FILE is compared with the published digests, which are part of the recipe.

    Exit code 0: FILE has the published bytes, or the same content in another key order that a TOCO built from
    public source can write. With --against, another layout or other metadata is accepted too.
    Exit code 8: the content, the structure or the options differ.

    With --against, the verdict, the differences and the exit code are those of `diff FILE REFERENCE`.

    With --provenance: check that FILE (default: the one beside the provenance), the other available files
    and this program have the digests recorded in the provenance. Exit code 0 if all digests match, else 8. A
    FILE that `convert` made is always checked like this, because there is no published file to compare with.
    """
    from runner.evidence.provenance.own_model import own_provenance
    from runner.evidence.provenance.verify import warn_of_other_recipe
    from runner.recipes.recipe import load_recipe
    from runner.tflite.reports import verification_lines
    from runner.tflite.rewrite import write_wanted
    from runner.tflite.verify import verify_file

    if provenance is not None:
        _verify_provenance(provenance, file, model_dir, as_json=as_json)
        return
    if file is None:
        raise UsageError(
            "no FILE to verify is given", tip="name a .tflite, or a provenance.json with --provenance"
        )
    own = own_provenance(file) if against is None and variant is None else None
    if own is not None:
        is_final = file.name == own.subject.name
        _verify_provenance(own.path, file if is_final else None, model_dir, as_json=as_json)
        return
    loaded = load_recipe(recipe)
    if against is None:
        warn_of_other_recipe(file, loaded)
    found = verify_file(file, loaded, against=against, variant_name=variant)
    if as_json:
        console.result_json(found)
    else:
        console.result("\n".join(verification_lines(found, show_all=show_all)))
    if write is not None:
        write_wanted(found, file, write, overwrite=overwrite)
    if not found.verdict.is_same_content:
        raise IdentityError(f"{file} is not {found.wanted}: {found.verdict.value}")


@app.command()
@takes_options
def diff(
    left: Annotated[Path, typer.Argument(metavar="A", help="A .tflite file, or a graph: .pb or .meta.")],
    right: Annotated[Path, typer.Argument(metavar="B", help="Another file of the same kind.")],
    *,
    show_all: ShowAll = False,
    as_json: AsJson = False,
    toolchain: ToolchainOptions,
) -> None:
    """Compare two files by content, ignoring key order.

    Differences are printed as A -> B. Exit code 0 if the content is the same, even if the key order, the
    layout or the metadata differ; else 8. Only graphs need the toolchain.
    """
    from runner.graph.diff import diff_files
    from runner.tflite.reports import diff_lines

    found = diff_files(left, right, toolchain.provider())
    if as_json:
        console.result_json(found, means_the_same=found.means_the_same)
    else:
        console.result("\n".join(diff_lines(found, show_all=show_all)))
    if not found.means_the_same:
        raise IdentityError(f"{left} and {right} differ: {found.verdict.value}")


@app.command()
def inspect(file: TfliteFile, *, as_json: AsJson = False) -> None:
    """Print what is in FILE.

    Prints inputs, outputs, operators, the kind of quantization, post-processing options and the converter.
    """
    from runner.tflite.model import read_model_file
    from runner.tflite.reports import summary_lines
    from runner.tflite.summary import summarise

    summary = summarise(read_model_file(file))
    if as_json:
        console.result_json(summary)
    else:
        console.result("\n".join(summary_lines(summary)))


@app.command()
def normalize(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A .tflite file that TOCO wrote; it is not changed.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    *,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write IN to OUT with the keys of its options in the fixed order.

    TOCO writes the keys of the post-processing options in one of many possible orders, at random. The fixed
    order is the alphabetically first of these. Nothing else in the file changes.
    """
    from runner.tflite import rewrite

    normalized = rewrite.normalize(source, target, overwrite=overwrite)
    console.note(normalized.note)
    if as_json:
        file = normalized.file
        order = {"order": file.order, "order_count": file.order_count}
        console.result_json(file.digests, path=normalized.target, note=normalized.note, **order)
    else:
        console.result(f"{normalized.file.digests.sha256}  {normalized.target}")


def _verify_provenance(provenance: Path, file: Path | None, model_dir: Path | None, *, as_json: bool) -> None:
    from runner.evidence.provenance.verify import check_provenance

    report = check_provenance(provenance, file=file, model_dir=model_dir)
    if as_json:
        console.result_json(report, ok=not report.different)
    else:
        for finding in report.findings:
            console.result(f"{finding.state.value}: {finding.name} ({finding.role.value})")
    if report.different:
        raise IdentityError(report.sentence, tip="use the files that the conversion wrote, unchanged")
    console.note(report.sentence)
