"""The orders TOCO can write: counted, listed, and each turned into TOCO's own bytes."""

from __future__ import annotations

import math
import string
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import IntegrityError
from runner.tflite.key_orders import (
    bucket_count,
    fixed_order,
    is_possible,
    order_count,
    possible_orders,
    read_post_process_options,
    replace_options,
    write_flexbuffer,
)
from runner.tflite.model import read_model
from runner.tflite.runtime_version import possible_versions, replace_min_runtime_version
from tests.altered import with_other_blob, with_renamed_custom_operator
from tests.locations import TINY_DETECTOR

if TYPE_CHECKING:
    from runner.tflite.key_orders import PostProcessOptions, Value

THIRTEEN_KEYS: Final = (
    "_output_quantized",
    "_support_output_type_float_in_quantized_op",
    "detections_per_class",
    "h_scale",
    "max_classes_per_detection",
    "max_detections",
    "nms_iou_threshold",
    "nms_score_threshold",
    "num_classes",
    "use_regular_nms",
    "w_scale",
    "x_scale",
    "y_scale",
)
ELEVEN_KEYS: Final = tuple(
    key for key in THIRTEEN_KEYS if key not in {"use_regular_nms", "detections_per_class"}
)

TEMPLATE: Final = (TINY_DETECTOR / "fp32.run0.tflite").read_bytes()

keys = st.lists(
    st.text(string.ascii_lowercase + "_", min_size=1, max_size=12), min_size=1, max_size=8, unique=True
).map(tuple)
floats = st.floats(width=32, allow_nan=False)
numbers = st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | floats


def options_of(content: bytes) -> PostProcessOptions:
    options = read_post_process_options(read_model(content))
    assert options is not None
    return options


@pytest.mark.parametrize(("key_set", "count"), [(THIRTEEN_KEYS, 44), (ELEVEN_KEYS, 20)])
def test_tocos_keys_have_as_many_orders_as_files_show(key_set: tuple[str, ...], count: int) -> None:
    orders = possible_orders(key_set)
    assert len(set(orders)) == len(orders) == order_count(key_set) == count


def test_eleven_keys_need_the_larger_table() -> None:
    assert bucket_count(len(ELEVEN_KEYS)) == bucket_count(len(THIRTEEN_KEYS)) == 32


def test_the_fixed_order_of_tocos_keys_is_pinned() -> None:
    assert fixed_order(THIRTEEN_KEYS)[:3] == ("_output_quantized", "detections_per_class", "x_scale")
    assert fixed_order(THIRTEEN_KEYS) == fixed_order(tuple(reversed(THIRTEEN_KEYS)))


@given(keys)
def test_orders_are_sorted_permutations_and_the_fixed_one_comes_first(key_set: tuple[str, ...]) -> None:
    if order_count(key_set) > 5000:
        return
    orders = possible_orders(key_set)
    assert list(orders) == sorted(set(orders))
    assert len(orders) == order_count(key_set)
    assert {frozenset(order) for order in orders} == {frozenset(key_set)}
    assert all(len(order) == len(key_set) for order in orders)
    assert fixed_order(key_set) == orders[0]


@given(st.permutations(THIRTEEN_KEYS).map(tuple))
def test_an_order_is_possible_if_it_is_listed(order: tuple[str, ...]) -> None:
    assert is_possible(order) == (order in possible_orders(THIRTEEN_KEYS))


def test_every_listed_order_is_possible() -> None:
    assert all(is_possible(order) for order in possible_orders(THIRTEEN_KEYS))


@given(st.dictionaries(keys.map(lambda some: some[0]), numbers, min_size=1, max_size=8), st.randoms())
def test_a_flexbuffer_reads_back_as_it_was_written(values: dict[str, Value], rng: st.DrawFn) -> None:
    order = list(values)
    rng.shuffle(order)  # type: ignore[attr-defined] # hypothesis hands out a random.Random
    written = write_flexbuffer(tuple(order), values)
    assert len(written) == len(write_flexbuffer(tuple(sorted(order)), values))
    template = options_of(TEMPLATE)
    model = read_model(TEMPLATE)
    operators = tuple(
        replace(operator, custom_options=written) if operator.is_custom else operator
        for operator in model.graphs[0].operators
    )
    graph = replace(model.graphs[0], operators=operators)
    read = read_post_process_options(replace(model, graphs=(graph,)))
    assert read is not None
    assert read.span == template.span
    assert read.order == tuple(order)
    assert repr(read.values) == repr({key: values[key] for key in sorted(values)})


