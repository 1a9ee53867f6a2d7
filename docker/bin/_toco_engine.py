"""Run the wheel's TOCO engine: fill its two protobuf messages, check them against the graph, convert.

Calls the same function as the wheel's ``toco_from_protos``. Needs TensorFlow 1.15.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from typing import TYPE_CHECKING, Iterable, Sequence

from _toco_conversion import ZERO_POINTS
from _toco_flags import FlagError
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2
from tensorflow.lite.toco import model_flags_pb2, toco_flags_pb2, types_pb2
from tensorflow.python import pywrap_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

    from _toco_conversion import TocoInvocation
    from google.protobuf.message import Message

EXAMPLE_SHAPE = (1, 300, 300, 3)
"""One image of 300 x 300 pixels in colour, NHWC."""
WEIGHTED_OPS = frozenset(("Conv2D", "DepthwiseConv2dNative", "MatMul"))


def convert(conversion: TocoInvocation) -> int:
    """Convert, write the output file atomically, return the exit code.

    Raises:
        FlagError: the input file is not a graph, or the flags do not fit the graph.
    """
    graph = graph_pb2.GraphDef()
    _read_message(conversion.input_file, graph)
    model_flags = _model_flags(conversion)
    toco_flags = toco_flags_pb2.TocoFlags(**conversion.toco_flags)
    if not graph.node:
        raise FlagError(f"{conversion.input_file} is a graph without nodes", "pass a frozen graph")
    if not model_flags.output_arrays:
        raise FlagError("neither --output_arrays nor --model_flags_file names an output")
    if not model_flags.allow_nonexistent_arrays:
        _check_arrays(graph, model_flags)
    _check_ranges_exist(graph, model_flags, toco_flags)
    return _convert_in_child(
        conversion.output_file,
        model_flags.SerializeToString(),
        toco_flags.SerializeToString(),
        graph.SerializeToString(),
    )


def _model_flags(conversion: TocoInvocation) -> model_flags_pb2.ModelFlags:
    flags = model_flags_pb2.ModelFlags()
    if conversion.model_flags_file is not None:
        _read_message(conversion.model_flags_file, flags)
    flags.MergeFrom(model_flags_pb2.ModelFlags(**conversion.model_flags))
    if conversion.arrays_extra_info_file is not None:
        _read_message(conversion.arrays_extra_info_file, flags.arrays_extra_info)
    return flags


def _read_message(path: Path, message: Message) -> None:
    """Parse a message from a file in binary or text format; the native tool accepts both too."""
    content = path.read_bytes()
    try:
        message.ParseFromString(content)
    except DecodeError:
        message.Clear()
        try:
            text_format.Parse(content, message)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise FlagError(f"{path} is not a {message.DESCRIPTOR.name} in binary or text format") from error


def _check_arrays(graph: graph_pb2.GraphDef, model_flags: model_flags_pb2.ModelFlags) -> None:
    """Check that every named array exists in the graph, and that the shape of every input is known."""
    nodes = {node.name: node for node in graph.node}
    for flag, names in (
        ("input_arrays", [array.name for array in model_flags.input_arrays]),
        ("output_arrays", model_flags.output_arrays),
    ):
        for name in names:
            if name.partition(":")[0] not in nodes:
                raise FlagError(f"--{flag}: the graph has no array {name!r}", tip=_nearest_names(name, nodes))
    for array in model_flags.input_arrays:
        node = nodes[array.name.partition(":")[0]]
        if node.op == "Placeholder":
            known = [dim.size for dim in node.attr["shape"].shape.dim]
            _check_shape(array.name, array.shape.dims if array.HasField("shape") else None, known)


def _check_shape(name: str, wanted: Sequence[int] | None, known: Sequence[int]) -> None:
    """Check that the graph allows the requested shape. If none is requested, TOCO uses the graph's shape.

    If none is requested and the graph's shape is not fully known, this is an error: TOCO would write a model
    whose input has no shape. An explicit empty shape, `--input_shapes=`, requests such a model on purpose.
    """
    if wanted is None and (not known or -1 in known):
        in_graph = f"as {_written(known)}" if known else "without a shape"
        raise FlagError(
            f"--input_shapes is missing, and the graph has {name!r} {in_graph}", tip=_shape_tip(known)
        )
    if not known or not wanted:
        return
    if len(known) != len(wanted) or any(have not in (-1, want) for have, want in zip(known, wanted)):
        raise FlagError(
            f"--input_shapes: {name!r} is {_written(wanted)} here and {_written(known)} in the graph",
            tip=_shape_tip(known),
        )


def _shape_tip(known: Sequence[int]) -> str:
    """Return a flag that the graph allows, with example values for the sizes that the graph does not fix."""
    examples = (*EXAMPLE_SHAPE, *[1] * len(known))
    sizes = [example if size < 0 else size for size, example in zip(known, examples)]
    flag = f"--input_shapes={_written(sizes or EXAMPLE_SHAPE)}"
    return f"for images of 300 x 300: {flag}" if -1 in known[1:] or not known else flag


def _written(shape: Iterable[int]) -> str:
    return ",".join(str(size) if size >= 0 else "?" for size in shape)


def _nearest_names(name: str, nodes: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name.partition(":")[0], list(nodes), n=1)
    return f"did you mean {nearest[0]}?" if nearest else ""


def _check_ranges_exist(
    graph: graph_pb2.GraphDef, model_flags: model_flags_pb2.ModelFlags, toco_flags: toco_flags_pb2.TocoFlags
) -> None:
    """Reject quantization of a graph that was not trained for it, unless ranges are given."""
    inference_type = types_pb2.IODataType.Name(toco_flags.inference_type)
    ranges_given = (
        toco_flags.HasField("default_ranges_min")
        or toco_flags.HasField("default_int16_ranges_min")
        or model_flags.HasField("arrays_extra_info")
    )
    if inference_type not in ZERO_POINTS or ranges_given or toco_flags.post_training_quantize:
        return
    ops = {node.op for node in graph.node}
    if ops & WEIGHTED_OPS and not any(op.startswith("FakeQuant") for op in ops):
        msg = "the graph has no FakeQuant nodes, so the quantization ranges of its arrays are unknown"
        tip = "export a quantization-aware trained checkpoint (graph_rewriter in its pipeline.config)"
        raise FlagError(msg, tip)


def _convert_in_child(output_file: Path, model_flags: bytes, toco_flags: bytes, graph: bytes) -> int:
    """Run the engine in a child process, because it calls abort() on input that it does not accept."""
    partial = output_file.with_name(f".{output_file.name}.partial-{os.getpid()}")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os._exit(_run_engine(partial, model_flags, toco_flags, graph))
    try:
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            end = signal.Signals(os.WTERMSIG(status))
            print(
                f"toco: the engine was ended by {end.name} and wrote no output; the reason is above",
                file=sys.stderr,
            )
            return 128 + end
        if os.WEXITSTATUS(status) == 0:
            partial.replace(output_file)
        return os.WEXITSTATUS(status)
    finally:
        if partial.exists():
            partial.unlink()


def _run_engine(partial: Path, model_flags: bytes, toco_flags: bytes, graph: bytes) -> int:
    try:
        # No extended return value, no debug info (an empty str is rejected, hence bytes), no MLIR converter.
        model = pywrap_tensorflow.TocoConvert(model_flags, toco_flags, graph, False, b"", False)
        partial.write_bytes(model)
    except Exception as error:  # noqa: BLE001 - the engine raises a bare Exception
        print(f"toco: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
