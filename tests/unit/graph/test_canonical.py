from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import IntegrityError
from runner.graph.canonical import canonical_graph
from tests.locations import TINY_GRAPH, TINY_GRAPH_SHA256


@pytest.mark.parametrize("name", ["one.pb", "other.pb"])
def test_any_serialization_becomes_tensorflows_deterministic_one(name: str) -> None:
    canonical = canonical_graph((TINY_GRAPH / name).read_bytes())
    assert hashlib.sha256(canonical).hexdigest() == TINY_GRAPH_SHA256


def test_the_two_files_differ() -> None:
    assert (TINY_GRAPH / "one.pb").read_bytes() != (TINY_GRAPH / "other.pb").read_bytes()


def test_a_canonical_graph_stays_as_it_is() -> None:
    canonical = canonical_graph((TINY_GRAPH / "one.pb").read_bytes())
    assert canonical_graph(canonical) == canonical


def test_a_cut_off_graph_is_refused() -> None:
    content = (TINY_GRAPH / "one.pb").read_bytes()
    with pytest.raises(IntegrityError, match="not a frozen graph"):
        canonical_graph(content[:-1])


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_result_or_our_error(content: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        canonical_graph(content)


@given(st.data())
def test_no_flipped_byte_goes_unnoticed(data: st.DataObject) -> None:
    content = bytearray((TINY_GRAPH / "one.pb").read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    try:
        canonical = canonical_graph(bytes(content))
    except IntegrityError:
        return
    assert hashlib.sha256(canonical).hexdigest() != TINY_GRAPH_SHA256
