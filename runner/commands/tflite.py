"""Commands that look at finished .tflite files and graphs: verify, diff, inspect, normalize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner import console
from runner.commands.options import AsJson, OptionalPath, ToolchainOptions, choose_engine, takes_options
from runner.errors import IdentityError, UsageError

if TYPE_CHECKING:
    from runner.tflite.diff import ModelDiff

app = typer.Typer()

GRAPH_SUFFIXES: Final = frozenset({".pb", ".meta"})
TfliteFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output file if it is there.")]
ShowAll = Annotated[bool, typer.Option("--all", help="Print every difference, with full values.")]


@app.command()
def verify(
    file: Annotated[
        OptionalPath, typer.Argument(metavar="[FILE]", help="A .tflite file.", show_default=False)
    ] = None,
    *,
    provenance: Annotated[
        OptionalPath,
        typer.Option(metavar="JSON", help="Check every digest in this provenance.json whose file is here."),
    ] = None,
    model_dir: Annotated[
        OptionalPath, typer.Option(help="With --provenance: the checkpoints that it names.")
    ] = None,
    against: Annotated[
        OptionalPath, typer.Option(metavar="REFERENCE", help="Compare with this file instead.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="fp32 or uint8. Default: the one the file resembles.")
    ] = None,
    write: Annotated[
        OptionalPath,
        typer.Option(metavar="OUT", help="If FILE differs in key order only: write the wanted bytes to OUT."),
    ] = None,
    force: Force = False,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Report whether FILE is the published file, or what differs.

    Nothing is downloaded. The published digests decide, because the published bytes are not here.

    Exit code 0: FILE has the published bytes, or the same content in another key order that TOCO can write.
    Exit code 8: the structure is right and the content differs, or the structure or the options differ.

    With --provenance: check that FILE (default: the one beside the provenance), the other files that are here
    and this checkout have the digests that the provenance names. Exit code 0 if so, else 8. So it is without
    that option for a FILE of `convert`, of which nothing is published.
    """
    from runner.download.published import cached_published_files
    from runner.evidence.provenance.own_model import own_provenance
    from runner.recipes.recipe import load_recipe
    from runner.tflite import verify as verifying
    from runner.tflite.reports import verification_lines
    from runner.tflite.rewrite import write_wanted

    if provenance is not None:
        _verify_provenance(provenance, file, model_dir, as_json=as_json)
        return
    if file is None:
        raise UsageError(
            "there is no FILE to verify", tip="name a .tflite, or a provenance.json with --provenance"
        )
    own = own_provenance(file) if against is None and variant is None else None
    if own is not None:
        is_final = file.name == own.subject.name
        _verify_provenance(own.path, file if is_final else None, model_dir, as_json=as_json)
        return
    recipe = load_recipe()
    if against is None:
        published = cached_published_files(recipe)
        found = verifying.verify(file, recipe, variant_name=variant, published_files=published)
    else:
        found = verifying.verify_against(file, against, recipe)
    if as_json:
        console.result_json(found)
    else:
        console.result("\n".join(verification_lines(found, show_all=show_all)))
    if write is not None:
        write_wanted(found, file, write, force=force)
    if not found.verdict.is_good:
        raise IdentityError(f"{file} is not {found.wanted}: {found.verdict.value}")


@app.command()
@takes_options
def diff(
    left: Annotated[Path, typer.Argument(metavar="A", help="A .tflite file, or a graph: .pb or .meta.")],
    right: Annotated[Path, typer.Argument(metavar="B", help="Another of the same kind.")],
    *,
    show_all: ShowAll = False,
    as_json: AsJson = False,
    toolchain: ToolchainOptions,
) -> None:
    """Compare two files by content; key order does not count.

    Exit code 0 if the content is the same, else 8. Only graphs need the toolchain.
    """
    from runner.tflite.reports import diff_lines

    found = _diff_graphs(left, right, toolchain) if _are_graphs(left, right) else _diff_models(left, right)
    if as_json:
        console.result_json({"means_the_same": found.means_the_same, "differences": found.differences})
    else:
        console.result("\n".join(diff_lines(found, show_all=show_all)))
    if not found.means_the_same:
        raise IdentityError(f"{left} and {right} differ")


@app.command()
def inspect(file: TfliteFile, *, as_json: AsJson = False) -> None:
    """Print what is in FILE.

    Inputs and outputs, operators, kind of quantization, post-processing options, converter.
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
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write IN to OUT with the keys of its options in the fixed order.

    TOCO writes the keys of the post-processing options in another order every time. Nothing else changes.
    """
    from runner.tflite import rewrite

    normalized = rewrite.normalize(source, target, force=force)
    console.note(normalized.note)
    if as_json:
        settled = normalized.settled
        order = {"order": settled.order, "order_count": settled.order_count}
        console.result_json(settled.digests, path=normalized.target, note=normalized.note, **order)
    else:
        console.result(f"{normalized.settled.digests.sha256}  {normalized.target}")


def _verify_provenance(provenance: Path, file: Path | None, model_dir: Path | None, *, as_json: bool) -> None:
    from runner.evidence.provenance.verify import check_provenance

    report = check_provenance(provenance, file=file, model_dir=model_dir)
    if as_json:
        console.result_json(report, ok=not report.different)
    else:
        for finding in report.findings:
            console.result(f"{finding.state.value}: {finding.name} ({finding.role.value})")
    if report.different:
        raise IdentityError(report.sentence, tip="they were changed since, or belong to another conversion")
    console.note(report.sentence)


def _are_graphs(left: Path, right: Path) -> bool:
    graphs = [path.suffix in GRAPH_SUFFIXES for path in (left, right)]
    if any(graphs) and not all(graphs):
        raise UsageError(
            f"{left} and {right} are of different kinds",
            tip="compare two .tflite files, or two graphs (.pb, .meta)",
        )
    return all(graphs)


def _diff_models(left: Path, right: Path) -> ModelDiff:
    from runner.tflite.diff import diff_models
    from runner.tflite.model import read_model_file

    return diff_models(read_model_file(left), read_model_file(right))


def _diff_graphs(left: Path, right: Path, toolchain: ToolchainOptions) -> ModelDiff:
    from runner.graph.diff import diff_graphs

    return diff_graphs(choose_engine(toolchain), left, right, toolchain.script_options())
