"""The index reader on indices that TensorFlow wrote, and on invalid bytes."""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.checkpoint.compare import read_tensor_table
from runner.checkpoint.index import MAX_NAME_BYTES, masked, read_index, verify_data
from runner.errors import IntegrityError
from tests.locations import TINY_CHECKPOINT

PLAIN = TINY_CHECKPOINT / "plain" / "model.ckpt-400000"
SHARDED = TINY_CHECKPOINT / "sharded" / "model.ckpt-7"
PLAIN_INDEX = PLAIN.with_name(f"{PLAIN.name}.index").read_bytes()
PLAIN_DATA = PLAIN.with_name(f"{PLAIN.name}.data-00000-of-00001").read_bytes()
DATA_BLOCK_BYTES = 809

HEADER = bytes.fromhex("0801 1a02 0801")
ONE_FLOAT = bytes.fromhex("0801 1200 2804 35") + bytes(4)
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def varint(number: int) -> bytes:
    low = bytes([number & 0x7F | 0x80]) if number > 0x7F else bytes([number])
    return low + varint(number >> 7) if number > 0x7F else low


def block(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    content = b"".join(
        b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in entries
    ) + struct.pack("<II", 0, 1)
    body = content + bytes([kind])
    return body + struct.pack("<I", masked(google_crc32c.value(body)))


def index(*blocks: bytes, handles: list[tuple[int, int]] | None = None) -> bytes:
    """Write a table of these data blocks in TensorFlow's layout."""
    if handles is None:
        ends = [sum(len(it) for it in blocks[:number]) for number in range(len(blocks))]
        handles = [(start, len(it) - 5) for start, it in zip(ends, blocks, strict=True)]
    data = b"".join(blocks)
    directory = block([(b"k%09d" % n, varint(a) + varint(b)) for n, (a, b) in enumerate(handles)])
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(directory) - 5)
    return data + directory + footer.ljust(40, b"\0") + MAGIC


