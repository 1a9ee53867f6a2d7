"""Verify that a ``.tflite`` file is the published one, or report how it differs.

Without a reference file, the file is compared with the published digests and with the structure that the
recipe states. With a reference file, it is compared with that file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from runner.download.published import cached_published_files
from runner.errors import IntegrityError
from runner.host.digests import FileDigests, digest_bytes
from runner.tflite.canonical import find_published, rewrite_as
from runner.tflite.diff import Verdict, diff_models
from runner.tflite.key_orders import read_post_process_options
from runner.tflite.model import read_model, read_model_file
from runner.tflite.structure import structure_problems
from runner.tflite.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.recipes.recipe import PublishedIdentity, Recipe, Variant
    from runner.tflite.diff import ModelDiff
    from runner.tflite.model import Model
    from runner.tflite.structure import Problem


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome of a verification.

    ``wanted`` names the published file or the reference file that the verified file was compared with.
    ``wanted_content`` is the content of the wanted file, if it can be restored from the verified file.
    ``compared_with`` is the path of the wanted file, if that was read; it is the right side of ``diff``.
    """

    source: str
    digests: FileDigests
    variant: str
    wanted: str
    verdict: Verdict
    problems: tuple[Problem, ...]
    compared_with: str | None
    diff: ModelDiff | None
    wanted_content: bytes | None = field(repr=False)


def verify_file(
    path: Path, recipe: Recipe, *, against: Path | None = None, variant_name: str | None = None
) -> Verification:
    """Verify a file against a reference file or, without one, against what is known of the published files.

    Raises:
        UsageError, IntegrityError: as `verify` and `verify_against`.
    """
    if against is not None:
        return verify_against(path, against, recipe)
    return verify(path, recipe, variant_name=variant_name, published_files=cached_published_files(recipe))


def verify(
    path: Path,
    recipe: Recipe,
    *,
    variant_name: str | None = None,
    published_files: Mapping[str, Path] = MappingProxyType({}),
) -> Verification:
    """Verify a file against the published digests and the structure that the recipe states.

    ``published_files`` are downloaded published files, keyed by variant. If the verified file is not a
    published one, its differences from the downloaded file of the most similar variant are reported.

    Raises:
        UsageError: there is no such variant, or the file cannot be read.
        IntegrityError: the file is not a ``.tflite`` file, or is truncated or damaged.
    """
    model = read_model_file(path)
    digests = digest_bytes(model.content)
    for variant in _candidates(recipe, variant_name):
        content = _as_published(model, digests, variant.published)
        if content is not None:
            return _matched(model, digests, variant.name, f"the published {variant.file_name}", content)
    return _unmatched(model, digests, recipe, variant_name, published_files)


def verify_against(path: Path, reference_path: Path, recipe: Recipe) -> Verification:
    """Verify a file against a reference file.

    Raises:
        UsageError: a file cannot be read.
        IntegrityError: a file is not a ``.tflite`` file, or is truncated or damaged.
    """
    model, reference = read_model_file(path), read_model_file(reference_path)
    digests, wanted = digest_bytes(model.content), digest_bytes(reference.content)
    name, title = _name_reference(reference_path, wanted, reference.content, recipe)
    diff = diff_models(model, reference)
    return Verification(
        source=model.source,
        digests=digests,
        variant=name,
        wanted=title,
        verdict=diff.verdict,
        problems=(),
        compared_with=str(reference_path),
        diff=diff,
        wanted_content=rewrite_as(model, reference),
    )


def _candidates(recipe: Recipe, name: str | None) -> tuple[Variant, ...]:
    if name is None:
        return tuple(recipe.variants.values())
    return (recipe.variant(name),)


def _as_published(model: Model, digests: FileDigests, published: PublishedIdentity | None) -> bytes | None:
    """Return the published bytes if this file has the same content in any key order, else None."""
    if published is None:
        return None
    if published.is_of(digests, model.content):
        return model.content
    try:
        options = read_post_process_options(model)
    except IntegrityError:
        return None  # options that TOCO did not write; the structure check reports them
    return None if options is None else find_published(model, options, published)


def _matched(model: Model, digests: FileDigests, variant: str, wanted: str, content: bytes) -> Verification:
    return Verification(
        source=model.source,
        digests=digests,
        variant=variant,
        wanted=wanted,
        verdict=diff_models(model, read_model(content, source=wanted)).verdict,
        problems=(),
        compared_with=None,
        diff=None,
        wanted_content=content,
    )


def _unmatched(
    model: Model,
    digests: FileDigests,
    recipe: Recipe,
    variant_name: str | None,
    published_files: Mapping[str, Path],
) -> Verification:
    summary = summarise(model)
    by_variant = {
        variant.name: structure_problems(summary, recipe, variant)
        for variant in _candidates(recipe, variant_name)
    }
    name = min(by_variant, key=lambda variant: len(by_variant[variant]))
    variant, problems = recipe.variants[name], by_variant[name]
    published = published_files.get(name)
    reference = None if published is None else read_model_file(published)
    diff = None if reference is None else diff_models(model, reference)
    return Verification(
        source=model.source,
        digests=digests,
        variant=name,
        wanted=f"the published {variant.file_name}",
        verdict=_judge_structure(problems) if diff is None else diff.verdict,
        problems=problems,
        compared_with=None if published is None else str(published),
        diff=diff,
        wanted_content=None if reference is None else rewrite_as(model, reference),
    )


def _judge_structure(problems: tuple[Problem, ...]) -> Verdict:
    is_structure_right = not any(problem.is_of_structure for problem in problems)
    return Verdict.OTHER_CONTENT if is_structure_right else Verdict.OTHER_STRUCTURE


def _name_reference(path: Path, digests: FileDigests, content: bytes, recipe: Recipe) -> tuple[str, str]:
    for variant in recipe.variants.values():
        if variant.published is not None and variant.published.is_of(digests, content):
            return variant.name, f"{path} (the published {variant.file_name})"
    return "unknown", f"{path} (not a published file)"
