"""Commands about what a result is worth: prove the toolchain, check a file, explain it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import AsJson, ToolchainOptions, choose_engine, takes_options
from runner.errors import IdentityError

if TYPE_CHECKING:
    from runner.prove import Proof

app = typer.Typer()


@app.command()
@takes_options
def prove(*, toolchain: ToolchainOptions, as_json: AsJson = False) -> None:
    """Rebuild the inference graph MLCommons exported and compare it with the published digests.

    It needs no weights and no download of a checkpoint. Exit code 8 if anything is not as it should be.
    """
    from runner.prove import prove as prove_toolchain
    from runner.recipe import load_recipe

    proof = prove_toolchain(choose_engine(toolchain), load_recipe(), toolchain.script_options())
    _print_proof(proof, as_json=as_json)
    if not proof.holds:
        message = "; ".join(variant.sentence for variant in proof.variants if not variant.holds)
        raise IdentityError(message, tip="`doctor` says which toolchain this is; `--models` chooses the tree")


@app.command()
def explain(
    path: Annotated[
        Path, typer.Argument(help="A .tflite, a provenance.json, or the folder of a conversion.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Say in words what a file is, how it was made, what is proven about it, and what is not."""
    from runner.explain import explain as explain_path

    explanation = explain_path(path)
    if as_json:
        console.result_json(explanation.as_json())
    else:
        console.result(explanation.as_markdown())


def _print_proof(proof: Proof, *, as_json: bool) -> None:
    from runner.prove import MEANING

    if as_json:
        console.result_json(proof.as_json())
        return
    for variant in proof.variants:
        console.result(variant.sentence)
    console.result(MEANING)
