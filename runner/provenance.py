"""What went in, what was run, what came out: an in-toto Statement v1 with the SLSA v1 provenance predicate.

Sources: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

PROVENANCE_NAME: Final = "provenance.json"


def named_digests(path: Path) -> frozenset[str]:
    """Return the sha256 of every output a provenance file names, its own included; none if it is not ours."""
    try:
        raw = path.read_bytes()
        statement: Any = json.loads(raw)
        entries = [*statement["subject"], *statement["predicate"]["runDetails"]["byproducts"]]
        return frozenset(entry["digest"]["sha256"] for entry in entries)
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
