"""Fetch the published ``.tflite`` files and verify each by its published digests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner import console
from runner.download.address import local_path
from runner.download.file_kind import Content, first_words, read_head, recognise
from runner.errors import ConfigError, IntegrityError, UsageError
from runner.host.cache_dir import cache_dir, translate_disk_errors
from runner.host.digests import digest_file, sha1_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.download.http import Limits
    from runner.host.digests import FileDigests
    from runner.recipes.recipe import PublishedIdentity, Recipe, Variant

WAYS_OUT: Final = (
    "get the published files another way and run `fetch --published --url FOLDER` with their folder; "
    "`verify` works without them"
)

LABELS: Final = {"md5": "MD5", "git_blob": "git blob"}


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A verified published file."""

    variant: str
    path: Path
    digests: FileDigests


def fetch_published(
    recipe: Recipe,
    *,
    source: str | None = None,
    parent: Path | None = None,
    limits: Limits | None = None,
) -> tuple[PublishedFile, ...]:
    """Fetch the published files of a recipe into ``parent`` (default: the cache), unless they exist there.

    ``source`` is the URL of a folder, or a local folder, that contains the files under their published names.
    By default, each file comes from its URL in the recipe.

    Raises:
        UsageError: the source does not exist, or the target is not writable.
        ConfigError: the recipe has no published files, or states no URL of a published file.
        DownloadError: a file is not available.
        IntegrityError: a fetched or existing file is not the published one.
    """
    folder = parent or _cache_folder(recipe)
    known = [(variant, variant.published) for variant in recipe.variants.values() if variant.published]
    if not known:
        raise ConfigError(f"the recipe {recipe.name} has no published files")
    files = []
    for variant, identity in known:
        target = folder / variant.file_name
        if parent is None and target.is_file() and _fault(target, identity):
            console.warn(f"the cached {target} is damaged and will be fetched again")
            target.unlink()
        if not (target.is_file() and _fault(target, identity) is None):
            _obtain(_address(source, variant, identity), target, identity, limits)
        files.append(PublishedFile(variant=variant.name, path=target, digests=digest_file(target)))
    return tuple(files)


def _address(source: str | None, variant: Variant, identity: PublishedIdentity) -> str:
    if source is not None:
        return f"{source.rstrip('/')}/{variant.file_name}"
    if identity.url is None:
        raise ConfigError(
            f"no address of the published {variant.file_name} is known", tip="name one with --url URL|FOLDER"
        )
    return identity.url


def cached_published_files(recipe: Recipe) -> Mapping[str, Path]:
    """Return the published files in the cache, keyed by variant."""
    found = {}
    for variant in recipe.variants.values():
        path = _cache_folder(recipe) / variant.file_name
        if variant.published and path.is_file() and _fault(path, variant.published) is None:
            found[variant.name] = path
    return found


def _cache_folder(recipe: Recipe) -> Path:
    return cache_dir() / "published" / recipe.name


def _obtain(source: str, target: Path, identity: PublishedIdentity, limits: Limits | None) -> None:
    local = local_path(source)
    if local is not None:
        _copy(local, target, identity)
        return
    from runner.download.http import DEFAULT_LIMITS, download, shown_url

    with console.step(f"download {shown_url(source)}"):
        download(
            source,
            target,
            expected=(Content.TFLITE,),
            fault=lambda path: _fault(path, identity),
            ways_out=WAYS_OUT,
            limits=limits or DEFAULT_LIMITS,
        )


def _copy(local: Path, target: Path, identity: PublishedIdentity) -> None:
    if not local.is_file():
        raise UsageError(f"{local} is not a file", tip="--url must be the folder with the published files")
    fault = _fault(local, identity)
    if fault:
        raise IntegrityError(f"{local} is {fault}", tip=WAYS_OUT)
    with translate_disk_errors(target):
        if target.exists():
            raise UsageError(
                f"{target} already exists and is a different file",
                tip="choose another --out, or move that file away",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.part")
        shutil.copyfile(local, unfinished)
        unfinished.replace(target)


def _fault(path: Path, identity: PublishedIdentity) -> str | None:
    """Return how a file differs from the published one, or None."""
    digests = digest_file(path)
    if identity.is_of(digests, path):
        return None
    head = read_head(path)
    content = recognise(head)
    if content is not Content.TFLITE:
        return f"{content.value} ({digests.size_bytes} bytes): {first_words(head)}"
    found = {**vars(digests), "sha1": sha1_of(path)}
    compared = ", ".join(
        f"{LABELS.get(name, name)} {found[name]} instead of {it}" for name, it in identity.digests.items()
    )
    return f"a TFLite model, but not the published one: {compared}"
