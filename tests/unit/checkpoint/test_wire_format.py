"""Messages are read as protobuf's specification encodes them, and anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.checkpoint.wire_format import WireFormatError, read_fields

NUMBER_150 = bytes.fromhex("08 96 01")
TEXT = bytes.fromhex("12 07 74 65 73 74 69 6e 67")
"""The examples of https://protobuf.dev/programming-guides/encoding/: `1: 150` and `2: "testing"`."""


def test_numbers_and_texts_are_read_with_all_their_bytes() -> None:
    assert list(read_fields(NUMBER_150 + TEXT)) == [(1, 150, NUMBER_150), (2, b"testing", TEXT)]


def test_a_negative_number_is_its_64_bits() -> None:
    minus_one = bytes.fromhex("08 ff ff ff ff ff ff ff ff ff 01")
    assert [field.value for field in read_fields(minus_one)] == [0xFFFFFFFFFFFFFFFF]


def test_values_of_fixed_size_are_bytes() -> None:
    message = bytes.fromhex("0d 01 02 03 04 09 01 02 03 04 05 06 07 08")
    assert [field.value for field in read_fields(message)] == [b"\1\2\3\4", b"\1\2\3\4\5\6\7\x08"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (TEXT[:-1], "longer than its message"),
        (NUMBER_150[:-1], "cut off"),
        (bytes.fromhex("08") + b"\xff" * 10, "more than 64 bits"),
        (bytes.fromhex("0b"), "unknown wire type 3"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, reason: str) -> None:
    with pytest.raises(WireFormatError, match=reason):
        list(read_fields(message))


@given(st.binary(max_size=64))
def test_any_bytes_are_read_completely_or_refused(message: bytes) -> None:
    try:
        fields = list(read_fields(message))
    except WireFormatError:
        return
    assert b"".join(field.encoded for field in fields) == message
