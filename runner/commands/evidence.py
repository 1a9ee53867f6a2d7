"""Commands that provide evidence about a file: prove, recover, match, check, explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import (
    DEFAULT_OUT,
    AsJson,
    OptionalPath,
    OutDir,
    Overwrite,
    RecipeName,
    ToolchainOptions,
    choose_engine,
    takes_options,
)
from runner.errors import IdentityError, UsageError
from runner.recipes.recipe import DEFAULT_RECIPE

if TYPE_CHECKING:
    from runner.proof.rebuild import Proof

app = typer.Typer()

ConfigOfFile = Annotated[
    OptionalPath, typer.Option(help="The pipeline config of FILE, if no recipe contains it.")
]


@app.command()
@takes_options
def prove(
    file: Annotated[
        Path | None,
        typer.Argument(help="The .tflite to reproduce. Default: the published inference graph."),
    ] = None,
    *,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="The recipe of FILE. Default: the one whose variables fit FILE; without FILE, MobileDet's.",
        ),
    ] = None,
    pipeline_config: ConfigOfFile = None,
    build_missing: Annotated[
        bool,
        typer.Option("--all", help="With FILE: build the toolchains that are not built yet, and try all."),
    ] = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Prove that this toolchain reproduces FILE or the published graph.

    With FILE: a checkpoint is recovered from FILE (see recover) and exported. The graph is converted with the
    TOCO of each built toolchain, with both dialects of its command line (see match). The results are compared
    with FILE. The original checkpoint and provenance of FILE are not read.

    Without FILE: the inference graph is rebuilt from random weights, and its digest is compared with the
    published one. No checkpoint is needed.

    Exit code 8 if the file or a digest differs.
    """
    if file is not None:
        _prove_file(file, recipe, pipeline_config, toolchain, build_missing=build_missing, as_json=as_json)
        return
    for flag, is_given in (("--pipeline-config", pipeline_config is not None), ("--all", build_missing)):
        if is_given:
            raise UsageError(f"{flag} needs a FILE: `prove FILE {flag}`", tip="name the .tflite file")
    from runner.proof.rebuild import prove as prove_toolchain
    from runner.recipes.recipe import load_recipe

    proof = prove_toolchain(
        choose_engine(toolchain), load_recipe(recipe or DEFAULT_RECIPE), toolchain.script_options()
    )
    _print_proof(proof, as_json=as_json)
    if not proof.holds:
        message = "; ".join(variant.sentence for variant in proof.variants if not variant.holds)
        raise IdentityError(
            message,
            tip="`doctor` shows the toolchain; `--models` chooses the source of its tensorflow/models",
        )


def _prove_file(
    file: Path,
    recipe: str | None,
    pipeline_config: Path | None,
    toolchain: ToolchainOptions,
    *,
    build_missing: bool,
    as_json: bool,
) -> None:
    from runner.proof.recovery.prove_file import MEANING, prove_file
    from runner.proof.recovery.recover import read_subject

    subject = read_subject(file, recipe=recipe, config=pipeline_config)
    proof = prove_file(file, subject, toolchain.provider(), build_missing=build_missing)
    if as_json:
        console.result_json(proof, verdict=proof.verdict, best=proof.best, holds=proof.holds, meaning=MEANING)
    else:
        console.result("\n".join(proof.lines()))
    if not proof.holds:
        raise IdentityError(
            f"this toolchain does not reproduce {file} from the config of {subject.source.title}",
            tip="the report lists what differs; try another config with --pipeline-config",
        )


