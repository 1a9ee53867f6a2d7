"""Read the index of a TensorFlow checkpoint without TensorFlow, and verify the tensors' CRCs.

A checkpoint with prefix P consists of P.index and P.data-00000-of-0000N. The index is a table in LevelDB's
format: a footer points to an index block, which points to data blocks of prefix-compressed keys; each block
ends with its CRC-32C. The value of key "" is a BundleHeaderProto; any other key is a tensor's name, with a
BundleEntryProto as its value.
Source: tensorflow/core/lib/io/format.cc, core/protobuf/tensor_bundle.proto, core/util/tensor_bundle.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import google_crc32c

from runner.checkpoint.wire_format import read_fields, read_varint
from runner.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOOTER_BYTES: Final = 48
FOOTER_MAGIC: Final = 0xDB4775248B80FB57
BLOCK_TRAILER_BYTES: Final = 5

# The published indices have 832 tensors in 50 KB. These limits bound the cost of a malicious index.
MAX_INDEX_BYTES: Final = 16 << 20
MAX_TENSORS: Final = 100_000
MAX_NAME_BYTES: Final = 1024
MAX_SHARDS: Final = 99_999

DTYPES: Final = (
    *(("invalid", 0), ("float32", 4), ("float64", 8), ("int32", 4), ("uint8", 1), ("int16", 2), ("int8", 1)),
    *(("string", 0), ("complex64", 8), ("int64", 8), ("bool", 1), ("qint8", 1), ("quint8", 1), ("qint32", 4)),
    *(("bfloat16", 2), ("qint16", 2), ("quint16", 2), ("uint16", 2), ("complex128", 16), ("float16", 2)),
    *(("resource", 0), ("variant", 0), ("uint32", 4), ("uint64", 8)),
)
"""The name and the bytes per element of each tensorflow.DataType, in the order of their numbers.

0 bytes per element means that the elements have no fixed size.
"""
ITEM_BYTES: Final = MappingProxyType({name: size for name, size in DTYPES if size})


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """The index entry of one tensor; ``masked_crc32c`` is the CRC as TensorFlow stores it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size_bytes: int
    masked_crc32c: int


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The contents of an index and the paths of its data files."""

    prefix: Path
    num_shards: int
    tensors: Mapping[str, TensorEntry]

    @property
    def shards(self) -> tuple[Path, ...]:
        """The data files."""
        return tuple(shard_path(self.prefix, number, self.num_shards) for number in range(self.num_shards))


def index_path(prefix: Path) -> Path:
    """Return the path of a checkpoint's index."""
    return prefix.with_name(f"{prefix.name}.index")


def shard_path(prefix: Path, number: int, count: int) -> Path:
    """Return the path of one of a checkpoint's data files."""
    return prefix.with_name(f"{prefix.name}.data-{number:05}-of-{count:05}")


