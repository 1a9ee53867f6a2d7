"""Normalize the bytes of a frozen graph: sort the node attributes, which TensorFlow writes in random order.

``GraphDef`` is ``repeated NodeDef node = 1``; a node's ``attr`` is ``map<string, AttrValue> attr = 5``.
protobuf iterates over a map in random order, so two files of the same graph differ. With the attributes
sorted by name, the bytes are those of ``SerializeToString(deterministic=True)``. Sorting needs no TensorFlow,
provided that the graph has no functions, as is the case for frozen graphs.
Source: tensorflow/core/framework/graph.proto, node_def.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAPH_NODE: Final = 1
NODE_ATTR: Final = 5
WIRE_SIZES: Final = {1: 8, 5: 4}
"""Size in bytes of the wire types of fixed size."""


def canonical_graph(content: bytes) -> bytes:
    """Return the same graph with the attributes of each node sorted by name.

    Raises:
        IntegrityError: the bytes are not a graph, or are truncated.
    """
    try:
        return b"".join(
            _message(GRAPH_NODE, _canonical_node(payload)) if number == GRAPH_NODE else field
            for number, field, payload in _fields(content)
        )
    except (IndexError, KeyError, ValueError) as problem:
        raise IntegrityError(f"this is not a frozen graph, or it is damaged: {problem}") from problem


def _canonical_node(node: bytes) -> bytes:
    fields = list(_fields(node))
    attributes = sorted((_key(payload), field) for number, field, payload in fields if number == NODE_ATTR)
    return b"".join(
        (
            *(field for number, field, _ in fields if number < NODE_ATTR),
            *(field for _, field in attributes),
            *(field for number, field, _ in fields if number > NODE_ATTR),
        )
    )


def _key(entry: bytes) -> bytes:
    return next((payload for number, _, payload in _fields(entry) if number == 1), b"")


def _message(number: int, payload: bytes) -> bytes:
    """Return the bytes of a field of wire type 2 (length-delimited)."""
    return b"".join((_written_varint(number << 3 | 2), _written_varint(len(payload)), payload))


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the number, the bytes and the payload of each field; only wire type 2 has a payload."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        payload = b""
        if wire_type == 0:
            _, position = _varint(message, position)
        elif wire_type == 2:
            size, position = _varint(message, position)
            payload = message[position : position + size]
            position += size
        else:
            position += WIRE_SIZES[wire_type]
        if position > len(message):
            raise ValueError("a field is longer than its message")
        yield number, message[start:position], payload


def _varint(source: bytes, position: int) -> tuple[int, int]:
    """Read a varint of up to 64 bits; return its value and its end position."""
    value = 0
    for shift in range(0, 70, 7):
        byte = source[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _written_varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
