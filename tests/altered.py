"""Copies of a ``.tflite`` file that differ from it in exactly one thing."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import flatbuffers  # type: ignore[import-untyped] # ships no types

from runner.tflite.key_orders import read_post_process_options, write_flexbuffer
from runner.tflite.model import read_model
from runner.tflite.runtime_version import METADATA_NAME
from runner.tflite.schema import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from runner.tflite.key_orders import Value

TANH = 28


def with_other_weight(content: bytes, tensor: str) -> bytes:
    """Change the first byte of a tensor's values."""
    copy = bytearray(content)
    _buffer(copy, _tensor(copy, tensor).Buffer()).DataAsNumpy()[0] ^= 1
    return bytes(copy)


def with_values(
    content: bytes, tensor: str, dtype: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> bytes:
    """Replace the values of a tensor by what ``change`` returns for them."""
    copy = bytearray(content)
    owner = _tensor(copy, tensor)
    values = _buffer(copy, owner.Buffer()).DataAsNumpy().view(dtype).reshape(owner.ShapeAsNumpy())
    values[...] = change(values)
    return bytes(copy)


def post_processing_alone(content: bytes) -> bytes:
    """Keep the last operator alone, which detects: its inputs become those of the model."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    (graph,) = model.subgraphs
    graph.operators = graph.operators[-1:]
    graph.inputs = graph.operators[0].inputs[:2]
    return _written(model)


def with_other_scale(content: bytes, tensor: str, factor: float = 2.0) -> bytes:
    """Multiply a tensor's scale."""
    copy = bytearray(content)
    _tensor(copy, tensor).Quantization().ScaleAsNumpy()[0] *= factor
    return bytes(copy)


def with_other_zero_point(content: bytes, tensor: str) -> bytes:
    """Increase a tensor's zero point by one."""
    copy = bytearray(content)
    _tensor(copy, tensor).Quantization().ZeroPointAsNumpy()[0] += 1
    return bytes(copy)


def with_other_options(content: bytes, changes: Mapping[str, Value]) -> bytes:
    """Change options of the post-processing operator without changing their size."""
    options = read_post_process_options(read_model(content))
    assert options is not None
    blob = write_flexbuffer(options.order, {**options.values, **changes})
    return with_other_blob(content, blob)


def with_other_blob(content: bytes, blob: bytes) -> bytes:
    """Replace the post-processing options with the same number of other bytes."""
    options = read_post_process_options(read_model(content))
    assert options is not None
    assert len(blob) == options.span.stop - options.span.start
    return content[: options.span.start] + blob + content[options.span.stop :]


def with_other_operator(content: bytes) -> bytes:
    """Replace LOGISTIC with TANH."""
    copy = bytearray(content)
    root = schema.Model.GetRootAs(copy)
    codes = [root.OperatorCodes(index) for index in range(root.OperatorCodesLength())]
    (code,) = [code for code in codes if code.DeprecatedBuiltinCode() == schema.BuiltinOperator.LOGISTIC]
    copy[code._tab.Pos + code._tab.Offset(4)] = TANH
    return bytes(copy)


def with_other_metadata(content: bytes, version: bytes = b"9.9.9") -> bytes:
    """Change the runtime version to another one of the same length."""
    (entry,) = [entry for entry in read_model(content).metadata if entry.name == METADATA_NAME]
    assert entry.span is not None
    assert len(version) == len(entry.content)
    return content[: entry.span.start] + version + content[entry.span.stop :]


def with_renamed_custom_operator(content: bytes) -> bytes:
    """Give the post-processing operator another name; its tensors keep theirs."""
    copy = bytearray(content)
    root = schema.Model.GetRootAs(copy)
    codes = [root.OperatorCodes(index) for index in range(root.OperatorCodesLength())]
    (code,) = [code for code in codes if code.CustomCode() is not None]
    start = code._tab.Pos + code._tab.Offset(6)
    start = code._tab.Indirect(start) + 4
    copy[start : start + 4] = b"Some"
    return bytes(copy)


def with_one_range(content: bytes, scale: float, zero_point: int) -> bytes:
    """Give all activations except the input and the probabilities one range, like TOCO's default ranges."""
    copy = bytearray(content)
    graph = schema.Model.GetRootAs(copy).Subgraphs(0)
    for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
        is_activation = (
            tensor.Type() == schema.TensorType.UINT8 and _buffer(copy, tensor.Buffer()).DataIsNone()
        )
        if is_activation and tensor.Name() not in {b"normalized_input_image_tensor", b"classes"}:
            tensor.Quantization().ScaleAsNumpy()[0] = scale
            tensor.Quantization().ZeroPointAsNumpy()[0] = zero_point
    return bytes(copy)


def compiled_for_edge_tpu(content: bytes) -> bytes:
    """Replace all operators before the post-processing with one custom operator, like for the Edge TPU."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    (graph,) = model.subgraphs
    post_process = graph.operators[-1]
    code, program = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"edgetpu-custom-op"
    program.opcodeIndex = len(model.operatorCodes)
    program.inputs, program.outputs = graph.inputs, post_process.inputs[:2]
    program.customOptions = list(b"DWN1 and whatever else the compiler wrote")
    model.operatorCodes.append(code)
    graph.operators = [program, post_process]
    return _written(model)


def with_other_layout(content: bytes) -> bytes:
    """Write the same model with another program, which gives the same content in another layout."""
    return _written(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)))


def with_renamed_tensor(content: bytes, old: str, new: str) -> bytes:
    """Give a tensor another name, in a file of another layout."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    (tensor,) = [it for it in model.subgraphs[0].tensors if it.name == old.encode()]
    tensor.name = new.encode()
    return _written(model)


def without_options(content: bytes, names: frozenset[str]) -> bytes:
    """Leave options of the post-processing operator out, in a file of another layout."""
    options = read_post_process_options(read_model(content))
    assert options is not None
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    order = tuple(name for name in options.order if name not in names)
    values = {name: options.values[name] for name in order}
    model.subgraphs[0].operators[-1].customOptions = list(write_flexbuffer(order, values))
    return _written(model)


def quantized_after_training(content: bytes) -> bytes:
    """Store all float constants as int8, in a file of another layout: as with dynamic-range quantization."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) == 4:
            tensor.type = schema.TensorType.INT8
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [0.01], [0]
            model.buffers[tensor.buffer].data = list(data[: len(data) // 4])
    return _written(model)


def without_recorded_ranges(content: bytes) -> bytes:
    """Leave out the ends of all ranges, which a file need not hold, in a file of another layout."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None:
            tensor.quantization.min = tensor.quantization.max = None
    return _written(model)


def _written(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_description_in_options(content: bytes) -> bytes:
    """Make the file's description share its bytes with the post-processing options."""
    options = read_post_process_options(read_model(content))
    assert options is not None
    copy = bytearray(content)
    table = schema.Model.GetRootAs(copy)._tab
    field = table.Pos + table.Offset(10)
    struct.pack_into("<I", copy, field, options.span.start - 4 - field)
    return bytes(copy)


def _tensor(content: bytearray, name: str) -> schema.Tensor:
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    (tensor,) = [tensor for tensor in tensors if tensor.Name() == name.encode()]
    return tensor


def _buffer(content: bytearray, index: int) -> schema.Buffer:
    return schema.Model.GetRootAs(content).Buffers(index)
