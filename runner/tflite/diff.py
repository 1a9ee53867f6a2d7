"""Compare two ``.tflite`` files by content instead of bytes.

Tensors are matched by name and operators by their output tensors, so indices and key order are ignored. The
remaining differences change a result or come from another converter. A verdict summarizes them; `verify` uses
the same verdicts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from runner.errors import IntegrityError
from runner.tflite.key_orders import POST_PROCESS, read_post_process_options, with_key_order_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from runner.tflite.model import Graph, Model, Operator, QuantizationParameters, Tensor

Plain = bool | int | float | str | tuple["Plain", ...] | None
Value = Plain | bytes
Item = TypeVar("Item")

NUMERIC_TYPES: Final = frozenset(
    {"float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64"}
    | {"uint8", "uint16", "uint32", "uint64"}
)
"""The types with the same name in numpy; values of other types are compared byte by byte."""


NEIGHBOURS: Final = 2
"""How many values to show on each side of the first difference."""


class Kind(str, Enum):
    """What differs; the value is the text in reports and JSON."""

    SCHEMA = "schema version"
    CONVERTER = "converter"
    METADATA = "metadata"
    GRAPH = "graph"
    INPUTS = "inputs"
    OUTPUTS = "outputs"
    OPERATOR = "operator"
    OPTION = "option"
    TENSOR = "tensor"
    NAME = "name"
    TYPE = "type"
    SHAPE = "shape"
    SCALE = "scale"
    ZERO_POINT = "zero point"
    RANGE = "range"
    WEIGHTS = "weights"


class Verdict(str, Enum):
    """How a file compares with another, from best to worst; the value is the text in reports and JSON."""

    SAME_BYTES = "same bytes"
    OTHER_KEY_ORDER = "same content, different key order"
    OTHER_LAYOUT = "same content, different layout"
    OTHER_METADATA = "same content, different metadata"
    OTHER_CONTENT = "same structure, different content"
    OTHER_STRUCTURE = "different structure or options"

    @property
    def is_same_content(self) -> bool:
        """Whether both files compute the same."""
        return self not in {Verdict.OTHER_CONTENT, Verdict.OTHER_STRUCTURE}


METADATA_KINDS: Final = frozenset({Kind.SCHEMA, Kind.CONVERTER, Kind.METADATA, Kind.NAME})
"""Kinds that concern the converter or the description of the file; they do not change what it computes."""
CONTENT_KINDS: Final = frozenset({Kind.SCALE, Kind.ZERO_POINT, Kind.RANGE, Kind.WEIGHTS})
"""Kinds that differ when the same model is trained again."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference.

    For weights, and other binary data of equal size, it includes the number of changed values and of all
    values, the largest change, and the position of the first change; ``left`` and ``right`` are the values
    around that position.
    """

    kind: Kind
    where: str
    left: Plain
    right: Plain
    changed: int | None = None
    total: int | None = None
    largest: float | None = None
    first: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelDiff:
    """The differences of two files; ``left`` and ``right`` are their names."""

    left: str
    right: str
    verdict: Verdict
    differences: tuple[Difference, ...]

    @property
    def means_the_same(self) -> bool:
        """Whether both files compute the same."""
        return self.verdict.is_same_content


def diff_models(left: Model, right: Model) -> ModelDiff:
    """Compare two models by content."""
    differences = tuple(differences_of(left, right)) if left.content != right.content else ()
    return ModelDiff(
        left=left.source,
        right=right.source,
        verdict=_judge(left, right, differences),
        differences=differences,
    )


def _judge(left: Model, right: Model, differences: tuple[Difference, ...]) -> Verdict:
    has_same_bytes = left.content == right.content
    if not has_same_bytes and not differences and with_key_order_of(left, right) == right.content:
        return Verdict.OTHER_KEY_ORDER
    return verdict_of(differences, has_same_bytes=has_same_bytes)


def verdict_of(differences: tuple[Difference, ...], *, has_same_bytes: bool) -> Verdict:
    """Return the verdict on two files, given all their differences."""
    if has_same_bytes:
        return Verdict.SAME_BYTES
    kinds = {difference.kind for difference in differences}
    if not kinds:
        return Verdict.OTHER_LAYOUT
    if kinds <= METADATA_KINDS:
        return Verdict.OTHER_METADATA
    return Verdict.OTHER_CONTENT if kinds <= METADATA_KINDS | CONTENT_KINDS else Verdict.OTHER_STRUCTURE


def differences_of(left: Model, right: Model) -> Iterator[Difference]:
    """Yield the differences in content; the order of keys and the layout are not content."""
    yield from _unless_equal(Kind.SCHEMA, "the file", left.schema_version, right.schema_version)
    yield from _unless_equal(Kind.CONVERTER, "the file", left.description, right.description)
    yield from _unless_equal(Kind.GRAPH, "number of graphs", len(left.graphs), len(right.graphs))
    left_options, right_options = _post_process_values(left), _post_process_values(right)
    for left_graph, right_graph in zip(left.graphs, right.graphs, strict=False):
        renamed = _renamed_constants(left_graph, right_graph)
        for new, old in renamed.items():
            yield Difference(kind=Kind.NAME, where=old, left=old, right=new)
        same_names = _with_names(right_graph, renamed)
        yield from _graph_differences(left_graph, same_names)
        yield from _operator_differences(left_graph, same_names)
    yield from _map_differences(Kind.OPTION, f"{POST_PROCESS}.", left_options, right_options)
    yield from _map_differences(Kind.METADATA, "", _metadata(left), _metadata(right))


def _renamed_constants(left: Graph, right: Graph) -> Mapping[str, str]:
    """Return the constants that only differ in their name, as a map from the right name to the left.

    Versions of TensorFlow give some constants different names, such as the shape argument of a reshape.
    """
    renamed = {}
    left_names, right_names = ({it.name for it in graph.tensors} for graph in (left, right))
    for _, one, other in _matched(_operators_by_result(left), _operators_by_result(right)):
        if one is None or other is None:
            continue
        for left_index, right_index in zip(one.inputs, other.inputs, strict=False):
            if min(left_index, right_index) < 0:
                continue
            old, new = left.tensors[left_index], right.tensors[right_index]
            is_new = old.name not in right_names and new.name not in left_names
            if is_new and old.data and replace(new, name=old.name) == old:
                renamed[new.name] = old.name
    return renamed


def _with_names(graph: Graph, names: Mapping[str, str]) -> Graph:
    """Return the graph with other names for some of its tensors."""
    tensors = (replace(it, name=names[it.name]) if it.name in names else it for it in graph.tensors)
    return replace(graph, tensors=tuple(tensors)) if names else graph


def _graph_differences(left: Graph, right: Graph) -> Iterator[Difference]:
    for kind, inner, left_used, right_used in (
        (Kind.INPUTS, "inputs", left.inputs, right.inputs),
        (Kind.OUTPUTS, "outputs", left.outputs, right.outputs),
    ):
        where = f"{inner} of the graph"
        yield from _unless_equal(kind, where, left.tensor_names(left_used), right.tensor_names(right_used))
    left_tensors = _by_name(left.tensors, lambda tensor: tensor.name)
    right_tensors = _by_name(right.tensors, lambda tensor: tensor.name)
    for name, left_tensor, right_tensor in _matched(left_tensors, right_tensors):
        if left_tensor is None or right_tensor is None:
            yield _one_sided(Kind.TENSOR, name, is_left=right_tensor is None)
        else:
            yield from _tensor_differences(name, left_tensor, right_tensor)


def _tensor_differences(name: str, left: Tensor, right: Tensor) -> Iterator[Difference]:
    yield from _unless_equal(Kind.TYPE, name, left.dtype, right.dtype)
    yield from _unless_equal(Kind.SHAPE, name, left.shape, right.shape)
    yield from _unless_equal(Kind.TENSOR, f"{name}: variable", left.is_variable, right.is_variable)
    yield from _unless_equal(Kind.TENSOR, f"{name}: sparse", left.is_sparse, right.is_sparse)
    for kind, what, read in _QUANTIZATION_FIELDS:
        yield from _unless_equal(kind, f"{name}{what}", _field(left, read), _field(right, read))
    if left.data != right.data:
        yield _weights_difference(name, left, right)


_QUANTIZATION_FIELDS: Final[tuple[tuple[Kind, str, Callable[[QuantizationParameters], Plain]], ...]] = (
    (Kind.SCALE, "", lambda it: it.scales),
    # The quantized dimension is only meaningful if there are several scales.
    (Kind.SCALE, ": dimension", lambda it: (it.dimension,) if len(it.scales) > 1 else ()),
    (Kind.ZERO_POINT, "", lambda it: it.zero_points),
    (Kind.RANGE, ": minima", lambda it: it.minima),
    (Kind.RANGE, ": maxima", lambda it: it.maxima),
)


def _field(tensor: Tensor, read: Callable[[QuantizationParameters], Plain]) -> Plain:
    return () if tensor.quantization is None else read(tensor.quantization)


def _weights_difference(name: str, left: Tensor, right: Tensor) -> Difference:
    left_values, right_values = _values(left), _values(right)
    if left_values.dtype != right_values.dtype or left_values.size != right_values.size:
        sizes = tuple(f"{len(tensor.data)} bytes" for tensor in (left, right))
        return Difference(kind=Kind.WEIGHTS, where=name, left=sizes[0], right=sizes[1])
    return _values_difference(Kind.WEIGHTS, name, left_values, right_values)


def _values_difference(
    kind: Kind, where: str, left: NDArray[np.generic], right: NDArray[np.generic]
) -> Difference:
    is_changed = _bit_patterns(left) != _bit_patterns(right)
    with np.errstate(all="ignore"):  # the weights may contain infinities and NaN
        distances = np.abs(left[is_changed].astype("f8") - right[is_changed].astype("f8"))
    first = int(is_changed.argmax())
    around = slice(max(0, first - NEIGHBOURS), first + NEIGHBOURS + 1)
    return Difference(
        kind=kind,
        where=where,
        left=tuple(left[around].tolist()),
        right=tuple(right[around].tolist()),
        changed=int(is_changed.sum()),
        total=left.size,
        largest=float(distances.max()),
        first=first,
    )


def _values(tensor: Tensor) -> NDArray[np.generic]:
    dtype = np.dtype(tensor.dtype if tensor.dtype in NUMERIC_TYPES else "u1").newbyteorder("<")
    if len(tensor.data) % dtype.itemsize:
        dtype = np.dtype("u1")
    return np.frombuffer(tensor.data, dtype)


def _bit_patterns(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.view(f"<u{values.dtype.itemsize}")


def _operator_differences(left: Graph, right: Graph) -> Iterator[Difference]:
    left_operators, right_operators = _operators_by_result(left), _operators_by_result(right)
    yield from _order_differences(left_operators, right_operators)
    for result, left_operator, right_operator in _matched(left_operators, right_operators):
        if left_operator is None or right_operator is None:
            name = (left_operator or right_operator).name  # type: ignore[union-attr] # one of them is not None
            yield _one_sided(Kind.OPERATOR, f"{name} -> {result}", is_left=right_operator is None)
            continue
        where = f"{left_operator.name} -> {result}"
        yield from _unless_equal(Kind.OPERATOR, where, left_operator.name, right_operator.name)
        yield from _unless_equal(
            Kind.OPERATOR, f"{where}: version", left_operator.version, right_operator.version
        )
        for end, left_used, right_used in (
            ("inputs", left_operator.inputs, right_operator.inputs),
            ("outputs", left_operator.outputs, right_operator.outputs),
        ):
            used = (left.tensor_names(left_used), right.tensor_names(right_used))
            yield from _unless_equal(Kind.OPERATOR, f"{where}: {end}", *used)
        yield from _map_differences(Kind.OPTION, f"{where}: ", left_operator.options, right_operator.options)
        if not left_operator.name == right_operator.name == POST_PROCESS:
            blobs = (left_operator.custom_options, right_operator.custom_options)
            yield from _unless_equal(Kind.OPTION, f"{where}: custom options", *map(_blob, blobs))


def _order_differences(left: Mapping[str, Operator], right: Mapping[str, Operator]) -> Iterator[Difference]:
    """Compare the order of the operators, which is the execution order and may change the result."""
    left_order, right_order = (
        tuple(result for result in one if result in other) for one, other in ((left, right), (right, left))
    )
    yield from _unless_equal(Kind.OPERATOR, "order of the operators", left_order, right_order)


def _operators_by_result(graph: Graph) -> dict[str, Operator]:
    return _by_name(graph.operators, lambda operator: "".join(graph.tensor_names(operator.outputs[:1])))


def _post_process_values(model: Model) -> Mapping[str, Value]:
    """Return the post-processing options by key, or as one blob if TOCO did not write them."""
    try:
        options = read_post_process_options(model)
    except IntegrityError:
        blobs = [it.custom_options for it in model.operators() if it.is_custom and it.name == POST_PROCESS]
        return {f"blob {number}": _blob(blob) for number, blob in enumerate(blobs)}
    return {} if options is None else options.values


def _metadata(model: Model) -> Mapping[str, Value]:
    return {
        name: _blob(it.content.rstrip(b"\0"))
        for name, it in _by_name(model.metadata, lambda it: it.name).items()
    }


def _blob(content: bytes) -> str | bytes:
    is_text = len(content) <= 80 and content.isascii() and content.decode("ascii").isprintable()
    return content.decode("ascii") if is_text else content


def _by_name(items: Iterable[Item], name_of: Callable[[Item], str]) -> dict[str, Item]:
    """Key items by name; the second item with the same name becomes ``name #2``."""
    seen: Counter[str] = Counter()
    named = {}
    for item in items:
        name = name_of(item)
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} #{seen[name]}"] = item
    return named


