"""Reading a file: its parsed content; malicious files can only cause an `IntegrityError`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import IntegrityError, UsageError
from runner.tflite.model import read_model, read_model_file
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

UINT8 = (TINY_DETECTOR / "uint8.run0.tflite").read_bytes()


def test_a_model_reads_as_the_graph_was_written() -> None:
    model = read_model(UINT8)
    (graph,) = model.graphs
    assert (model.schema_version, model.description) == (3, "TOCO Converted.")
    assert graph.tensor_names(graph.inputs) == ("normalized_input_image_tensor",)
    assert graph.tensor_names(graph.outputs)[0] == "TFLite_Detection_PostProcess"
    assert len(graph.tensors) == 23
    convolution = graph.operators[0]
    assert (convolution.name, convolution.version, convolution.is_custom) == ("CONV_2D", 1, False)
    assert (convolution.options["padding"], convolution.options["stride_w"]) == ("SAME", 2)
    assert graph.operators[-1].is_custom
    weights = graph.tensors[convolution.inputs[1]]
    assert (weights.name, weights.dtype, weights.shape, len(weights.data)) == (
        CONV_WEIGHTS,
        "uint8",
        (4, 3, 3, 3),
        108,
    )
    assert weights.quantization is not None
    assert weights.quantization.zero_points == (128,)


def test_spans_point_at_the_bytes() -> None:
    model = read_model(UINT8)
    span = model.graphs[0].operators[-1].custom_options_span
    assert span is not None
    assert UINT8[span.start : span.stop] == model.graphs[0].operators[-1].custom_options
    (entry,) = model.metadata
    assert entry.span is not None
    assert UINT8[entry.span.start : entry.span.stop] == entry.content == b"1.5.0"


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nothing\.tflite"):
        read_model_file(tmp_path / "nothing.tflite")


def test_a_sparse_file_of_two_gibibytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.tflite"
    with path.open("wb") as stream:
        stream.truncate(1 << 31)
    with pytest.raises(IntegrityError, match="too large"):
        read_model_file(path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"<!DOCTYPE html><html></html>", bytes(64)])
def test_what_is_no_tflite_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.tflite"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"page\.tflite is not a \.tflite file"):
        read_model_file(path)


def test_a_file_cut_off_anywhere_is_refused() -> None:
    # TOCO leaves eight bytes at the end that nothing points to.
    for size in range(0, len(UINT8) - 8, 7):
        with pytest.raises(IntegrityError):
            read_model(UINT8[:size])


@given(st.integers(0, len(UINT8) - 4), st.integers(0, (1 << 32) - 1))
def test_a_changed_word_ends_in_a_model_or_an_integrity_error(place: int, word: int) -> None:
    content = bytearray(UINT8)
    struct.pack_into("<I", content, place, word)
    try:
        model = read_model(bytes(content))
    except IntegrityError:
        return
    assert model.content == content


@given(st.binary(max_size=400))
def test_any_bytes_after_the_identifier_end_in_a_model_or_an_integrity_error(rest: bytes) -> None:
    try:
        read_model(b"\x1c\0\0\0TFL3" + rest)
    except IntegrityError as problem:
        assert "damaged" in problem.message  # noqa: PT017 - it need not be raised


def test_bytes_used_over_and_over_are_refused() -> None:
    buffer_size, references = 40_000, 10_000
    content = shared_buffers(buffer_size, references)
    with pytest.raises(IntegrityError, match="share the same bytes"):
        read_model(content)


def shared_buffers(buffer_size: int, references: int) -> bytes:
    """Write a file whose buffers are all the same one: small on disk, and huge when each is copied."""
    head = struct.pack("<I4s", 28, b"TFL3")
    vtable = struct.pack("<9H", 18, 8, 0, 0, 0, 0, 4, 0, 0).ljust(20, b"\0")
    model = struct.pack("<iI", 20, 4)
    buffer = 28 + 8 + 4 + 4 * references + 8
    vector = struct.pack("<I", references)
    vector += b"".join(struct.pack("<I", buffer - (40 + 4 * index)) for index in range(references))
    table = struct.pack("<4H", 6, 8, 4, 0) + struct.pack("<iI", 8, 4)
    return head + vtable + model + vector + table + struct.pack("<I", buffer_size) + bytes(buffer_size)
