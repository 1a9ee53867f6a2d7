"""How far the conversion of a variant has been tested, according to the evidence beside its recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import tomli

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.recipes.recipe import Variant

SYNTHETIC_FILE: Final = "synthetic.toml"
"""Evidence of a conversion whose checkpoint was made from the config alone."""
STAND_IN_FILE: Final = "stand_in.toml"
"""Evidence of a conversion whose checkpoint was made from the table of the published variables."""

ARCHIVE_FILE: Final = "archive.toml"
"""Evidence of a conversion of the real archive, with the digests of the result."""
SHIPPED_FILE: Final = "shipped.toml"
"""Evidence of a conversion of the checkpoint that ships with the recipe."""
DIGESTS: Final = ("sha256", "md5", "git_blob", "sha1")


class Status(Enum):
    """How far the conversion of a variant has been tested, best first."""

    PUBLISHED = "published file matched"
    REAL = "converted from the real archive"
    SHIPPED = "converted from the checkpoint that ships with it"
    SYNTHETIC = "converted from a synthetic checkpoint"
    NOT_EXERCISED = "not exercised"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The sha256 of a conversion's result, and the command that repeats the conversion.

    ``digests`` are all recorded digests of the result, keyed by algorithm.
    """

    sha256: str
    command: str
    date: str
    digests: Mapping[str, str] = field(repr=False)
    shows: Status = field(repr=False)


SHOWN_BY: Final = {
    ARCHIVE_FILE: Status.REAL,
    SHIPPED_FILE: Status.SHIPPED,
    STAND_IN_FILE: Status.SYNTHETIC,
    SYNTHETIC_FILE: Status.SYNTHETIC,
}


def evidence_of(variant: Variant) -> Evidence | None:
    """Return the recorded conversion of a variant, or None."""
    record = next(_records(variant), None)
    if record is None:
        return None
    name, entry = record
    return Evidence(
        sha256=entry["sha256"],
        command=entry["command"],
        date=entry["date"],
        digests={name: entry[name] for name in DIGESTS if name in entry},
        shows=SHOWN_BY[name],
    )


def structure_of(variant: Variant) -> str | None:
    """Return the recorded digest over a variant's kernels (names and shapes); None if there is no record.

    `FileTensors.structure` in ``runner.proof.recovery`` computes the same digest from a file.
    """
    return next((entry["structure"] for _, entry in _records(variant) if "structure" in entry), None)


def _records(variant: Variant) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the content of each evidence file of a variant, those that show most first."""
    if variant.data_dir is None:
        return
    for name in SHOWN_BY:
        path = variant.data_dir / name
        if path.is_file():
            yield name, tomli.loads(path.read_text("utf-8"))


def status_of(variant: Variant, evidence: Evidence | None) -> Status:
    """Return the status of a variant, given what `evidence_of` returns for it."""
    if variant.refused is not None:
        return Status.REFUSED
    if evidence is None:
        return Status.NOT_EXERCISED
    published = {} if variant.published is None else variant.published.digests
    has_matched = bool(published) and all(
        evidence.digests.get(name) == value for name, value in published.items()
    )
    return Status.PUBLISHED if evidence.shows is Status.REAL and has_matched else evidence.shows
