"""Check which host folders may be mounted into the toolchain.

Folders are mounted under their own absolute path, so system folders are rejected. The output directory must
not overlap the model directory.
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
"""Mounting one of these, or a folder in it, would hide files that the toolchain needs."""

TOO_WIDE: Final = tuple(
    Path(name) for name in ("/", "/home", "/root", "/opt", "/var", "/tmp", "/mnt", "/media")
)
"""Mounting one of these would give the toolchain access to far more than a model."""


def mountable(folder: Path) -> Path:
    """Return the real absolute path of a folder, after checking that it may be mounted.

    Raises:
        UsageError: this is not a folder, or it is a system folder or a whole home directory.
    """
    real = folder.expanduser().resolve()
    if not real.is_dir():
        message = f"{folder} is not a folder" if real.exists() else f"the folder {folder} does not exist"
        raise UsageError(message)
    return mountable_when_made(real)


def mountable_when_made(folder: Path) -> Path:
    """Return the real absolute path of a folder, existing or not, after checking that it may be mounted.

    Raises:
        UsageError: this is a system folder or a whole home directory.
    """
    real = folder.expanduser().resolve()
    if real in (*TOO_WIDE, Path.home().resolve()) or is_system_folder(real):
        raise UsageError(
            f"{real} cannot be mounted into the toolchain: it is a system folder or a whole home directory",
            tip="use a separate folder, for example in your home directory",
        )
    return real


def is_system_folder(real: Path) -> bool:
    """Return whether a resolved path is a system folder or inside one."""
    return any(_is_within(real, system) for system in SYSTEM_FOLDERS)


def check_apart(out_dir: Path, model_dir: Path) -> None:
    """Check that the output directory and the model directory do not overlap, with symlinks resolved.

    Raises:
        UsageError: they overlap.
    """
    out, model = out_dir.expanduser().resolve(), model_dir.expanduser().resolve()
    if _is_within(out, model) or _is_within(model, out):
        raise UsageError(
            f"the output directory {out} and the model directory {model} overlap",
            tip="choose an --out outside the model directory, so that no input is changed",
        )


def link_targets(files: Iterable[Path], shown: Path) -> tuple[Path, ...]:
    """Return the targets of symlinks that point outside a mounted folder; they must be mounted too."""
    real_files = {file.resolve() for file in files}
    return tuple(sorted(real for real in real_files if not _is_within(real, shown)))


def _is_within(inner: Path, outer: Path) -> bool:
    return inner == outer or outer in inner.parents
