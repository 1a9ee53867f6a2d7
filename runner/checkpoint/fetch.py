"""Fetch a model's checkpoints: from the cache, by download, or from a local archive or folder.

The zoo publishes no digests of its archives. Instead, each tensor of a download is compared with the recipe's
table of the published tensors; the digest of the archive is only recorded. A cached model is verified on
every use and fetched again if it is damaged.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from runner import console
from runner.checkpoint.compare import check_model, require_published
from runner.checkpoint.files import CONFIG_NAME, has_variant, locate_checkpoint
from runner.download.address import local_path
from runner.download.file_kind import Content, read_head, recognise
from runner.download.unpack import gzip_fault, unpack
from runner.errors import ConfigError, DownloadError, IntegrityError, UsageError
from runner.host.cache_dir import cache_dir, exclusive, translate_disk_errors
from runner.host.digests import digest_file
from runner.host.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.checkpoint.compare import CheckpointVerdict
    from runner.download.http import Limits
    from runner.recipes.recipe import Recipe

WAYS_OUT: Final = (
    "use a mirror or a local file (`fetch --url URL|FILE`) or your own copy (`--model-dir DIR`), "
    "or run `demo`, which needs no download"
)
ARCHIVES: Final = (Content.GZIP, Content.TAR)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model came from; the archive fields are None if the source was a folder."""

    source: str
    archive_sha256: str | None
    archive_size_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class FetchedModel:
    """A model directory with verified checkpoints."""

    model_dir: Path
    origin: Origin | None
    verdicts: Mapping[str, CheckpointVerdict] = field(repr=False)
    was_there: bool


def obtain_model_dir(recipe: Recipe) -> Path:
    """Return the default model directory of a recipe: the shipped one, the cached one, or a download.

    Raises:
        DownloadError: the model is not in the cache, and the download failed.
        IntegrityError: the download is not the published model.
    """
    return _shipped(recipe) or fetch_model(recipe).model_dir


def cached_model_dir(recipe: Recipe) -> Path | None:
    """Return the shipped or cached model directory of a recipe, or None; it is not verified."""
    if (shipped := _shipped(recipe)) is not None:
        return shipped
    folder = _cached(recipe)
    return folder if folder.is_dir() else None


def fetch_model(
    recipe: Recipe,
    *,
    source: str | None = None,
    parent: Path | None = None,
    limits: Limits | None = None,
) -> FetchedModel:
    """Fetch the published model into ``parent`` (default: the cache), unless it is already there.

    ``source`` is a URL, an archive, or a folder in the archive's layout; the default is the recipe's URL.

    Raises:
        UsageError: the source does not exist, or the target is not writable or contains something else.
        DownloadError: the archive is not available.
        IntegrityError: the archive is damaged, unsafe to unpack, or not the published model.
    """
    target = _cached(recipe) if parent is None else parent / model_name(recipe)
    with exclusive(target), translate_disk_errors(target):
        if target.exists():
            try:
                return _already_there(target, recipe)
            except IntegrityError as problem:
                if parent is not None:
                    raise UsageError(
                        f"{target} already exists and is not the published model: {problem.message}",
                        tip="choose another --out, or move the folder away",
                    ) from problem
                console.warn(f"the cached model is damaged and will be fetched again: {problem.message}")
                shutil.rmtree(target)
        return _make(target, recipe, source, limits)


def archive_url(recipe: Recipe) -> str:
    """Return the first address of the recipe's archive.

    Raises:
        UsageError: the recipe has no archive.
    """
    return _archive_urls(recipe)[0]


def _archive_urls(recipe: Recipe) -> tuple[str, ...]:
    if recipe.ships_checkpoint:
        raise UsageError(
            f"there is nothing to fetch: the recipe {recipe.name} contains its checkpoints",
            tip=f"`build-all --recipe {recipe.name}` converts them",
        )
    if recipe.archive is None:
        raise UsageError(
            f"the recipe {recipe.name} names no archive", tip="name the checkpoint with --model-dir DIR"
        )
    return recipe.archive.urls


