"""Read protocol buffer messages without their schema.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT: Final = 0
LENGTH_DELIMITED: Final = 2
FIXED_SIZES: Final = {1: 8, 5: 4}
"""Size in bytes of the fixed-size wire types."""


class Field(NamedTuple):
    """A field of a message: its number, its value, and all its bytes, tag included."""

    number: int
    value: int | bytes
    encoded: bytes


class WireFormatError(ValueError):
    """The bytes are not a protocol buffer message, or are truncated."""


def read_fields(message: bytes) -> Iterator[Field]:
    """Yield the fields of a message in order; the value of a varint is an int, any other value is bytes.

    Raises:
        WireFormatError: the bytes are not a message, or are truncated.
    """
    position = 0
    while position < len(message):
        start = position
        tag, position = read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        value: int | bytes
        if wire_type == VARINT:
            value, position = read_varint(message, position)
        else:
            if wire_type == LENGTH_DELIMITED:
                size, position = read_varint(message, position)
            elif wire_type in FIXED_SIZES:
                size = FIXED_SIZES[wire_type]
            else:
                raise WireFormatError(f"a field has the unknown wire type {wire_type}")
            value = message[position : position + size]
            position += size
            if position > len(message):
                raise WireFormatError("a field is longer than its message")
        yield Field(number, value, message[start:position])


def read_varint(source: bytes, position: int) -> tuple[int, int]:
    """Read a varint of up to 64 bits; return its value and the position after it.

    Raises:
        WireFormatError: the varint has more than 64 bits or is truncated.
    """
    if position < len(source) and source[position] < 0x80:  # nearly all varints have one byte
        return source[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(source):
            raise WireFormatError("a number is cut off")
        byte = source[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise WireFormatError("a number has more than 64 bits")
