"""Find and remove what this tool left on this machine, and nothing else; symbolic links are not followed.

In the cache, each kind of item has its own folder and name pattern; anything else is kept. In Docker, items
are containers and images with our label. Running containers and images that others tagged are kept.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.checkpoint.fetch import model_name
from runner.errors import EngineError, RunnerError, UsageError
from runner.host import scratch
from runner.host.cache_dir import cache_dir, lock_file
from runner.host.in_use import is_in_use
from runner.scripts import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from runner.engines.docker.inventory import LabelledContainer, LabelledImage
    from runner.recipes.recipe import Recipe

LOCKS: Final = "locks"
CACHE_SCRATCH_PATTERN: Final = r"(check|match|prove)-\w{8}"
SCRATCH_AGE_S: Final = 24 * 3600
CACHE_LOCK_PATTERN: Final = r"[0-9a-f]{16}\.lock"


@dataclass(frozen=True, kw_only=True)
class Belonging:
    """An item that this tool made; ``remove`` raises a RunnerError if it cannot be removed."""

    kind: str
    name: str
    size_bytes: int
    remove: Callable[[], None] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The items that may be removed, and why other items are kept."""

    belongings: tuple[Belonging, ...]
    stays: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """The total size of all items. Removing them may free less, because images share layers."""
        return sum(belonging.size_bytes for belonging in self.belongings)


def take_inventory(recipes: Iterable[Recipe]) -> Inventory:
    """List the items in Docker, if a daemon answers, and in the cache."""
    in_docker, in_cache = _docker_inventory(), _cache_inventory(recipes)
    return Inventory(
        belongings=in_docker.belongings + in_cache.belongings, stays=in_docker.stays + in_cache.stays
    )


def remove_all(inventory: Inventory) -> tuple[str, ...]:
    """Remove all items of an inventory; return the reasons why some could not be removed."""
    reasons = []
    for belonging in inventory.belongings:
        try:
            belonging.remove()
        except RunnerError as problem:  # noqa: PERF203 - removing takes far longer than the try
            reasons.append(problem.message)
    _remove_free_locks()
    _remove_empty_folders()
    return tuple(reasons)


# --- the cache --------------------------------------------------------------------------------------------


def cache_kinds(recipes: Iterable[Recipe]) -> Mapping[str, tuple[str, str]]:
    """Return the kind and the name pattern of the entries in each folder of the cache.

    The patterns for models, published files and stand-ins contain the names of these recipes.
    """
    recipes = tuple(recipes)
    model = _one_of(map(model_name, recipes))
    name = _one_of(recipe.name for recipe in recipes)
    return {
        "environments": ("environment", r"[0-9a-f]{16}"),
        "pythons": ("CPython 3.7", r"[0-9a-f]{16}"),
        "models": (
            "model",
            rf"{model}(\.json|\.unverified|\.tar\.gz(\.part(\.json)?)?)?"
            rf"|\.{model}(\.unpacking|\.json\.\w+)",
        ),
        "published": ("published files", name),
        "stand-in": ("stand-in", rf"{name}-\d+-[0-9a-f]{{16}}"),
        "conversions": ("conversion", r"[0-9a-f]{32}|\.[0-9a-f]{32}\.[\w-]+"),
        "templates": ("graph template", r"[0-9a-f]{32}|\.[0-9a-f]{32}\.[\w-]+"),
        "evaluations": ("detections of an evaluation", r"[0-9a-f]{32}"),
        "digests": ("digest of a file", r"[0-9a-f]{32}(\.\w+)?\.json|\.[0-9a-f]{32}\.json\.\w+"),
        "model-facts": ("facts about a model", r"[0-9a-f]{32}\.(json|unfinished)|\.[0-9a-f]{32}\.json\.\w+"),
        "logs": ("logs", logs.NAME_PATTERN),
    }


def _one_of(names: Iterable[str]) -> str:
    return f"({'|'.join(sorted(map(re.escape, names)))})"


def _cache_inventory(recipes: Iterable[Recipe]) -> Inventory:
    belongings, stays = [], []
    for folder_name, (kind, form) in cache_kinds(recipes).items():
        folder = cache_dir() / folder_name
        if folder.is_symlink():
            stays.append(f"{folder} is a link")
            continue
        for path in _entries(folder):
            if path.is_symlink() or re.fullmatch(form, path.name) is None:
                stays.append(f"{path} was not made by this tool")
            else:
                belongings.append(_belonging(kind, path))
    return Inventory(belongings=(*belongings, *_left_over_scratch()), stays=tuple(stays))


