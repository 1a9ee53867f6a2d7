"""Explain a file as text: what it is, its inputs and commands, and what is proven about it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runner.convert.plan import PROVENANCE_NAME
from runner.download.published import cached_published_files
from runner.errors import UsageError
from runner.evidence.provenance.find import find_provenance
from runner.evidence.provenance.own_model import convert_command, recorded_recipe
from runner.evidence.provenance.read import GraphOrigin, Role, read_provenance
from runner.host.digests import digest_file
from runner.proof.dialects import as_tflite_convert, shell_text
from runner.proof.explanation import Command, Explanation
from runner.recipes.recipe import DEFAULT_RECIPE, DEFAULT_TOOLCHAIN, load_recipe
from runner.recipes.settings import command_line
from runner.tflite.diff import Verdict
from runner.tflite.model import read_model_file
from runner.tflite.summary import summarise
from runner.tflite.verify import verify
from runner.toolchain.catalog import load_toolchain, toolchain_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.evidence.provenance.read import Provenance, Step
    from runner.recipes.recipe import Recipe
    from runner.tflite.summary import Summary
    from runner.tflite.verify import Verification

PUBLISHED: Final = "It is **the published file**: it has all publicly known digests of the published file."
NOT_COMPARED: Final = (
    "**How it differs from the published file.** The published file is not available to this project, so no "
    "result was ever compared with it byte by byte. Some digests of the published file are public, and the "
    "digests of this file are different."
)
ORIGIN: Final = (
    "Where the published files come from. They were made by a TOCO built from an unnamed TensorFlow source "
    "tree, with an unnamed commit of tensorflow/models. The version matters: for example, the outputs of "
    "TOCO of TensorFlow 1.15 and of 2.1 differ in 5 bytes. `prove` shows that this toolchain rebuilds an "
    "inference graph that MLCommons exported later. It does not show that the published files came from it."
)
ACCURACY: Final = "How well the model detects: accuracy is not measured."
NO_SIGNATURE: Final = (
    "Who made it: the provenance is not signed. `verify --provenance` only shows that the "
    "provenance matches the files."
)
NOT_AUDITED: Final = (
    "That the export script exports the same frozen graph: the graph came from a graph template, which was "
    "not audited on this checkpoint. Convert it again with `--export script` and compare the sha256."
)
NO_PROVENANCE: Final = (
    "How it was made: no provenance.json in the folder of the file, or one level below, contains its sha256."
)


def explain(path: Path, recipe_name: str | None = None) -> Explanation:
    """Explain a ``.tflite``, a provenance, or the folder of a conversion.

    ``recipe_name`` is used instead of the recipe that the provenance names. It is needed if that recipe does
    not ship with the program; then it is the folder of the recipe.

    Raises:
        UsageError: there is nothing to explain at this path.
        IntegrityError: the file is neither a ``.tflite`` nor a provenance of this tool, or is damaged.
    """
    if path.is_dir():
        return explain_provenance(read_provenance(_provenance_in(path)), recipe_name)
    if path.suffix == ".json":
        return explain_provenance(read_provenance(path), recipe_name)
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}", tip="name a .tflite, a provenance.json, or the folder of a conversion"
        )
    provenance = find_provenance(path)
    if provenance is None:
        return explain_file(path, recipe_name)
    return _for_file(path, read_provenance(provenance), recipe_name)


def _provenance_in(folder: Path) -> Path:
    below = sorted(folder.glob(f"*/{PROVENANCE_NAME}"))
    if below and not (folder / PROVENANCE_NAME).exists():
        raise UsageError(
            f"{folder} contains {len(below)} conversions",
            tip=f"name one of {', '.join(str(path.parent) for path in below)}",
        )
    return folder / PROVENANCE_NAME


# A file that this tool made.


def _for_file(path: Path, provenance: Provenance, recipe_name: str | None) -> Explanation:
    """Explain a conversion, given one of its files."""
    explanation, sha256 = explain_provenance(provenance, recipe_name), digest_file(path).sha256
    if sha256 == provenance.subject.digests["sha256"]:
        return explanation
    roles = [named.role.value for named in provenance.byproducts if named.digests["sha256"] == sha256]
    said = f"`{path.name}` belongs to this conversion ({', '.join(roles)}). The final file of the conversion:"
    return replace(explanation, what=(said, *explanation.what))


def explain_provenance(provenance: Provenance, recipe_name: str | None = None) -> Explanation:
    """Explain the conversion that a provenance records."""
    subject, request = provenance.subject, provenance.request
    own, toco = recorded_recipe(provenance), toco_title(provenance)
    recipe = own or load_recipe(recipe_name or str(request.recipe))
    name = f"The {request.variant} variant of {recipe.title}" if own is None else _own_model(own)
    return Explanation(
        title=subject.name,
        what=(
            f"{name}, converted with TOCO of {toco} by mobiledet-runner {provenance.version}.",
            f"sha256 `{subject.digests['sha256']}`",
            *([] if own else [compared_with_the_published_file(provenance, recipe)]),
            *([] if own or request.is_of(recipe) else [_other_recipe(provenance, recipe)]),
        ),
        made_from=tuple(_inputs(provenance)),
        commands=tuple(_commands(provenance, recipe)),
        proven=tuple(_proven(provenance)),
        not_proven=tuple(_not_proven(provenance)),
    )


def toco_title(provenance: Provenance) -> str:
    """Return the TensorFlow version of the TOCO that converted, or the name of its toolchain."""
    toolchain = provenance.request.toolchain
    return load_toolchain(toolchain).title if toolchain in toolchain_names() else toolchain


def _own_model(recipe: Recipe) -> str:
    (variant,) = recipe.variants.values()
    kind = "quantized (uint8)" if variant.is_quantized else "float"
    return f"A user's own {kind} model, with input {list(variant.input_shape or ())}"


def _other_recipe(provenance: Provenance, recipe: Recipe) -> str:
    request = provenance.request
    return (
        f"It was made with **another recipe** than the current {recipe.reference}. That recipe is called "
        f"{request.recipe} and has the sha256 `{request.recipe_sha256}`. Statements about the recipe on this "
        "page may be wrong; pass the right recipe with `--recipe FOLDER`."
    )


def compared_with_the_published_file(provenance: Provenance, recipe: Recipe) -> str:
    """Return Markdown that states whether a conversion gave the published file, and if not, why."""
    if provenance.is_published_file:
        return PUBLISHED
    return _not_the_published_file(provenance, recipe)


def _not_the_published_file(provenance: Provenance, recipe: Recipe) -> str:
    request = provenance.request
    usual = recipe.variants[request.variant].settings
    changed = command_line(request.settings, usual, only_file_changing=True)
    if changed:
        return f"It is **not the published file**, and cannot be: it was made with {' '.join(changed)}."
    checkpoint, because = provenance.dependency(Role.CHECKPOINT), provenance.is_published_because
    if checkpoint is None:
        return (
            f"It is **not the published file** ({because}). No digest of the published frozen graph is "
            "known, so it is not known whether this file was made from that graph."
        )
    if not checkpoint.annotations.get("isPublishedCheckpoint"):
        return "It is **not the published file**, and cannot be: its weights are not the published ones."
    return (
        f"It is **not the published file** ({because}), although it was made from the published weights; the "
        "reason is not known."
    )


def _inputs(provenance: Provenance) -> Iterator[str]:
    for named in provenance.dependencies:
        digests = [f"{algorithm} `{digest}`" for algorithm, digest in named.digests.items()]
        is_digest_in_name = any(digest in named.name for digest in named.digests.values())
        name = ", ".join((named.name, *([] if is_digest_in_name else digests)))
        extra = next(filter(None, map(named.annotations.get, ("verdict", "source", "road"))), None)
        yield f"{named.role.value}: {name}{f' ({extra})' if extra else ''}"


def _commands(provenance: Provenance, recipe: Recipe) -> Iterator[Command]:
    variant = provenance.request.variant
    flags = command_line(provenance.request.settings, recipe.variants[variant].settings)
    own = provenance.request.own_model
    kind = "uint8" if recipe.variants[variant].is_quantized else "fp32"
    named = () if recipe.reference == DEFAULT_RECIPE else ("--recipe", recipe.reference)
    words = (kind, *named, "--model-dir", "${TF_MODEL_DIR}", "--out", "${TFLITE_MODEL_DIR}")
    if own is not None:
        words = ("convert", *convert_command(provenance))
        flags = [*flags, *(("--", *own.toco_flags) if own.toco_flags else ())]
    toolchain = provenance.request.toolchain
    if toolchain != recipe.variants[variant].toolchain or (own and toolchain != DEFAULT_TOOLCHAIN):
        flags = ["--toolchain", toolchain, *flags]
    words = ("python", "-m", "runner", *words, "--engine", provenance.engine, *flags)
    yield Command(title="With this tool, in one command:", text=shell_text(words, separator=" "))
    _, *steps = provenance.steps
    toco = steps[-1]
    yield Command(
        title=f"Or step by step, in `python -m runner shell`, with the edited config "
        f"`{'' if own else f'{variant}/'}pipeline.config` ({_config_changes(provenance)}):",
        text="\n".join(shell_text(step.argv) for step in steps),
    )
    renamed = as_tflite_convert(toco.argv)
    if renamed is not None:
        yield Command(title="The same TOCO command for `tflite_convert`:", text=shell_text(renamed))
    yield _last_step(provenance, toco)


def _config_changes(provenance: Provenance) -> str:
    return "; ".join(provenance.config_changes) or "no changes"


def _last_step(provenance: Provenance, toco: Step) -> Command:
    """Return the command that normalizes the key order of TOCO's file."""
    raw = next(word for word in toco.argv if word.startswith("--output_file=")).removeprefix("--output_file=")
    final = f"{raw.rpartition('/')[0]}/{provenance.subject.name}"
    if provenance.is_published_file:
        return Command(
            title="Then put the post-processing options in the published order:",
            text=shell_text(("python", "-m", "runner", "verify", raw, "--write", final), separator=" "),
        )
    return Command(
        title="Then put the post-processing options, which TOCO writes in random order, in the fixed order:",
        text=shell_text(("python", "-m", "runner", "normalize", raw, final), separator=" "),
    )


