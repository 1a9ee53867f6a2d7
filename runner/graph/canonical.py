"""Normalize the bytes of a frozen graph: sort the node attributes, which TensorFlow writes in random order.

``GraphDef`` is ``repeated NodeDef node = 1``; a node's ``attr`` is ``map<string, AttrValue> attr = 5``.
protobuf iterates over a map in random order, so two files of the same graph differ. With the attributes
sorted by name, the bytes are those of ``SerializeToString(deterministic=True)``. No TensorFlow is needed.
Attributes in a graph's functions are not sorted, because frozen graphs have no functions.
Source: tensorflow/core/framework/graph.proto, node_def.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.checkpoint.wire_format import LENGTH_DELIMITED, WireFormatError, read_fields
from runner.errors import IntegrityError

if TYPE_CHECKING:
    from runner.checkpoint.wire_format import Field

GRAPH_NODE: Final = 1
NODE_ATTR: Final = 5


def canonical_graph(content: bytes) -> bytes:
    """Return the same graph with the attributes of each node sorted by name.

    Raises:
        IntegrityError: the bytes are not a graph, or are truncated.
    """
    try:
        return b"".join(
            _message(GRAPH_NODE, _canonical_node(_payload(it))) if it.number == GRAPH_NODE else it.encoded
            for it in read_fields(content)
        )
    except ValueError as problem:
        raise IntegrityError(f"this is not a frozen graph, or it is damaged: {problem}") from problem


def _canonical_node(node: bytes) -> bytes:
    fields = list(read_fields(node))
    attributes = sorted((_key(_payload(it)), it.encoded) for it in fields if it.number == NODE_ATTR)
    return b"".join(
        (
            *(field.encoded for field in fields if field.number < NODE_ATTR),
            *(encoded for _, encoded in attributes),
            *(field.encoded for field in fields if field.number > NODE_ATTR),
        )
    )


def _key(entry: bytes) -> bytes:
    return next((_payload(field) for field in read_fields(entry) if field.number == 1), b"")


def _payload(field: Field) -> bytes:
    if isinstance(field.value, int):
        raise WireFormatError("found a number instead of a message")
    return field.value


def _message(number: int, payload: bytes) -> bytes:
    """Return the bytes of a length-delimited field."""
    return b"".join((_written_varint(number << 3 | LENGTH_DELIMITED), _written_varint(len(payload)), payload))


def _written_varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