def test_each_run_gives_the_exact_bytes_of_every_other(runs: tuple[bytes, ...]) -> None:
    assert len(set(runs)) == len(runs)
    for run in runs:
        options = options_of(run)
        made = {replace_options(run, options, order) for order in options.possible_orders}
        assert len(made) == 44
        assert made.issuperset(runs)


def test_a_run_gives_the_exact_bytes_of_another_tocos(runs: tuple[bytes, ...], other_toco: bytes) -> None:
    assert other_toco not in runs
    model = read_model(runs[0])
    versions = [replace_min_runtime_version(model, version) for version in possible_versions(model)]
    made = {
        replace_options(content, options, order)
        for content in versions
        for options in [options_of(content)]
        for order in options.possible_orders
    }
    assert len(made) == 88
    assert other_toco in made


def test_another_tocos_file_gives_ours_too(runs: tuple[bytes, ...], other_toco: bytes) -> None:
    model = read_model(other_toco)
    content = replace_min_runtime_version(model, "1.5.0")
    options = options_of(content)
    assert replace_options(content, options, options_of(runs[0]).order) == runs[0]


def test_the_values_are_what_the_graph_said(uint8_run: bytes) -> None:
    values = dict(options_of(uint8_run).values)
    assert math.isclose(values.pop("nms_score_threshold"), 0.3, rel_tol=1e-7)
    assert math.isclose(values.pop("nms_iou_threshold"), 0.6, rel_tol=1e-7)
    assert values == {
        "_output_quantized": True,
        "_support_output_type_float_in_quantized_op": True,
        "use_regular_nms": True,
        "max_detections": 10,
        "max_classes_per_detection": 1,
        "num_classes": 2,
        "detections_per_class": 100,
        "y_scale": 10.0,
        "x_scale": 10.0,
        "h_scale": 5.0,
        "w_scale": 5.0,
    }


def test_a_model_without_the_operator_has_no_options(without_post_processing: bytes) -> None:
    assert read_post_process_options(read_model(without_post_processing)) is None


def test_another_custom_operators_blob_is_left_alone(uint8_run: bytes) -> None:
    garbage = with_renamed_custom_operator(with_other_blob(uint8_run, b"\xff" * 316))
    assert read_post_process_options(read_model(garbage)) is None


@pytest.mark.parametrize("blob", [b"\xff" * 316, bytes(316), b"edgetpu".ljust(316, b"\x09")])
def test_a_blob_that_is_no_flexbuffer_is_refused(uint8_run: bytes, blob: bytes) -> None:
    with pytest.raises(IntegrityError, match="TFLite_Detection_PostProcess"):
        options_of(with_other_blob(uint8_run, blob))


def test_a_flexbuffer_that_toco_would_write_otherwise_is_refused(uint8_run: bytes) -> None:
    blob = bytearray(read_model(uint8_run).graphs[0].operators[-1].custom_options)
    first_value = len(blob) - 3 - blob[-3]
    assert blob[first_value] == 1  # _output_quantized is true
    blob[first_value] = 2
    with pytest.raises(IntegrityError, match="not laid out as TOCO writes"):
        options_of(with_other_blob(uint8_run, bytes(blob)))


def test_two_post_processing_operators_are_refused(uint8_run: bytes) -> None:
    model = read_model(uint8_run)
    doubled = replace(model.graphs[0], operators=(*model.graphs[0].operators, model.graphs[0].operators[-1]))
    with pytest.raises(IntegrityError, match="2 TFLite_Detection_PostProcess operators"):
        read_post_process_options(replace(model, graphs=(doubled,)))
