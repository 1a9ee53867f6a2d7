"""Verify that a ``.tflite`` file is the published one, or report how it differs.

Without a reference file, the file is compared with the published digests and with the structure that the
recipe states. With a reference file, it is compared with that file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from runner.errors import IntegrityError, UsageError
from runner.host.digests import FileDigests, digest_bytes
from runner.recipes.recipe import PublishedIdentity
from runner.tflite.canonical import find_published
from runner.tflite.diff import Kind, diff_models
from runner.tflite.key_orders import read_post_process_options
from runner.tflite.model import read_model_file
from runner.tflite.structure import structure_problems
from runner.tflite.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.recipes.recipe import Recipe, Variant
    from runner.tflite.diff import ModelDiff
    from runner.tflite.model import Model
    from runner.tflite.structure import Problem

CONTENT_KINDS: Final = frozenset({Kind.SCALE, Kind.ZERO_POINT, Kind.RANGE, Kind.WEIGHTS})
"""What changes when the same model is trained again; any other difference is one of structure."""


class Verdict(str, Enum):
    """The result of a verification, from best to worst; the value is used in JSON."""

    SAME_BYTES = "same bytes"
    OTHER_ROLL = "same content, different key order"
    OTHER_CONTENT = "same structure, different content"
    WRONG_STRUCTURE = "different structure or options"

    @property
    def is_good(self) -> bool:
        """Are these the wanted bytes, or can they be written from this file alone?"""
        return self in {Verdict.SAME_BYTES, Verdict.OTHER_ROLL}


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome of a verification.

    ``wanted`` names what the file was compared with. ``wanted_content`` is the bytes of that file, if they
    can be written from this one. ``compared_with`` is the reference file of ``diff``, if there was one.
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


def verify(
    path: Path,
    recipe: Recipe,
    *,
    variant_name: str | None = None,
    published_files: Mapping[str, Path] = MappingProxyType({}),
) -> Verification:
    """Verify a file against the published digests and the structure that the recipe states.

    ``published_files`` are the published files that were downloaded, by variant; if the file is not the
    published one, its differences from them are reported.

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
        IntegrityError: one is not a ``.tflite`` file, or is truncated or damaged.
    """
    model, reference = read_model_file(path), read_model_file(reference_path)
    digests, wanted = digest_bytes(model.content), digest_bytes(reference.content)
    name, title = _name_reference(reference_path, wanted, reference.content, recipe)
    identity = PublishedIdentity(md5=wanted.md5, git_blob=wanted.git_blob, url=str(reference_path))
    content = _as_published(model, digests, identity)
    if content is not None:
        return _matched(model, digests, name, title, content)
    diff = diff_models(reference, model)
    is_structure_right = all(difference.kind in CONTENT_KINDS for difference in diff.differences)
    return Verification(
        source=model.source,
        digests=digests,
        variant=name,
        wanted=title,
        verdict=Verdict.OTHER_CONTENT if is_structure_right else Verdict.WRONG_STRUCTURE,
        problems=(),
        compared_with=str(reference_path),
        diff=diff,
        wanted_content=None,
    )


def _candidates(recipe: Recipe, name: str | None) -> tuple[Variant, ...]:
    if name is None:
        return tuple(recipe.variants.values())
    if name not in recipe.variants:
        raise UsageError(
            f"{recipe.name} has no variant {name!r}", tip=f"one of: {', '.join(recipe.variants)}"
        )
    return (recipe.variants[name],)


def _as_published(model: Model, digests: FileDigests, published: PublishedIdentity | None) -> bytes | None:
    """Return the published bytes if this file has the same content, in whatever key order; else None."""
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
        verdict=Verdict.SAME_BYTES if content == model.content else Verdict.OTHER_ROLL,
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
    variant = recipe.variants[name]
    published = published_files.get(name)
    return Verification(
        source=model.source,
        digests=digests,
        variant=name,
        wanted=f"the published {variant.file_name}",
        verdict=Verdict.WRONG_STRUCTURE if by_variant[name] else Verdict.OTHER_CONTENT,
        problems=by_variant[name],
        compared_with=None if published is None else str(published),
        diff=None if published is None else diff_models(read_model_file(published), model),
        wanted_content=None,
    )


def _name_reference(path: Path, digests: FileDigests, content: bytes, recipe: Recipe) -> tuple[str, str]:
    for variant in recipe.variants.values():
        if variant.published is not None and variant.published.is_of(digests, content):
            return variant.name, f"{path} (the published {variant.file_name})"
    return "unknown", f"{path} (not a published file)"