def _left_over_scratch() -> tuple[Belonging, ...]:
    """Return the scratch folders that are older than a day, and so probably left over from killed runs."""
    in_cache = (path for path in _entries(cache_dir()) if re.fullmatch(CACHE_SCRATCH_PATTERN, path.name))
    temporary = Path(tempfile.gettempdir())
    elsewhere = (path for path in _entries(temporary) if re.fullmatch(scratch.NAME_PATTERN, path.name))
    return tuple(_belonging("scratch", path) for path in (*in_cache, *elsewhere) if _is_old_folder(path))


def _is_old_folder(path: Path) -> bool:
    """Return whether a path is a folder of this user, not a link, and older than a day."""
    try:
        status = path.lstat()
    except FileNotFoundError:  # its run has just ended
        return False
    is_old = status.st_mtime < time.time() - SCRATCH_AGE_S
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and is_old


def _belonging(kind: str, path: Path) -> Belonging:
    return Belonging(kind=kind, name=str(path), size_bytes=_size(path), remove=partial(_remove_path, path))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


def _remove_path(path: Path) -> None:
    """Remove a file or a folder, unless another run is making or using it.

    Raises:
        UsageError: the item is in use or cannot be removed.
    """
    with _lock_of(path):
        user = _process_using(path)
        if user is not None:
            raise UsageError(f"{path} was not removed: process {user} is using it")
        if path.is_dir() and is_in_use(path):
            raise UsageError(f"{path} was not removed: another run is using it")
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as problem:
            raise UsageError(f"{path} was not removed: {problem.strerror}") from problem


def _process_using(path: Path) -> str | None:
    """Return the id of a process whose executable is in this folder, such as a local environment's Python."""
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended or may not be read
            if command_line.read_bytes().startswith(os.fsencode(path) + b"/"):
                return command_line.parent.name
    return None


@contextlib.contextmanager
def _lock_of(path: Path) -> Iterator[None]:
    import filelock

    lock = filelock.FileLock(lock_file(path))
    try:
        lock_file(path).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UsageError(f"{path} was not removed: another run is creating it") from None
    try:
        yield
    finally:
        lock.release()


def _remove_free_locks() -> None:
    """Remove lock files that are not held; a process that waits for a lock retries with a new file."""
    import filelock

    for file in _entries(cache_dir() / LOCKS):
        if re.fullmatch(CACHE_LOCK_PATTERN, file.name) is None or file.is_symlink():
            continue
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(file, timeout=0):
            file.unlink()


def _remove_empty_folders() -> None:
    for folder in (*(cache_dir() / name for name in (*cache_kinds(()), LOCKS)), cache_dir()):
        with contextlib.suppress(OSError):  # it is not empty, does not exist, or is a link
            folder.rmdir()


# --- Docker -----------------------------------------------------------------------------------------------


def _docker_inventory() -> Inventory:
    from runner.engines.docker.daemon import connect
    from runner.engines.docker.inventory import labelled_containers, labelled_images

    try:
        with connect() as client:
            containers, images = labelled_containers(client), labelled_images(client)
    except EngineError as problem:
        return Inventory(belongings=(), stays=(f"Docker was not searched: {problem.message}",))
    running = tuple(f"the container {it.name} is running" for it in containers if it.is_running)
    renamed = tuple(
        f"the image {name} was tagged by another program" for it in images for name in it.foreign_names
    )
    return Inventory(
        belongings=(
            *(_container(it) for it in containers if not it.is_running),
            *(_image(it) for it in images if it.names or not it.foreign_names),
        ),
        stays=running + renamed,
    )


def _container(container: LabelledContainer) -> Belonging:
    def remove() -> None:
        from runner.engines.docker.daemon import connect
        from runner.engines.docker.inventory import remove_container

        with connect() as client:
            remove_container(client, container)

    return Belonging(kind="container", name=container.name, size_bytes=container.size_bytes, remove=remove)


def _image(image: LabelledImage) -> Belonging:
    def remove() -> None:
        from runner.engines.docker.daemon import connect
        from runner.engines.docker.inventory import remove_image

        with connect() as client:
            remove_image(client, image)

    name = ", ".join(image.names) or image.id
    return Belonging(kind="image", name=name, size_bytes=image.size_bytes, remove=remove)