def model_name(recipe: Recipe) -> str:
    """Return the name of the folder in the recipe's archive, or the recipe's name if it has no archive."""
    if recipe.archive is None:
        return recipe.name
    return recipe.archive.urls[0].rsplit("/", 1)[-1].removesuffix(".tar.gz")


def _shipped(recipe: Recipe) -> Path | None:
    return recipe.data_dir if recipe.ships_checkpoint else None


def _cached(recipe: Recipe) -> Path:
    return cache_dir() / "models" / model_name(recipe)


def origin_of(model_dir: Path) -> Origin | None:
    """Return the recorded source of a model directory, or None if this program did not fetch it."""
    try:
        return Origin(**json.loads(_record_path(model_dir).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _already_there(target: Path, recipe: Recipe) -> FetchedModel:
    verdicts = _check(target, recipe)
    return FetchedModel(model_dir=target, origin=origin_of(target), verdicts=verdicts, was_there=True)


def _make(target: Path, recipe: Recipe, given: str | None, limits: Limits | None) -> FetchedModel:
    work = target.with_name(f".{target.name}.unpacking")
    if work.exists():  # leftovers of a killed run; we hold the lock
        shutil.rmtree(work)
    work.mkdir(parents=True)
    try:
        if given is None:
            origin = _obtain_archive(work, target, recipe, limits)
        else:
            origin = _obtain(given, work, target, recipe, limits)
        model_dir = _find_model_dir(work, recipe, origin.source)
        is_downloaded = given is None or local_path(given) is None
        verdicts = _check_new(model_dir, target, recipe, is_ours_to_keep=is_downloaded)
        write_whole(_record_path(target), (json.dumps(asdict(origin), indent=2) + "\n").encode())
        model_dir.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return FetchedModel(model_dir=target, origin=origin, verdicts=verdicts, was_there=False)


# Copy or download and unpack.


def _obtain_archive(work: Path, target: Path, recipe: Recipe, limits: Limits | None) -> Origin:
    """Download and unpack the archive from the first address that works.

    Raises:
        UsageError: the recipe has no archive, or an address is invalid.
        DownloadError, IntegrityError: the recipe has one address, and the download from it failed.
        DownloadError: the recipe has several addresses, and all failed; the message lists them.
    """
    from runner.download.http import shown_url

    failures: list[str] = []
    urls = _archive_urls(recipe)
    for url in urls:
        try:
            origin = _obtain(url, work, target, recipe, limits)
            _require_archive(origin, recipe)
        except (DownloadError, IntegrityError) as problem:  # noqa: PERF203 - `try` costs little here
            if len(urls) == 1:
                raise
            shown = shown_url(url)
            failures.append(f"{shown}: {problem.message.removeprefix(f'{shown}: ')}")
            console.warn(failures[-1])
            shutil.rmtree(work)
            work.mkdir()
        else:
            return origin
    listed = "".join(f"\n  {failure}" for failure in failures)
    raise DownloadError(f"all downloads of the archive of {recipe.name} failed:{listed}", tip=WAYS_OUT)


def _obtain(source: str, work: Path, target: Path, recipe: Recipe, limits: Limits | None) -> Origin:
    local = local_path(source)
    if local is None:
        return _download_and_unpack(source, work, target.with_name(f"{target.name}.tar.gz"), limits)
    if local.is_dir():
        with console.step(f"copy the checkpoints from {local}"):
            _copy_checkpoints(local, work, recipe)
        return Origin(source=f"folder {local.name}", archive_sha256=None, archive_size_bytes=None)
    with console.step(f"unpack {local}"):
        unpack(local, work)
        return _origin(f"file {local.name}", local)


def _download_and_unpack(url: str, work: Path, archive: Path, limits: Limits | None) -> Origin:
    from runner.download.http import DEFAULT_LIMITS, download, shown_url

    with console.step(f"download {shown_url(url)}"):
        download(
            url,
            archive,
            expected=ARCHIVES,
            fault=_archive_fault,
            ways_out=WAYS_OUT,
            limits=limits or DEFAULT_LIMITS,
        )
    try:
        with console.step(f"unpack {archive.name}"):
            unpack(archive, work)
            origin = _origin(shown_url(url), archive)
    except IntegrityError:
        archive.unlink()
        raise
    archive.unlink()
    return origin


def _archive_fault(archive: Path) -> str | None:
    return gzip_fault(archive) if recognise(read_head(archive)) is Content.GZIP else None


def _origin(source: str, archive: Path) -> Origin:
    digests = digest_file(archive)
    return Origin(source=source, archive_sha256=digests.sha256, archive_size_bytes=digests.size_bytes)


def _copy_checkpoints(folder: Path, work: Path, recipe: Recipe) -> None:
    """Copy only the checkpoint files and configs from the folder."""
    for variant in recipe.variants.values():
        try:
            files = locate_checkpoint(folder, recipe, variant)
        except ConfigError as problem:
            raise UsageError(
                problem.message, tip=str(problem.tip).replace("--model-dir", "--url")
            ) from problem
        copy = work / variant.folder
        copy.mkdir(parents=True, exist_ok=True)
        for path in files.paths:
            shutil.copyfile(path, copy / path.name)


# Verify.


def _require_archive(origin: Origin, recipe: Recipe) -> None:
    """Check that a downloaded archive has the size and sha256 in the recipe, if the recipe states them.

    Raises:
        IntegrityError: the size or the sha256 differs.
    """
    found, known = (origin.archive_size_bytes, origin.archive_sha256), recipe.archive
    wanted = (None, None) if known is None else (known.size_bytes, known.sha256)
    for what, is_, should in zip(("size in bytes", "sha256"), found, wanted, strict=True):
        if should is not None and is_ != should:
            raise IntegrityError(
                f"{origin.source} is not the archive of {recipe.name}: its {what} is {is_}, not {should}",
                tip=WAYS_OUT,
            )


def _find_model_dir(root: Path, recipe: Recipe, source: str) -> Path:
    """Find the folder with the variants in an unpacked archive, usually its only top-level folder."""
    candidates = [root, *root.glob("*/"), *root.glob("*/*/")]
    variants = recipe.variants.values()
    found = [folder for folder in candidates if all(has_variant(folder, variant) for variant in variants)]
    if len(found) == 1:
        return found[0]
    wanted = " and ".join(dict.fromkeys(f"{it.folder}/" if it.folder else CONFIG_NAME for it in variants))
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    message = (
        f"{source} is not the model {recipe.name}: no folder in it contains {wanted}; it contains {inside}"
    )
    if found:
        message = f"{source} contains several models: {', '.join(sorted(path.name for path in found))}"
    raise IntegrityError(message, tip=WAYS_OUT)


def _check_new(
    model_dir: Path, target: Path, recipe: Recipe, *, is_ours_to_keep: bool
) -> Mapping[str, CheckpointVerdict]:
    """Verify a newly unpacked model. A download that is not the published model is kept for inspection."""
    try:
        with console.step("compare every tensor with the published ones"):
            return _check(model_dir, recipe)
    except IntegrityError as problem:
        tip = "to convert these weights anyway, name their folder with `--model-dir`"
        if is_ours_to_keep:
            kept = target.with_name(f"{target.name}.unverified")
            shutil.rmtree(kept, ignore_errors=True)
            model_dir.replace(kept)
            tip = f"to convert these weights anyway, use `--model-dir {kept}`; or {WAYS_OUT}"
        raise IntegrityError(problem.message, tip=tip) from problem


def _check(model_dir: Path, recipe: Recipe) -> Mapping[str, CheckpointVerdict]:
    verdicts = {}
    for name, variant in recipe.variants.items():
        try:
            files = locate_checkpoint(model_dir, recipe, variant)
        except ConfigError as problem:
            raise IntegrityError(f"the model is incomplete: {problem.message}") from problem
        verdicts[name] = check_model(files, variant)
        require_published(verdicts[name], files.prefix, variant)
    return verdicts


def _record_path(model_dir: Path) -> Path:
    return model_dir.with_name(f"{model_dir.name}.json")
