"""Read a ``.tflite`` file into dataclasses, including the positions of the bytes that TOCO varies."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from runner.errors import IntegrityError, UsageError
from runner.tflite.flatbuffer_bounds import check_bounds
from runner.tflite.schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

MAX_FILE_BYTES: Final = 1 << 31
"""FlatBuffers use signed 32-bit offsets, so a .tflite file cannot be larger."""
MAX_OPTION_ELEMENTS: Final = 1024
"""No operator has a longer list in its options; the limit protects against damaged files."""

OptionValue = bool | int | float | str | tuple[int | float, ...]
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Span:
    """The position of a vector's elements in the file; its length is in the four bytes before them."""

    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class QuantizationParameters:
    """Quantization parameters of a tensor: ``real = scale * (integer - zero_point)``."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    minima: tuple[float, ...]
    maxima: tuple[float, ...]
    dimension: int


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a graph; ``data`` is empty unless the file contains its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: QuantizationParameters | None
    data: bytes
    is_variable: bool
    is_sparse: bool


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator; inputs and outputs are tensor indices, -1 for an omitted optional input."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, OptionValue]
    is_custom: bool
    custom_options: bytes
    custom_options_span: Span | None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A subgraph; nearly all files have exactly one."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def tensor_names(self, indices: tuple[int, ...]) -> tuple[str, ...]:
        """Return the names of tensors; an omitted optional one is ``(none)``."""
        return tuple("(none)" if index < 0 else self.tensors[index].name for index in indices)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """A metadata entry: a named blob that the converter stored in the file."""

    name: str
    content: bytes
    span: Span | None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A whole file: its bytes and their parsed content."""

    content: bytes
    source: str
    schema_version: int
    description: str
    graphs: tuple[Graph, ...]
    metadata: tuple[Metadata, ...]

    def operators(self) -> Iterator[Operator]:
        """Yield the operators of all graphs."""
        for graph in self.graphs:
            yield from graph.operators


def read_model_file(path: Path) -> Model:
    """Read a ``.tflite`` file.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        IntegrityError: this is not a ``.tflite`` file, or it is truncated or damaged.
    """
    try:
        if path.stat().st_size >= MAX_FILE_BYTES:
            raise IntegrityError(f"{path} is too large: a .tflite file is smaller than 2 GiB")
        content = path.read_bytes()
    except OSError as problem:
        raise UsageError(f"cannot read {path}: {problem.strerror}") from problem
    return read_model(content, source=str(path))


def read_model(content: bytes, *, source: str = "the model") -> Model:
    """Read the bytes of a ``.tflite`` file; ``source`` is its name in messages.

    Raises:
        IntegrityError: this is not a ``.tflite`` file, or it is truncated or damaged.
    """
    check_bounds(content, source=source)
    try:
        return _read(schema.Model.GetRootAs(content), content, source)
    except _InconsistentError as problem:
        raise IntegrityError(f"{source} is damaged: {problem}", tip="fetch or convert it again") from problem


class _InconsistentError(Exception):
    """All offsets are inside the file, but the data there is inconsistent."""


@dataclass(frozen=True, kw_only=True)
class _OperatorCode:
    name: str
    version: int
    is_custom: bool


def _read(root: schema.Model, content: bytes, source: str) -> Model:
    buffers = tuple(_read_buffer(root.Buffers(index)) for index in range(root.BuffersLength()))
    codes = tuple(_read_code(root.OperatorCodes(index)) for index in range(root.OperatorCodesLength()))
    return Model(
        content=content,
        source=source,
        schema_version=root.Version(),
        description=_text(root.Description()),
        graphs=tuple(
            _read_graph(root.Subgraphs(index), codes, buffers) for index in range(root.SubgraphsLength())
        ),
        metadata=tuple(
            _read_metadata(root.Metadata(index), root, buffers) for index in range(root.MetadataLength())
        ),
    )


def _read_buffer(buffer: schema.Buffer) -> bytes:
    if buffer.Offset() > 1:
        raise _InconsistentError("it stores weights outside its FlatBuffer, which is not supported")
    return b"" if buffer.DataIsNone() else bytes(buffer.DataAsNumpy())


def _read_code(code: schema.OperatorCode) -> _OperatorCode:
    # The old field has one byte; larger numbers are only in the new field.
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    is_custom = builtin == schema.BuiltinOperator.CUSTOM
    builtin_name = BUILTIN_NAMES.get(builtin, f"BUILTIN_{builtin}")
    name = _text(code.CustomCode()) if is_custom else builtin_name
    return _OperatorCode(name=name, version=code.Version(), is_custom=is_custom)


def _read_graph(
    graph: schema.SubGraph, codes: tuple[_OperatorCode, ...], buffers: tuple[bytes, ...]
) -> Graph:
    tensors = tuple(_read_tensor(graph.Tensors(index), buffers) for index in range(graph.TensorsLength()))
    operators = tuple(
        _read_operator(graph.Operators(index), codes) for index in range(graph.OperatorsLength())
    )
    inputs, outputs = _numbers(graph.InputsAsNumpy()), _numbers(graph.OutputsAsNumpy())
    for used in (inputs, outputs, *(operator.inputs + operator.outputs for operator in operators)):
        if any(not -1 <= index < len(tensors) for index in used):
            raise _InconsistentError(f"a tensor index is out of range: the graph has {len(tensors)} tensors")
    return Graph(
        name=_text(graph.Name()), tensors=tensors, operators=operators, inputs=inputs, outputs=outputs
    )


