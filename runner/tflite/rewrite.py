"""Write a ``.tflite`` file with its keys in another order; the input file is never modified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import IdentityError, UsageError
from runner.host.digests import digest_file
from runner.host.output_dir import OutputDir
from runner.tflite.canonical import normalize_keys
from runner.tflite.key_orders import PUBLIC_TOCO

if TYPE_CHECKING:
    from pathlib import Path

    from runner.tflite.canonical import NormalizedFile
    from runner.tflite.verify import Verification


@dataclass(frozen=True, kw_only=True)
class Normalized:
    """A file that was written in the fixed order, and a note on what was changed."""

    target: Path
    file: NormalizedFile
    note: str


def normalize(source: Path, target: Path, *, overwrite: bool = False) -> Normalized:
    """Write ``source`` with the keys of its post-processing options in the fixed order.

    Raises:
        UsageError: the source cannot be read, or the target cannot be written or already exists.
        IntegrityError: the source is not a ``.tflite``, is damaged, or its post-processing options have a
            layout that TOCO does not write.
    """
    _check_target(source, target, overwrite=overwrite)
    normalized = normalize_keys(source, None)
    _write_whole(target, normalized.content)
    return Normalized(target=target, file=normalized, note=_note(source, normalized))


def write_wanted(verification: Verification, source: Path, target: Path, *, overwrite: bool = False) -> None:
    """Write the file that ``source`` was compared with, byte for byte.

    This works if ``source`` differs from that file only in the key order or the minimum runtime version.

    Raises:
        UsageError: the target cannot be written or already exists.
        IdentityError: ``source`` differs in something else, so there is nothing to write.
    """
    _check_target(source, target, overwrite=overwrite)
    if verification.wanted_content is None:
        raise IdentityError(f"{target} was not written: {source} cannot be turned into {verification.wanted}")
    _write_whole(target, verification.wanted_content)


def _note(source: Path, normalized: NormalizedFile) -> str:
    if normalized.order is None:
        return f"{source} has no post-processing operator, so there are no keys to sort: copied unchanged"
    if not normalized.raw_order_is_possible:
        return (
            f"the keys of {source} were in none of the {normalized.order_count} orders that {PUBLIC_TOCO} "
            "can write; they are now in the fixed order"
        )
    if digest_file(source).sha256 == normalized.digests.sha256:
        return f"{source} is already in the fixed order: copied unchanged"
    return f"one of TOCO's {normalized.order_count} orders was replaced by the fixed one"


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(
            f"{target} is the input file, which is never overwritten", tip="name another output file"
        )
    if target.is_dir():
        raise UsageError(f"{target} is a folder", tip="name a file in it")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} already exists", tip="move it away, or use --overwrite to replace it")


def _write_whole(target: Path, content: bytes) -> None:
    out = OutputDir.at(target.parent)
    with out.work_dir() as work_dir:
        product = work_dir / target.name
        product.write_bytes(content)
        out.publish({target.name: product})
