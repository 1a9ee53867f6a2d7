"""A graph template in the cache with one changed bit, which its digest does not show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.deliver.cache import MANIFEST_NAME
from runner.host.digests import sha256_of

if TYPE_CHECKING:
    from pathlib import Path


def flip_a_bit(entry: Path, node: bytes) -> None:
    """Change one bit in the value of a constant, and record the new digest in the entry."""
    graph, manifest = entry / "template.pb", entry / MANIFEST_NAME
    content = bytearray(graph.read_bytes())
    place = content.rindex(b"\x0a" + bytes([len(node)]) + node)
    large = max(range(place, len(content) - 64), key=lambda it: len(set(content[it : it + 64])))
    content[large] ^= 1
    graph.write_bytes(content)
    record = json.loads(manifest.read_text())
    record["files"]["template.pb"] = sha256_of(graph)
    manifest.write_text(json.dumps(record))