def _matched(
    left: Mapping[str, Item], right: Mapping[str, Item]
) -> Iterator[tuple[str, Item | None, Item | None]]:
    for name in [*left, *(name for name in right if name not in left)]:
        yield name, left.get(name), right.get(name)


def _map_differences(
    kind: Kind, prefix: str, left: Mapping[str, Value], right: Mapping[str, Value]
) -> Iterator[Difference]:
    for key in sorted({*left, *right}):
        yield from _unless_equal(kind, f"{prefix}{key}", left.get(key), right.get(key))


def _unless_equal(kind: Kind, where: str, left: Value, right: Value) -> Iterator[Difference]:
    if isinstance(left, bytes) and isinstance(right, bytes) and len(left) == len(right):
        if left != right:
            yield _values_difference(kind, where, np.frombuffer(left, "u1"), np.frombuffer(right, "u1"))
    # Compare the repr: NaN does not equal itself, and 1 equals True.
    elif repr(left) != repr(right):
        yield Difference(kind=kind, where=where, left=_without_bytes(left), right=_without_bytes(right))


def _without_bytes(value: Value) -> Plain:
    return f"{len(value)} bytes" if isinstance(value, bytes) else value


def _one_sided(kind: Kind, where: str, *, is_left: bool) -> Difference:
    return Difference(
        kind=kind, where=where, left="there" if is_left else None, right=None if is_left else "there"
    )
