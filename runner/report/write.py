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
    """Check that the page may be written to ``target``.

    Raises:
        UsageError: it is a folder, or a file that is not a page of this program, and ``overwrite`` is false.
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
    """Write a page and return its path; the file appears only when it is complete.

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
