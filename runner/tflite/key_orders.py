"""Read and rewrite the key order of the post-processing options, where TOCO's output is not deterministic.

``TFLite_Detection_PostProcess`` is a custom operator: its options are a FlexBuffer map, which TOCO fills by
iterating over the ``attr`` map of the graph's node. A FlexBuffer stores its keys in insertion order. protobuf
3.8 iterates over a map in an order that depends on a seed, which is taken from the processor's time-stamp
counter. The seed only rotates the buckets of the hash table, and keys in the same bucket may come in any
order. So the set of possible orders is small, and this program can write all of them. This applies to a TOCO
built from public source: models that Google published have key orders that no size of this hash table gives.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, permutations, product
from typing import TYPE_CHECKING, Final

from flatbuffers import flexbuffers  # type: ignore[import-untyped] # ships no types

from runner.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.tflite.model import Model, Span

POST_PROCESS: Final = "TFLite_Detection_PostProcess"
PUBLIC_TOCO: Final = "a TOCO built from public source"
"""The name, in messages, of a TOCO that can only write the orders computed here; Google's own may differ."""
MAX_BLOB_BYTES: Final = 4096
"""TOCO's 13 keys take 316 bytes, so options that are much larger were not written by TOCO."""

KeyOrder = tuple[str, ...]
Value = bool | int | float


@dataclass(frozen=True, kw_only=True)
class PostProcessOptions:
    """The options of the post-processing operator, as TOCO writes them.

    ``order`` is the order of the keys in the file; ``span`` is the position of the FlexBuffer in the file.
    """

    order: KeyOrder
    values: Mapping[str, Value]
    span: Span

    @cached_property
    def possible_orders(self) -> tuple[KeyOrder, ...]:
        """Every order in which TOCO can write these keys; the fixed one is the first."""
        return possible_orders(self.order)

    @cached_property
    def possible_blobs(self) -> Mapping[KeyOrder, bytes]:
        """The FlexBuffer in every possible order."""
        return {order: self.in_order(order) for order in self.possible_orders}

    @cached_property
    def fixed_order(self) -> KeyOrder:
        """The order that `normalize` writes: the first of the possible orders."""
        return fixed_order(self.order)

    def in_order(self, order: KeyOrder) -> bytes:
        """Return the FlexBuffer with its keys in another order; the size stays the same."""
        return write_flexbuffer(order, self.values)


def read_post_process_options(model: Model) -> PostProcessOptions | None:
    """Read the options of the post-processing operator; return None if the model has no such operator.

    The operator is found by its custom code. Writing the result in its own order reproduces the bytes.

    Raises:
        IntegrityError: there are several such operators, or their options have a layout that TOCO does not
            write.
    """
    operators = [
        operator for operator in model.operators() if operator.is_custom and operator.name == POST_PROCESS
    ]
    if not operators:
        return None
    if len(operators) > 1:
        raise IntegrityError(f"{model.source} has {len(operators)} {POST_PROCESS} operators instead of one")
    if operators[0].custom_options_span is None:
        raise IntegrityError(f"the {POST_PROCESS} operator of {model.source} has no options")
    blob = operators[0].custom_options
    try:
        order, values = _read_flexbuffer(blob)
        is_as_toco_writes = write_flexbuffer(order, values) == blob
    # The library does not check its input; bytes that are not a FlexBuffer cause one of these errors.
    except (AssertionError, LookupError, TypeError, ValueError, OverflowError, struct.error) as problem:
        raise IntegrityError(
            f"{model.source}: the options of {POST_PROCESS} are not a FlexBuffer map of numbers: {problem}"
        ) from problem
    if not is_as_toco_writes:
        raise IntegrityError(
            f"{model.source}: the options of {POST_PROCESS} are not laid out as TOCO writes them",
            tip="only files that TOCO wrote can be normalized",
        )
    return PostProcessOptions(order=order, values=values, span=operators[0].custom_options_span)


def replace_options(content: bytes, options: PostProcessOptions, order: KeyOrder) -> bytes:
    """Return the whole file with the keys of its options in another order."""
    return b"".join((content[: options.span.start], options.in_order(order), content[options.span.stop :]))


def with_key_order_of(model: Model, other: Model) -> bytes | None:
    """Return the whole file with the keys of its options in the order of another file.

    Returns None if TOCO did not write the options of both files, or if the keys differ.
    """
    try:
        options, wanted = read_post_process_options(model), read_post_process_options(other)
    except IntegrityError:
        return None
    if options is None or wanted is None or options.values.keys() != wanted.values.keys():
        return None
    return replace_options(model.content, options, wanted.order)


