"""Check that all offsets of a ``.tflite`` file are inside the file, before the FlatBuffers library uses them.

The library does not check what it reads: a wrong offset makes it read other data, and a wrong length can make
it loop almost forever. So every table, vector and string that `runner.tflite.model` reads is checked first.
The layouts below are the part of TFLite's schema that is read; slots are numbered from 0, as in the schema.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runner.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_IDENTIFIER: Final = b"TFL3"
MAX_REREADING: Final = 4
"""Limit on the number of bytes read, as a multiple of the file size, because tables may share vectors."""


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """The fields of a table: maps each slot to a size in bytes or to the layout of another table.

    The size of a vector is the size of one element; a string is a vector of bytes.
    """

    scalars: Mapping[int, int] = field(default_factory=dict)
    vectors: Mapping[int, int] = field(default_factory=dict)
    tables: Mapping[int, TableLayout] = field(default_factory=dict)
    table_vectors: Mapping[int, TableLayout] = field(default_factory=dict)


OPAQUE: Final = TableLayout()
QUANTIZATION: Final = TableLayout(scalars={4: 1, 6: 4}, vectors={0: 4, 1: 4, 2: 4, 3: 8})
TENSOR: Final = TableLayout(
    scalars={1: 1, 2: 4, 5: 1, 8: 1},
    vectors={0: 4, 3: 1, 7: 4},
    tables={4: QUANTIZATION, 6: OPAQUE},
)
OPERATOR: Final = TableLayout(
    scalars={0: 4, 3: 1, 6: 1, 9: 8, 10: 8, 11: 1},
    vectors={1: 4, 2: 4, 5: 1, 7: 1, 8: 4},
    tables={4: OPAQUE, 12: OPAQUE},
)
SUBGRAPH: Final = TableLayout(vectors={1: 4, 2: 4, 4: 1}, table_vectors={0: TENSOR, 3: OPERATOR})
OPERATOR_CODE: Final = TableLayout(scalars={0: 1, 2: 4, 3: 4}, vectors={1: 1})
BUFFER: Final = TableLayout(scalars={1: 8, 2: 8}, vectors={0: 1})
METADATA: Final = TableLayout(scalars={1: 4}, vectors={0: 1})
MODEL: Final = TableLayout(
    scalars={0: 4},
    vectors={3: 1},
    table_vectors={1: OPERATOR_CODE, 2: SUBGRAPH, 4: BUFFER, 6: METADATA},
)


def check_bounds(content: bytes, *, source: str) -> None:
    """Check every offset that reading the model uses.

    Raises:
        IntegrityError: this is not a ``.tflite`` file, or it is truncated or damaged.
    """
    if len(content) < 8 or content[4:8] != FILE_IDENTIFIER:
        raise IntegrityError(
            f"{source} is not a .tflite file: bytes 4 to 8 are not {FILE_IDENTIFIER.decode()}"
        )
    try:
        checker = _Checker(content)
        checker.check_table(checker.follow(0), MODEL)
    except _AstrayError as problem:
        raise IntegrityError(
            f"{source} is truncated or damaged: {problem}", tip="fetch or convert it again"
        ) from problem


class _AstrayError(Exception):
    """An offset or a length leads outside the file."""


class _Checker:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._bytes_left = MAX_REREADING * len(content)

    def check_table(self, position: int, layout: TableLayout) -> None:
        """Check a table and everything that it refers to; layouts are not recursive, so this terminates."""
        vtable = position - self._number("<i", position)
        vtable_size, table_size = self._number("<H", vtable), self._number("<H", vtable + 2)
        if vtable_size < 4 or vtable_size % 2:
            raise _AstrayError(f"the vtable at byte {vtable} has an invalid size of {vtable_size} bytes")
        self._spend(vtable, vtable_size)
        self._spend(position, table_size)
        fields = struct.unpack_from(f"<{(vtable_size - 4) // 2}H", self._content, vtable + 4)
        for slot, offset in enumerate(fields):
            if offset:
                self._check_room(offset, layout.scalars.get(slot, 1), table_size)
                self._check_field(position + offset, slot, layout)

    def follow(self, position: int) -> int:
        """Return the position that the offset at ``position`` refers to."""
        return position + self._number("<I", position)

    def _check_field(self, position: int, slot: int, layout: TableLayout) -> None:
        if slot in layout.tables:
            self.check_table(self.follow(position), layout.tables[slot])
        elif slot in layout.vectors:
            self._check_vector(self.follow(position), layout.vectors[slot])
        elif slot in layout.table_vectors:
            vector = self.follow(position)
            for index in range(self._check_vector(vector, 4)):
                self.check_table(self.follow(vector + 4 + 4 * index), layout.table_vectors[slot])

    def _check_vector(self, position: int, element_size: int) -> int:
        length = self._number("<I", position)
        self._spend(position + 4, length * element_size)
        return length

    def _check_room(self, offset: int, size: int, table_size: int) -> None:
        if offset + size > table_size:
            raise _AstrayError(f"a field at {offset} does not fit into its table of {table_size} bytes")

    def _number(self, form: str, position: int) -> int:
        self._check_inside(position, struct.calcsize(form))
        (number,) = struct.unpack_from(form, self._content, position)
        return int(number)

    def _spend(self, position: int, size: int) -> None:
        self._check_inside(position, size)
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise _AstrayError("too many tables share the same bytes")

    def _check_inside(self, position: int, size: int) -> None:
        if position < 0 or position + size > len(self._content):
            raise _AstrayError(
                f"it refers to {size} bytes at position {position}, but has only {len(self._content)}"
            )
