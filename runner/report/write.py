"""Write a page to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import UsageError
from runner.host.output_dir import OutputDir
from runner.report.render import is_page_of_ours, render

if TYPE_CHECKING:
    from pathlib import Path

    from runner.report.data import Report


def require_replaceable(target: Path, *, overwrite: bool) -> None:
    """Check that no file would be replaced that is not a page of this program.

    Raises:
        UsageError: such a file is there, and ``overwrite`` was not given.
    """
    if target.is_dir():
        raise UsageError(f"{target} is a folder", tip="name a file, such as report.html")
    if target.exists() and not overwrite and not _is_page(target):
        raise UsageError(
            f"{target} already exists and is not a page of this program",
            tip="move it away, choose another --out, or use --overwrite to replace it",
        )


def _is_page(target: Path) -> bool:
    try:
        return is_page_of_ours(target)
    except OSError as problem:
        raise UsageError(f"cannot read {target}: {problem.strerror}") from problem


def write_page(report: Report, target: Path) -> Path:
    """Write a page; it appears when it is complete. Return its path.

    Raises:
        UsageError: the folder cannot be made or written to.
        DiskFullError: the disk is full.
    """
    out = OutputDir.at(target.expanduser().absolute().parent)
    with out.work_dir() as work_dir:
        product = work_dir / target.name
        product.write_text(render(report), "utf-8")
        out.publish({target.name: product})
    return out.path / target.name