def _proven(provenance: Provenance) -> Iterator[str]:
    checkpoint = provenance.dependency(Role.CHECKPOINT)
    if provenance.is_published_file:
        yield "It has all publicly known digests of the published file."
    if checkpoint is not None and checkpoint.annotations.get("isPublishedCheckpoint"):
        yield "Every tensor of the checkpoint has the published name, shape, type and CRC-32C."
    start = (
        "the frozen graph by its sha256"
        if checkpoint is None
        else "the checkpoint by a digest over its tensors"
    )
    yield (
        "Everything it was made with is identified exactly: every wheel by its sha256, every file of the "
        f"models tree by its git blob id, {start}. The same inputs give the same sha256."
    )
    if provenance.check_sentence is not None:
        yield f"It computes what its frozen graph computes: {provenance.check_sentence}."
    if provenance.graph_from is GraphOrigin.TEMPLATE and provenance.audit_sentence is not None:
        yield f"Its frozen graph came from a graph template, which was audited: {provenance.audit_sentence}."


def _not_proven(provenance: Provenance) -> Iterator[str]:
    if provenance.request.own_model is None:
        if not provenance.is_published_file:
            yield NOT_COMPARED
        yield ORIGIN
    if provenance.check_sentence is None:
        yield "That it computes what its frozen graph computes: it was made with `--no-check`; run `check`."
    if provenance.graph_from is GraphOrigin.TEMPLATE and provenance.audit_sentence is None:
        yield NOT_AUDITED
    yield ACCURACY
    yield NO_SIGNATURE