def possible_orders(keys: KeyOrder) -> tuple[KeyOrder, ...]:
    """Return all orders in which protobuf can iterate over these keys, sorted; the fixed order is first."""
    orders = (
        tuple(chain.from_iterable(buckets))
        for rotation in _rotations(keys)
        for buckets in product(*(permutations(bucket) for bucket in rotation))
    )
    return tuple(sorted(orders))


def order_count(keys: KeyOrder) -> int:
    """Return how many possible orders there are, without listing them."""
    rotations = _rotations(keys)
    return len(rotations) * math.prod(math.factorial(len(bucket)) for bucket in rotations[0])


def fixed_order(keys: KeyOrder) -> KeyOrder:
    """Return the lexicographically smallest of the possible orders, without listing them."""
    return min(tuple(chain.from_iterable(rotation)) for rotation in _rotations(keys))


def is_possible(order: KeyOrder) -> bool:
    """Return whether protobuf can iterate over a map with these keys in this order."""
    buckets = [_bucket(key, len(order)) for key in order]
    return any(
        buckets == [_bucket(key, len(order)) for key in chain.from_iterable(rotation)]
        for rotation in _rotations(order)
    )


def bucket_count(key_count: int) -> int:
    """Return the number of hash table buckets for the given number of option keys.

    protobuf 3.8 starts with 8 buckets and doubles their number before three quarters are in use. The node has
    one more attribute than the options have keys: ``_output_types``, a list of types, which TOCO omits. This
    attribute must be counted too: 11 keys alone would give 16 buckets, but the key orders in files with 11
    keys are those of 32 buckets.
    """
    buckets = 8
    while key_count + 1 >= buckets * 3 // 4:
        buckets *= 2
    return buckets


def _bucket(key: str, key_count: int) -> int:
    """Return the bucket of a key: the string hash of protobuf 3.8 with seed 0."""
    value = 0
    for byte in key.encode("ascii"):
        value = (5 * value + byte) % (1 << 64)
    return value % bucket_count(key_count)


def _rotations(keys: KeyOrder) -> tuple[tuple[KeyOrder, ...], ...]:
    """Return every rotation of the non-empty buckets; the keys in a bucket are sorted."""
    by_bucket: dict[int, list[str]] = {}
    for key in sorted(keys):
        by_bucket.setdefault(_bucket(key, len(keys)), []).append(key)
    buckets = tuple(tuple(by_bucket[bucket]) for bucket in sorted(by_bucket))
    return tuple(buckets[first:] + buckets[:first] for first in range(max(1, len(buckets))))


def write_flexbuffer(order: KeyOrder, values: Mapping[str, Value]) -> bytes:
    """Write a map as TOCO does: keys in the given order, floats as 4 bytes."""
    builder = flexbuffers.Builder()
    with builder.Map():
        for key in order:
            _write_value(builder, key, values[key])
    return bytes(builder.Finish())


def _write_value(builder: flexbuffers.Builder, key: str, value: Value) -> None:
    if isinstance(value, bool):
        builder.Bool(key, value)
    elif isinstance(value, int):
        builder.Int(key, value)
    else:
        builder.Float(key, value, 4)


def _read_flexbuffer(blob: bytes) -> tuple[KeyOrder, dict[str, Value]]:
    if not 0 < len(blob) <= MAX_BLOB_BYTES:
        raise ValueError(f"invalid size of {len(blob)} bytes")
    entries = flexbuffers.GetRoot(blob).AsMap
    values = {key.AsKey: _read_value(value) for key, value in zip(entries.Keys, entries.Values, strict=True)}
    # Numbers are stored in the map itself, so the FlexBuffer begins with the keys, in insertion order.
    order = tuple(key.decode("ascii") for key in blob.split(b"\0", len(values))[: len(values)])
    if sorted(order) != sorted(values):
        raise ValueError("the keys do not come first")
    return order, values


def _read_value(value: flexbuffers.Ref) -> Value:
    if value.IsBool:
        return bool(value.AsBool)
    if value.IsInt:
        return int(value.AsInt)
    if value.IsFloat:
        return float(value.AsFloat)
    raise TypeError("a value is neither a number nor a boolean")