def _read_tensor(tensor: schema.Tensor, buffers: tuple[bytes, ...]) -> Tensor:
    return Tensor(
        name=_text(tensor.Name()),
        dtype=TENSOR_TYPES.get(tensor.Type(), f"type_{tensor.Type()}"),
        shape=_numbers(tensor.ShapeAsNumpy()),
        quantization=_read_quantization(tensor.Quantization()),
        data=_pick(buffers, tensor.Buffer(), "buffer"),
        is_variable=bool(tensor.IsVariable()),
        is_sparse=tensor.Sparsity() is not None,
    )


def _read_quantization(parameters: schema.QuantizationParameters | None) -> QuantizationParameters | None:
    if parameters is None:
        return None
    return QuantizationParameters(
        scales=_reals(parameters.ScaleAsNumpy()),
        zero_points=_numbers(parameters.ZeroPointAsNumpy()),
        minima=_reals(parameters.MinAsNumpy()),
        maxima=_reals(parameters.MaxAsNumpy()),
        dimension=parameters.QuantizedDimension(),
    )


def _read_operator(operator: schema.Operator, codes: tuple[_OperatorCode, ...]) -> Operator:
    code = _pick(codes, operator.OpcodeIndex(), "operator code")
    custom_options = b"" if operator.CustomOptionsIsNone() else bytes(operator.CustomOptionsAsNumpy())
    return Operator(
        name=code.name,
        version=code.version,
        inputs=_numbers(operator.InputsAsNumpy()),
        outputs=_numbers(operator.OutputsAsNumpy()),
        options=_read_options(operator),
        is_custom=code.is_custom,
        custom_options=custom_options,
        custom_options_span=_span(operator, 5, custom_options),
    )


def _read_options(operator: schema.Operator) -> dict[str, OptionValue]:
    """Read the options of a builtin operator of any kind."""
    kind = getattr(schema, OPTION_TYPES.get(operator.BuiltinOptionsType(), ""), None)
    table = operator.BuiltinOptions()
    if kind is None or table is None:
        return {}
    options = kind()
    options.Init(table.Bytes, table.Pos)
    try:
        return {_snake_case(name): _read_option(options, name) for name in _option_names(kind)}
    # check_bounds does not cover the tables of options (about a hundred kinds); reading past the end raises.
    except (struct.error, TypeError, ValueError) as problem:
        raise _InconsistentError(f"the options of an operator cannot be read: {problem}") from problem


def _option_names(kind: type) -> list[str]:
    helpers = ("AsNumpy", "Length", "IsNone", "BufferHasIdentifier")
    return [
        name
        for name in vars(kind)
        if not name.startswith(("_", "GetRootAs")) and name != "Init" and not name.endswith(helpers)
    ]


def _read_option(options: object, name: str) -> OptionValue:
    if hasattr(options, f"{name}AsNumpy"):
        if getattr(options, f"{name}Length")() > MAX_OPTION_ELEMENTS:
            raise ValueError(f"{name} has too many elements")
        return _reals(getattr(options, f"{name}AsNumpy")())
    value = getattr(options, name)()
    if name in OPTION_VALUE_NAMES:
        return OPTION_VALUE_NAMES[name].get(value, str(value))
    return value if isinstance(value, bool | int | float) else _text(value)


def _read_metadata(metadata: schema.Metadata, root: schema.Model, buffers: tuple[bytes, ...]) -> Metadata:
    content = _pick(buffers, metadata.Buffer(), "buffer")
    return Metadata(
        name=_text(metadata.Name()),
        content=content,
        span=_span(root.Buffers(metadata.Buffer()), 0, content),
    )


def _span(accessor: schema.Buffer | schema.Operator, slot: int, content: bytes) -> Span | None:
    # The generated accessors return copies and views, not positions; the underlying table has the positions.
    offset = accessor._tab.Offset(4 + 2 * slot)
    if offset == 0:
        return None
    start = accessor._tab.Vector(offset)
    return Span(start=start, stop=start + len(content))


def _pick(items: tuple[Item, ...], index: int, kind: str) -> Item:
    if index >= len(items):
        raise _InconsistentError(f"{kind} index {index} is out of range: there are {len(items)}")
    return items[index]


def _numbers(array: NDArray[np.integer] | int) -> tuple[int, ...]:
    # The library returns 0 for a missing vector.
    return () if isinstance(array, int) else tuple(array.tolist())


def _reals(array: NDArray[np.floating] | int) -> tuple[float, ...]:
    return () if isinstance(array, int) else tuple(array.tolist())


def _text(encoded: bytes | None) -> str:
    return (encoded or b"").decode("utf-8", "backslashreplace")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _names_by_value(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


BUILTIN_NAMES: Final = _names_by_value(schema.BuiltinOperator)
TENSOR_TYPES: Final = {value: name.lower() for value, name in _names_by_value(schema.TensorType).items()}
OPTION_TYPES: Final = _names_by_value(schema.BuiltinOptions)
OPTION_VALUE_NAMES: Final = {
    "Padding": _names_by_value(schema.Padding),
    "FusedActivationFunction": _names_by_value(schema.ActivationFunctionType),
}