# A file without a provenance.


def explain_file(path: Path, recipe_name: str | None = None) -> Explanation:
    """Explain a file without a provenance by its content."""
    recipe = load_recipe(recipe_name or DEFAULT_RECIPE)
    summary = summarise(read_model_file(path))
    verification = verify(path, recipe, published_files=cached_published_files(recipe))
    return Explanation(
        title=path.name,
        what=(
            _comparison(verification, recipe),
            f"sha256 `{verification.digests.sha256}`, {summary.size_bytes} bytes",
            *_description(summary),
        ),
        proven=_proven_by_bytes(verification),
        not_proven=(
            *([] if verification.verdict.is_same_content else [NOT_COMPARED]),
            NO_PROVENANCE,
            ORIGIN,
            ACCURACY,
        ),
    )


def _comparison(verification: Verification, recipe: Recipe) -> str:
    """Return one sentence that compares the file with the published one."""
    wanted = f"{verification.wanted} ({recipe.title})"
    if verification.verdict is Verdict.SAME_BYTES:
        return f"It is {wanted}."
    if verification.verdict.is_same_content:
        write = "" if verification.wanted_content is None else " `verify --write` writes the published bytes."
        return f"Compared with {wanted}: {verification.verdict.value}.{write}"
    if verification.verdict is Verdict.OTHER_CONTENT:
        return f"It has the structure of {wanted}, but different content."
    count = len(verification.problems if verification.diff is None else verification.diff.differences)
    return (
        f"It is another model than {wanted}, or was converted with other options; `verify` lists the "
        f"differences ({count})."
    )


def _description(summary: Summary) -> Iterator[str]:
    yield "\n".join(
        (
            *(f"- input `{tensor}`" for tensor in summary.inputs),
            *(f"- output `{tensor}`" for tensor in summary.outputs),
        )
    )
    operators = ", ".join(f"{count} {name}" for name, count in summary.operators.items())
    yield f"{sum(summary.operators.values())} operators ({operators}); {summary.tensor_count} tensors."
    yield f"Quantization: {summary.quantization.value}."
    yield f"Written by: {summary.converter or 'unknown'}; {summary.post_processing_note}."


def _proven_by_bytes(verification: Verification) -> tuple[str, ...]:
    both = "all publicly known digests of the published file"
    if verification.verdict is Verdict.SAME_BYTES:
        return (f"It has {both}.",)
    return (
        () if verification.wanted_content is None else (f"The file that `verify --write` writes has {both}.",)
    )