@app.command()
@takes_options
def recover(
    file: Annotated[Path, typer.Argument(help="A .tflite that TOCO made, float or quantization-aware.")],
    *,
    out: OutDir,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="The recipe with the config. Default: the one whose variables fit FILE.",
        ),
    ] = None,
    pipeline_config: ConfigOfFile = None,
    overwrite: Overwrite = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Make a TF1 checkpoint and a config whose conversion gives FILE.

    The checkpoint can be used to make the file again and to fine-tune from its folded weights. It is not the
    original training state: batch norms are folded, and the weights of a quantized model are rounded. The
    details are in OUT/README.md.
    """
    from runner.proof.recovery.recover import read_subject
    from runner.proof.recovery.recover import recover as recover_checkpoint

    subject = read_subject(file, recipe=recipe, config=pipeline_config)
    made = recover_checkpoint(
        choose_engine(toolchain), subject, out, toolchain.script_options(), overwrite=overwrite
    )
    if as_json:
        console.result_json(made)
        return
    console.note(
        f"{made.determined} of {made.variables} variables are determined by the file and "
        f"the config of {made.source}"
    )
    console.result(str(made.folder))


@app.command(context_settings={"ignore_unknown_options": True})
@takes_options
def match(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file of unknown origin.")],
    more_flags: Annotated[
        list[str] | None,
        typer.Argument(help="After `--`: further flags of the native toco with which FILE was made."),
    ] = None,
    *,
    graph: Annotated[Path, typer.Option(help="The frozen graph FILE was made from: tflite_graph.pb.")],
    build_missing: Annotated[
        bool, typer.Option("--all", help="Try all toolchains, and build those that are not built yet.")
    ] = False,
    show_all: Annotated[
        bool, typer.Option("--show-all", help="Print all differences from the closest result, in full.")
    ] = False,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Report which TOCO and command line produce FILE from its graph.

    The graph is converted with the TOCO of each built toolchain, with both dialects of its command line:
    native and tflite_convert, which differ in a default. Each result is compared with FILE in every key
    order.

    Exit code 0: at least one result has the bytes of FILE; each such result is printed with its command.
    Exit code 8: no result has the bytes of FILE; the closest result is printed with its differences.
    """
    from runner.proof.match import MatchRequest
    from runner.proof.match import match as match_file
    from runner.proof.match_report import report_lines

    request = MatchRequest(
        file=file.expanduser().resolve(),
        graph=graph.expanduser().resolve(),
        options=toolchain.script_options(),
        more_flags=tuple(more_flags or ()),
        build_missing=build_missing,
    )
    report = match_file(choose_engine(toolchain), request)
    if as_json:
        named = [(attempt.toolchain, attempt.dialect.value) for attempt in report.matches]
        nearest = report.nearest
        console.result_json(report, matches=named, nearest=(nearest.toolchain, nearest.dialect.value))
    else:
        console.result("\n".join(report_lines(report, show_all=show_all)))
    if not report.matches:
        raise IdentityError(f"none of the tried TOCOs produces {file} from {graph}")


@app.command()
@takes_options
def check(
    path: Annotated[
        Path, typer.Argument(help="A .tflite, the folder of one conversion, or an output directory.")
    ] = DEFAULT_OUT,
    *,
    recipe: RecipeName = DEFAULT_RECIPE,
    graph: Annotated[
        OptionalPath, typer.Option(help="The frozen graph of the file. Default: the one beside the file.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="fp32 or uint8. Default: by the input type of the file.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Compare outputs on this image; can be repeated.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the random images that are used without --image.")
    ] = 0,
    count: Annotated[int, typer.Option(min=1, max=100, help="The number of random images.")] = 2,
    change_concat_input_ranges: Annotated[
        bool | None,
        typer.Option(
            "--change-concat-input-ranges/--no-change-concat-input-ranges",
            help="The value of this TOCO flag in the conversion. Default: the value in the provenance, or "
            "else the value that fits the file.",
        ),
    ] = None,
    toolchain: ToolchainOptions,
    as_json: AsJson = False,
) -> None:
    """Check that a .tflite computes what its frozen graph computes.

    Weights, scales, zero points and options are compared exactly. Outputs are compared on images. In a
    quantized model, rounding errors grow from layer to layer. So on images given with --image, its outputs
    must agree within a limit; on random images, the differences are only reported.

    Exit code 8 if the check fails.
    """
    from runner.evidence.check import files as checking
    from runner.evidence.check.run import require_passed
    from runner.evidence.provenance.own_model import recorded_own_recipe
    from runner.recipes.recipe import load_recipe

    own = recorded_own_recipe(path)
    pairs = checking.find_pairs(
        path, own or load_recipe(recipe), graph=graph, variant_name=variant, concat=change_concat_input_ranges
    )
    inputs = checking.Inputs(images=tuple(image or ()), seed=seed, count=count)
    reports = checking.check_pairs(choose_engine(toolchain), pairs, inputs, toolchain.script_options())
    checked = tuple(zip(pairs, reports, strict=True))
    if as_json:
        console.result_json(
            [{"file": str(pair.tflite), "graph": str(pair.graph), **it.to_json()} for pair, it in checked]
        )
    else:
        console.result("\n".join(line for pair, it in checked for line in checking.lines(it, pair)))
    for pair, report in checked:
        require_passed(report, pair.tflite)


@app.command()
def explain(
    path: Annotated[
        Path, typer.Argument(help="A .tflite, a provenance.json, or the folder of a conversion.")
    ],
    *,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="The recipe of the file, or another recipe to compare the file with. Default: the recipe in "
            "its provenance.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Describe what a file is, how it was made, and what is proven."""
    from runner.proof.explain import explain as explain_path

    explanation = explain_path(path, recipe)
    if as_json:
        console.result_json(explanation)
    else:
        console.result(explanation.as_markdown())


def _print_proof(proof: Proof, *, as_json: bool) -> None:
    from runner.proof.rebuild import MEANING

    if as_json:
        console.result_json(proof, holds=proof.holds, meaning=MEANING)
        return
    for variant in proof.variants:
        console.result(variant.sentence)
    console.result(MEANING)
