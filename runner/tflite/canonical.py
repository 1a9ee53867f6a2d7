"""Normalize TOCO's output: use the published file's key order if that gives its digests, else a fixed order.

TOCO writes the keys of its post-processing options in a random order, so the same graph gives one of a few
dozen equivalent files. The published files themselves are not available to this project, only some of their
digests. So the digests of every equivalent file are compared with the published digests; a file that has all
of them is the published file. Whether the published weights give such a file has not been tested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.errors import IntegrityError
from runner.host.digests import FileDigests, digest_bytes, new_hash
from runner.tflite.diff import differences_of
from runner.tflite.key_orders import (
    is_possible,
    order_count,
    read_post_process_options,
    replace_options,
    with_key_order_of,
)
from runner.tflite.model import read_model, read_model_file
from runner.tflite.runtime_version import (
    METADATA_NAME,
    possible_versions,
    read_min_runtime_version,
    replace_min_runtime_version,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.recipes.recipe import PublishedIdentity
    from runner.tflite.key_orders import KeyOrder, PostProcessOptions
    from runner.tflite.model import Model

MAX_ORDERS: Final = 512
"""TOCO's 13 keys have 44 orders; a crafted file, whose keys share a bucket, can have far more."""
FASTEST_FIRST: Final = ("git_blob", "sha1", "sha256", "md5")
"""Digests by their speed. SHA-1, of which a git blob id is a special case, takes 0.4 of the time of MD5 on
processors with instructions for it."""


@dataclass(frozen=True, kw_only=True)
class NormalizedFile:
    """The normalized file, and what was changed in TOCO's raw file.

    If the file has no post-processing operator, ``order`` is None and the bytes are unchanged.
    """

    content: bytes
    digests: FileDigests
    matches_published: bool
    order: KeyOrder | None
    order_count: int | None
    raw_order_is_possible: bool
    min_runtime_version: str | None
    raw_min_runtime_version: str | None


def normalize_keys(raw: Path | bytes, published: PublishedIdentity | None) -> NormalizedFile:
    """Put TOCO's output in the published key order if that gives the published digests, else in a fixed one.

    Raises:
        UsageError: the file cannot be read.
        IntegrityError: this is not a ``.tflite`` file, it is damaged, or its post-processing options have a
            layout that TOCO does not write.
    """
    model = read_model_file(raw) if isinstance(raw, Path) else read_model(raw)
    options = read_post_process_options(model)
    if options is None:
        return _without_choice(model, published)
    match = None if published is None else find_published(model, options, published)
    content = replace_options(model.content, options, options.fixed_order) if match is None else match
    return _with_choice(model, options, content, matches_published=match is not None)


def find_published(model: Model, options: PostProcessOptions, published: PublishedIdentity) -> bytes | None:
    """Return the possible TOCO output that has all published digests, or None if there is none."""
    has_other_size = published.size_bytes not in (None, len(model.content))
    if has_other_size or order_count(options.order) > MAX_ORDERS:
        return None
    for version in possible_versions(model):
        content = replace_min_runtime_version(model, version)
        for order in _orders_with_one_digest(content, options, published):
            candidate = replace_options(content, options, order)
            if published.is_of(digest_bytes(candidate), candidate):
                return candidate
    return None


def rewrite_as(model: Model, reference: Model) -> bytes | None:
    """Return a reference file's bytes if only the key order or the runtime version differs, else None."""
    for version in possible_versions(model):
        content = replace_min_runtime_version(model, version)
        if reference.content in (content, with_key_order_of(replace(model, content=content), reference)):
            return reference.content
    return None


def _orders_with_one_digest(
    content: bytes, options: PostProcessOptions, published: PublishedIdentity
) -> Iterator[KeyOrder]:
    # The options are near the end of a file of many megabytes, so the part before them is hashed only once.
    name, wanted = min(published.digests.items(), key=lambda it: FASTEST_FIRST.index(it[0]))
    before = new_hash(name, len(content))
    before.update(memoryview(content)[: options.span.start])
    after = content[options.span.stop :]
    for order, blob in options.possible_blobs.items():
        candidate = before.copy()
        candidate.update(blob + after)
        if candidate.hexdigest() == wanted:
            yield order


def _without_choice(model: Model, published: PublishedIdentity | None) -> NormalizedFile:
    digests = digest_bytes(model.content)
    version = read_min_runtime_version(model)
    return NormalizedFile(
        content=model.content,
        digests=digests,
        matches_published=published is not None and published.is_of(digests, model.content),
        order=None,
        order_count=None,
        raw_order_is_possible=True,
        min_runtime_version=version,
        raw_min_runtime_version=version,
    )


def _with_choice(
    raw: Model, raw_options: PostProcessOptions, content: bytes, *, matches_published: bool
) -> NormalizedFile:
    final = read_model(content, source=f"the normalized form of {raw.source}")
    options = read_post_process_options(final)
    changed = [it.where for it in differences_of(raw, final) if it.where != METADATA_NAME]
    if options is None or changed:
        raise IntegrityError(f"{raw.source} is damaged: its options share bytes with other parts of the file")
    return NormalizedFile(
        content=content,
        digests=digest_bytes(content),
        matches_published=matches_published,
        order=options.order,
        order_count=order_count(options.order),
        raw_order_is_possible=is_possible(raw_options.order),
        min_runtime_version=read_min_runtime_version(final),
        raw_min_runtime_version=read_min_runtime_version(raw),
    )
