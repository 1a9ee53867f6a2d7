"""Which folders of the host the toolchain may see, and where results may go.

Folders are mounted under their own absolute path, so system paths are refused, and the output directory never
overlaps the model directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSTEM_FOLDERS: Final = tuple(
    Path(name)
    for name in (
        *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run"),
        *("/sbin", "/sys", "/usr", "/var/lib", "/var/run", "/opt/models", "/opt/toolchain"),
    )
)
"""Mounting one of these, or anything below it, would hide what the toolchain itself needs."""

TOO_WIDE: Final = tuple(
    Path(name) for name in ("/", "/home", "/root", "/opt", "/var", "/tmp", "/mnt", "/media")
)
"""Mounting one of these as a whole would show the toolchain far more than a model."""


def mountable(folder: Path) -> Path:
    """Return the folder's real absolute path, if the toolchain may see it.

    Raises:
        UsageError: it is no folder, belongs to the system, or is a whole home directory.
    """
    real = folder.expanduser().resolve()
    if not real.is_dir():
        message = f"{folder} is not a folder" if real.exists() else f"the folder {folder} does not exist"
        raise UsageError(message)
    if real in (*TOO_WIDE, Path.home().resolve()) or any(
        _is_within(real, system) for system in SYSTEM_FOLDERS
    ):
        raise UsageError(
            f"{real} cannot be shown to the toolchain: it is a system folder or a whole home directory",
            tip="use a folder of its own, such as one below your home directory",
        )
    return real


def check_apart(out_dir: Path, model_dir: Path) -> None:
    """Refuse an output directory that is, holds or lies inside the model directory, links resolved.

    Raises:
        UsageError: they overlap.
    """
    out, model = out_dir.expanduser().resolve(), model_dir.expanduser().resolve()
    if _is_within(out, model) or _is_within(model, out):
        raise UsageError(
            f"the output directory {out} and the model directory {model} overlap",
            tip="choose an --out that is apart from the model, so that no input is touched",
        )


def link_targets(files: Iterable[Path], shown: Path) -> tuple[Path, ...]:
    """Return the real files behind links that lead out of a shown folder: they have to be shown as well."""
    real_files = {file.resolve() for file in files}
    return tuple(sorted(real for real in real_files if not _is_within(real, shown)))


def _is_within(inner: Path, outer: Path) -> bool:
    return inner == outer or outer in inner.parents