def reading(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.index").write_bytes(content)
    read_index(tmp_path / "model")


def copied(prefix: Path, tmp_path: Path) -> Path:
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / prefix.name


def test_reads_what_tensorflow_wrote() -> None:
    bundle = read_index(PLAIN)
    seen = {name: (it.dtype, it.shape, it.masked_crc32c) for name, it in bundle.tensors.items()}
    assert seen.pop("text")[:2] == ("string", (2,))
    assert seen == read_tensor_table(TINY_CHECKPOINT / "plain" / "tensors.tsv")


def test_data_that_tensorflow_wrote_passes() -> None:
    verify_data(read_index(PLAIN))
    verify_data(read_index(SHARDED))


def test_data_files_of_a_sharded_checkpoint_are_named() -> None:
    assert [path.name for path in read_index(SHARDED).shards] == [
        "model.ckpt-7.data-00000-of-00002",
        "model.ckpt-7.data-00001-of-00002",
    ]


def test_an_altered_byte_names_the_tensor(tmp_path: Path) -> None:
    prefix = copied(PLAIN, tmp_path)
    bundle = read_index(prefix)
    (shard,) = bundle.shards
    for entry in (it for it in bundle.tensors.values() if it.size_bytes and it.dtype != "string"):
        for position in {entry.offset, entry.offset + entry.size_bytes - 1}:
            shard.write_bytes(
                PLAIN_DATA[:position] + bytes([PLAIN_DATA[position] ^ 1]) + PLAIN_DATA[position + 1 :]
            )
            with pytest.raises(
                IntegrityError, match=f"1 of 34 tensors have a wrong CRC, such as {entry.name}"
            ):
                verify_data(bundle)


def test_cut_off_data_file_is_named(tmp_path: Path) -> None:
    prefix = copied(SHARDED, tmp_path)
    bundle = read_index(prefix)
    bundle.shards[1].write_bytes(bytes(20))
    with pytest.raises(IntegrityError, match="data-00001-of-00002 is cut off: it has 20 bytes"):
        verify_data(bundle)


def test_missing_files_are_for_the_caller_to_word(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_index(tmp_path / "model")
    bundle = read_index(copied(SHARDED, tmp_path))
    bundle.shards[0].unlink()
    with pytest.raises(FileNotFoundError):
        verify_data(bundle)


def test_our_own_writer_is_understood(tmp_path: Path) -> None:
    reading(index(block([(b"", HEADER), (b"a", ONE_FLOAT)]), block([(b"b", ONE_FLOAT)])), tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (PLAIN_INDEX[:-1], "may be cut off"),
        (b"<html>Sign in to your network, please. There is no checkpoint.</html>", "magic number"),
        (PLAIN_INDEX[:100] + b"\xff" + PLAIN_INDEX[101:], "the block at byte 0 is damaged"),
        (index(block([(b"", HEADER)], kind=1)), "compressed"),
        (index(block([(b"a", ONE_FLOAT)])), "no header"),
        (index(block([(b"", HEADER + b"\x10\x01")])), "big-endian"),
        (index(block([(b"", b"\x08\xff\xff\xff\xff\x0f")])), "data files"),
        (index(block([(b"", b"\x0a\x00")])), "bytes instead of a number"),
        (index(block([(b"", HEADER), (b"a", ONE_FLOAT + b"\x3a\x00")])), "'a' is stored in slices"),
        (index(block([(b"", HEADER), (b"a", b"\x18\x01" + ONE_FLOAT)])), "data file 1"),
        (index(block([(b"", HEADER), (b"a", b"\x08\x01\x28\x08")])), "cannot have 8 bytes"),
        (index(block([(b"", HEADER), (b"a", b"\x0b\x0c")])), "wire type 3"),
        (index(block([(b"", HEADER), (b"a", b"\x12\x7f")])), "longer than its message"),
        (index(block([(b"", HEADER), (b"a", b"\xff" * 12)])), "more than 64 bits"),
        (index(block([(b"", HEADER), (b"b", ONE_FLOAT), (b"a", ONE_FLOAT)])), "keys are not in order"),
        (index(block([(b"", HEADER), (b"\xff", ONE_FLOAT)])), "decode"),
        (index(block([(b"", HEADER), (b"a" * (MAX_NAME_BYTES + 1), ONE_FLOAT)])), "name is too long"),
        (index(block([(b"", HEADER)]), handles=[(0, 1 << 40)]), "outside the file"),
        (index(block([(b"", HEADER)]), handles=[(0, 17)] * 3), "blocks are not in order"),
    ],
)
def test_what_is_no_index_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=reason):
        reading(content, tmp_path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    reading(index(block([(b"", HEADER), (b"a", ONE_FLOAT), (b"b", ONE_FLOAT)])), tmp_path)
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(4))
    with pytest.raises(IntegrityError, match="tensor b overlaps another"):
        verify_data(read_index(tmp_path / "model"))


def judge(content: bytes) -> None:
    """Read an index and its data; this must give a result or an `IntegrityError`."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "model"
        prefix.with_name("model.index").write_bytes(content)
        try:
            bundle = read_index(prefix)
            for shard in bundle.shards[:3]:
                shard.write_bytes(PLAIN_DATA)
            if bundle.num_shards <= 3:
                verify_data(bundle)
        except IntegrityError:
            pass


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(PLAIN_INDEX)), st.integers(0, 40))
def test_any_damage_ends_in_a_result_or_an_error(inserted: bytes, position: int, dropped: int) -> None:
    judge(PLAIN_INDEX[:position] + inserted + PLAIN_INDEX[position + dropped :])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, DATA_BLOCK_BYTES - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_with_a_corrected_checksum_ends_in_a_result_or_an_error(
    changes: list[tuple[int, int]],
) -> None:
    """A checksum protects against accidents, not attackers, so it is corrected here."""
    content = bytearray(PLAIN_INDEX)
    for position, value in changes:
        content[position] = value
    body_end = DATA_BLOCK_BYTES + 1
    checksum = masked(google_crc32c.value(bytes(content[:body_end])))
    content[body_end : body_end + 4] = struct.pack("<I", checksum)
    judge(bytes(content))


def test_the_fuzz_reaches_behind_the_checksum() -> None:
    body_end = DATA_BLOCK_BYTES + 1
    checksum = masked(google_crc32c.value(PLAIN_INDEX[:body_end]))
    assert PLAIN_INDEX[body_end : body_end + 4] == struct.pack("<I", checksum)