def masked(crc32c: int) -> int:
    """Mask a CRC-32C as TensorFlow stores it: rotated right by 15 bits, plus a constant."""
    return (((crc32c >> 15) | (crc32c << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_index(prefix: Path) -> Bundle:
    """Read the index of the checkpoint with this prefix.

    Raises:
        IntegrityError: the index is damaged, or in a form that TensorFlow 1.15's Saver does not write.
        FileNotFoundError: there is no index.
    """
    path = index_path(prefix)
    try:
        return _bundle(prefix, _read_bounded(path))
    except (ValueError, struct.error) as problem:
        raise IntegrityError(
            f"{path} is not a valid checkpoint index: {problem}",
            tip="get all files of the checkpoint again; they belong together",
        ) from problem


def verify_data(bundle: Bundle) -> None:
    """Check the CRC of every tensor in the data files.

    For tensors whose elements have no fixed size, such as strings, only the size of the file is checked.

    Raises:
        IntegrityError: a data file is cut off, or tensors in it are damaged; the message names the file.
        FileNotFoundError: a data file is missing.
    """
    for number, path in enumerate(bundle.shards):
        entries = sorted(
            (entry for entry in bundle.tensors.values() if entry.shard == number),
            key=lambda entry: (entry.offset, entry.size_bytes),
        )
        _verify_shard(path, entries)


def _verify_shard(path: Path, entries: list[TensorEntry]) -> None:
    tip = "get all files of the checkpoint again; they belong together"
    available = path.stat().st_size
    needed = max((entry.offset + entry.size_bytes for entry in entries), default=0)
    if available < needed:
        raise IntegrityError(
            f"{path} is cut off: it has {available} bytes, its index needs {needed}", tip=tip
        )
    # Tensors must not overlap: otherwise a malicious index could cause a file to be read many times.
    end = 0
    for entry in entries:
        if entry.offset < end:
            raise IntegrityError(
                f"{path}: according to its index, tensor {entry.name} overlaps another one", tip=tip
            )
        end = entry.offset + entry.size_bytes
    damaged = _damaged(path, entries)
    if damaged:
        raise IntegrityError(
            f"{path} is damaged: {len(damaged)} of {len(entries)} tensors have a wrong CRC, "
            f"such as {damaged[0]}",
            tip=tip,
        )


def _damaged(path: Path, entries: list[TensorEntry]) -> list[str]:
    damaged = []
    with path.open("rb") as file:
        for entry in entries:
            file.seek(entry.offset)
            crc = google_crc32c.value(file.read(entry.size_bytes))
            if entry.dtype in ITEM_BYTES and masked(crc) != entry.masked_crc32c:
                damaged.append(entry.name)
    return damaged


class _DamageError(ValueError):
    """The bytes are not a valid index; the message states why."""


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_INDEX_BYTES + 1)
    if len(content) > MAX_INDEX_BYTES:
        raise _DamageError(f"it has more than {MAX_INDEX_BYTES >> 20} MiB")
    return content


def _bundle(prefix: Path, content: bytes) -> Bundle:
    num_shards = 0
    tensors: dict[str, TensorEntry] = {}
    for key, value in _table(content):
        if key == b"":
            num_shards = _num_shards(value)
        else:
            entry = _tensor_entry(key.decode("utf-8"), value)
            tensors[entry.name] = entry
            if len(tensors) > MAX_TENSORS:
                raise _DamageError(f"it has more than {MAX_TENSORS} tensors")
    if num_shards == 0:
        raise _DamageError("it has no header")
    for entry in tensors.values():
        if entry.shard >= num_shards:
            last = num_shards - 1
            raise _DamageError(f"{entry.name} is in data file {entry.shard}, but the last file is {last}")
    return Bundle(prefix=prefix, num_shards=num_shards, tensors=tensors)


# The table: blocks, keys, values.


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of the table in order."""
    if len(content) < FOOTER_BYTES:
        raise _DamageError(f"it has only {len(content)} bytes")
    footer = content[-FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != FOOTER_MAGIC:
        raise _DamageError("the magic number at the end is missing; the file may be cut off")
    _, position = _block_handle(footer, 0)
    index_handle, _ = _block_handle(footer, position)
    blocks_end = 0
    previous: bytes | None = None
    for _, value in _entries(_block(content, index_handle)):
        handle, _ = _block_handle(value, 0)
        if handle[0] < blocks_end:
            raise _DamageError("its blocks are not in order")
        blocks_end = sum(handle)
        for key, entry in _entries(_block(content, handle)):
            if previous is not None and key <= previous:
                raise _DamageError("its keys are not in order")
            previous = key
            yield key, entry


def _block(content: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    end = offset + size + BLOCK_TRAILER_BYTES
    if end > len(content) - FOOTER_BYTES:
        raise _DamageError("a block lies outside the file")
    kind, crc = struct.unpack("<BI", content[end - BLOCK_TRAILER_BYTES : end])
    if masked(google_crc32c.value(content[offset : end - 4])) != crc:
        raise _DamageError(f"the block at byte {offset} is damaged")
    if kind != 0:
        raise _DamageError(
            f"the block at byte {offset} is compressed (kind {kind}); TensorFlow's Saver does not compress"
        )
    return content[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield a block's entries; each key is stored without the prefix that it shares with the previous key."""
    (num_restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (num_restarts + 1)
    if end < 0:
        raise _DamageError("a block has more restart points than bytes")
    key = b""
    position = 0
    while position < end:
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        value_bytes, position = read_varint(block, position)
        key_end = position + unshared
        value_end = key_end + value_bytes
        if shared > len(key) or value_end > end or shared + unshared > MAX_NAME_BYTES:
            raise _DamageError("an entry lies outside its block, or its name is too long")
        key = key[:shared] + block[position:key_end]
        yield key, block[key_end:value_end]
        position = value_end


def _block_handle(source: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = read_varint(source, position)
    size, position = read_varint(source, position)
    return (offset, size), position


# The values: two small protocol buffer messages.


def _values(message: bytes) -> dict[int, int | bytes]:
    """Return the value of each field of a message that has no repeated fields."""
    return {field.number: field.value for field in read_fields(message)}


def _num_shards(message: bytes) -> int:
    """Read the BundleHeaderProto."""
    header = _values(message)
    num_shards = _number(header.get(1, 0))
    if not 1 <= num_shards <= MAX_SHARDS:
        raise _DamageError(f"invalid number of data files: {num_shards}")
    if header.get(2, 0) != 0:
        raise _DamageError("it was written on a big-endian machine, which is not supported")
    return num_shards


def _tensor_entry(name: str, message: bytes) -> TensorEntry:
    """Read a BundleEntryProto."""
    entry = _values(message)
    if 7 in entry or name.startswith("\0"):
        raise _DamageError(f"{name!r} is stored in slices, which is not supported")
    number = _number(entry.get(1, 0))
    dtype = DTYPES[number][0] if number < len(DTYPES) else f"dtype {number}"
    shape = _shape(_bytes(entry.get(2, b"")))
    size_bytes = _number(entry.get(5, 0))
    if dtype in ITEM_BYTES and math.prod(shape) * ITEM_BYTES[dtype] != size_bytes:
        raise _DamageError(f"{name}: {dtype} {list(shape)} cannot have {size_bytes} bytes")
    (masked_crc32c,) = struct.unpack("<I", _bytes(entry.get(6, bytes(4))))
    return TensorEntry(
        name=name,
        dtype=dtype,
        shape=shape,
        shard=_number(entry.get(3, 0)),
        offset=_number(entry.get(4, 0)),
        size_bytes=size_bytes,
        masked_crc32c=masked_crc32c,
    )


def _shape(message: bytes) -> tuple[int, ...]:
    """Read a TensorShapeProto: field 2 is a dimension, whose field 1 is its size."""
    dimensions = [_bytes(field.value) for field in read_fields(message) if field.number == 2]
    return tuple(_number(_values(dimension).get(1, 0)) for dimension in dimensions)


def _number(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise _DamageError("found bytes instead of a number")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise _DamageError("found a number instead of bytes")
