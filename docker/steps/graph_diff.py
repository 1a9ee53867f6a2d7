#!/usr/bin/env python3
"""Compare two graphs node by node; the order of nodes and attributes does not matter.

    graph_diff.py --left FILE --right FILE

A ``.meta`` file is read as a MetaGraphDef, any other file as a GraphDef.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator

from _step import InputError, Parser, import_tensorflow, run

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from tensorflow.core.framework.attr_value_pb2 import AttrValue
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef

Difference = Dict[str, Any]
LONGEST_VALUE = 200


def main() -> None:
    """Compare the graphs given on the command line."""
    parser = Parser("Compare two graphs; the order of nodes does not matter.")
    parser.add_argument("--left", type=Path, required=True)
    parser.add_argument("--right", type=Path, required=True)
    run(parser, compare_files)


def compare_files(options: argparse.Namespace) -> dict[str, Any]:
    """Read both files and list their differences."""
    import_tensorflow()
    left, right = read_graph(options.left), read_graph(options.right)
    return {
        "left_nodes": len(left.node),
        "right_nodes": len(right.node),
        "differences": list(compare_graphs(left, right)),
    }


def read_graph(path: Path) -> GraphDef:
    """Read the graph of a GraphDef or MetaGraphDef file.

    Raises:
        InputError: the file cannot be read, or is not a graph.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    try:
        content = path.read_bytes()
        is_meta = path.suffix == ".meta"
        graph = MetaGraphDef.FromString(content).graph_def if is_meta else GraphDef.FromString(content)
    except OSError as problem:
        raise InputError(f"cannot read {path}: {problem.strerror}") from problem
    except DecodeError as problem:
        raise InputError(
            f"{path} is not a graph, or it is damaged: {problem}",
            tip="a .meta file is read as a MetaGraphDef, any other file as a GraphDef",
        ) from problem
    if not graph.node:
        raise InputError(
            f"{path} contains no graph: it has no nodes",
            tip="a .meta file is read as a MetaGraphDef, any other file as a GraphDef",
        )
    return graph


def compare_graphs(left: GraphDef, right: GraphDef) -> Iterator[Difference]:
    """Match nodes by name and yield their differences."""
    yield from unless_equal("schema version", "producer", left.versions.producer, right.versions.producer)
    libraries = [graph.library.SerializeToString(deterministic=True) for graph in (left, right)]
    digests = [hashlib.sha256(library).hexdigest() for library in libraries]
    yield from unless_equal("graph", "sha256 of the function library", *digests)
    left_nodes = {node.name: node for node in left.node}
    right_nodes = {node.name: node for node in right.node}
    for name in [*left_nodes, *(name for name in right_nodes if name not in left_nodes)]:
        if name not in right_nodes:
            yield difference("operator", name, left_nodes[name].op, None)
        elif name not in left_nodes:
            yield difference("operator", name, None, right_nodes[name].op)
        else:
            yield from compare_nodes(left_nodes[name], right_nodes[name])


def compare_nodes(left: NodeDef, right: NodeDef) -> Iterator[Difference]:
    """Compare two nodes of the same name."""
    yield from unless_equal("operator", left.name, left.op, right.op)
    yield from unless_equal("inputs", left.name, ", ".join(left.input), ", ".join(right.input))
    yield from unless_equal("operator", f"{left.name}: device", left.device, right.device)
    for key in sorted({*left.attr, *right.attr}):
        where = f"{left.name}.{key}"
        if key not in left.attr or key not in right.attr:
            yield difference(
                "option",
                where,
                cut(text_of(left.attr[key])) if key in left.attr else None,
                cut(text_of(right.attr[key])) if key in right.attr else None,
            )
        elif serialized(left.attr[key]) != serialized(right.attr[key]):
            yield from compare_values(where, left.attr[key], right.attr[key])


def compare_values(where: str, left: AttrValue, right: AttrValue) -> Iterator[Difference]:
    """Yield the difference of two attributes; for numeric tensors, with the number and size of changes."""
    import numpy as np
    import tensorflow.compat.v1 as tf

    if not left.HasField("tensor") or not right.HasField("tensor"):
        yield difference("option", where, *excerpts(text_of(left), text_of(right)))
        return
    left_values, right_values = tf.make_ndarray(left.tensor), tf.make_ndarray(right.tensor)
    sizes = [f"{values.dtype} {list(values.shape)}" for values in (left_values, right_values)]
    if sizes[0] != sizes[1] or left_values.dtype.kind not in "biuf":
        yield difference("weights", where, *sizes)
        return
    is_changed = bits(left_values) != bits(right_values)
    if not is_changed.any():
        return  # the same values, encoded differently in TensorProto
    with np.errstate(all="ignore"):
        distances = np.abs(left_values.astype("f8") - right_values.astype("f8")).reshape(-1)[is_changed]
    largest = float(distances.max())
    yield {
        **difference("weights", where, *sizes),
        "changed": int(is_changed.sum()),
        "total": int(left_values.size),
        "largest": largest if math.isfinite(largest) else None,
    }


def bits(values: np.ndarray) -> np.ndarray:
    """Return the bit pattern of each number, so that a NaN equals itself, and 0 and -0 differ."""
    return values.reshape(-1).view(f"u{values.dtype.itemsize}")


def serialized(value: AttrValue) -> bytes:
    """Serialize an attribute deterministically; protobuf maps have no fixed order otherwise."""
    return bytes(value.SerializeToString(deterministic=True))


def text_of(value: AttrValue) -> str:
    """Format a value on one line."""
    return " ".join(str(value).split())


def excerpts(left: str, right: str) -> list[str]:
    """Shorten two texts, if one of them is long, around the first position where they differ."""
    start = 0
    if max(len(left), len(right)) > LONGEST_VALUE:
        common = os.path.commonprefix([left, right])  # noqa: RUF071 - character by character is meant
        start = max(0, len(common) - LONGEST_VALUE // 4)
    return [cut(text, start) for text in (left, right)]


def cut(text: str, start: int = 0) -> str:
    """Return a text from position ``start``, truncated if it is long."""
    before, rest = "..." if start else "", text[start:]
    return before + (rest if len(rest) <= LONGEST_VALUE else f"{rest[: LONGEST_VALUE - 3]}...")


def unless_equal(kind: str, where: str, left: object, right: object) -> Iterator[Difference]:
    """Yield a difference if the two values are not equal."""
    if left != right:
        yield difference(kind, where, left, right)


def difference(kind: str, where: str, left: object, right: object) -> Difference:
    """Return a difference as the JSON object that the host expects."""
    return {"kind": kind, "where": where, "left": left, "right": right}


if __name__ == "__main__":
    main()
