"""Find the provenance of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.convert.plan import PROVENANCE_NAME
from runner.evidence.provenance.write import named_digests
from runner.host.digests import sha256_of

if TYPE_CHECKING:
    from pathlib import Path


def find_provenance(file: Path) -> Path | None:
    """Find the provenance that records this file's digest: beside the file or, for a copy, in a subfolder."""
    sha256 = sha256_of(file)
    beside = (file.parent / PROVENANCE_NAME, *sorted(file.parent.glob(f"*/{PROVENANCE_NAME}")))
    return next((path for path in beside if sha256 in named_digests(path)), None)
