"""Read, write and fill graph templates: frozen graphs without the values of their variables.

A variable is a ``Const`` node that the export script made from a tensor of the checkpoint. Other ``Const``
nodes, such as anchors and shapes, keep their values. A template is a folder that contains ``template.pb`` and
``variables.json``. Neither this module nor the step that fills a template imports the detection API.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _step import InputError, import_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.framework.tensor_pb2 import TensorProto

GRAPH_NAME = "template.pb"
VARIABLES_NAME = "variables.json"
MAX_NAMES = 10
ANOTHER_WAY = "convert with --export script, which runs the export script instead of using a template"


class Variable(NamedTuple):
    """A variable of the graph: its node, the checkpoint tensor that holds its value, its dtype and shape."""

    node: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Variable:
        """Read an entry of ``variables.json``."""
        return cls(**{**entry, "shape": tuple(entry["shape"])})


class Checkpoint:
    """The tensors of a checkpoint. Each tensor's CRC is verified when it is read."""

    def __init__(self, prefix: Path) -> None:
        tf = import_tensorflow()
        self.prefix = prefix
        self._errors = (tf.errors.OpError, RuntimeError)
        try:
            self._reader = tf.train.NewCheckpointReader(str(prefix))
        except self._errors as problem:
            raise self._unreadable(problem) from problem
        self.shapes = {name: tuple(shape) for name, shape in self._reader.get_variable_to_shape_map().items()}
        self.dtypes = {name: dtype.name for name, dtype in self._reader.get_variable_to_dtype_map().items()}

    def read(self, name: str) -> np.ndarray:
        """Return the value of a tensor.

        Raises:
            InputError: the tensor's data is missing or damaged.
        """
        try:
            return np.asarray(self._reader.get_tensor(name))
        except self._errors as problem:
            raise self._unreadable(problem) from problem

    def _unreadable(self, problem: Exception) -> InputError:
        reason = getattr(problem, "message", str(problem)).splitlines()[0]
        return InputError(
            f"{self.prefix}: cannot be read: {reason}", tip="get all files of the checkpoint again"
        )

    def describe(self, name: str) -> str:
        """Return the dtype and shape of a tensor as text, or ``missing``."""
        return f"{self.dtypes[name]} {list(self.shapes[name])}" if name in self.shapes else "missing"


def fill(template: GraphDef, variables: list[Variable], checkpoint: Checkpoint) -> GraphDef:
    """Fill a template in place with the values of a checkpoint, and return it.

    Raises:
        InputError: a variable is missing in the checkpoint, or has another dtype or shape there.
    """
    refuse_misfits(variables, checkpoint)
    nodes = {node.name: node for node in template.node}
    for variable in variables:
        node = nodes[variable.node]
        node.attr["value"].tensor.CopyFrom(tensor_proto(node, checkpoint.read(variable.tensor)))
    return template


def refuse_misfits(variables: list[Variable], checkpoint: Checkpoint) -> None:
    """Check that a checkpoint has all variables of a template. Its other tensors are ignored.

    Raises:
        InputError: a variable is missing, or has another dtype or shape; the message lists these variables.
    """
    misfits = [
        f"{it.tensor}: {it.dtype} {list(it.shape)} in the template, {checkpoint.describe(it.tensor)} in the "
        "checkpoint"
        for it in variables
        if (checkpoint.dtypes.get(it.tensor), checkpoint.shapes.get(it.tensor)) != (it.dtype, it.shape)
    ]
    if misfits:
        shown = "".join(f"\n  {misfit}" for misfit in misfits[:MAX_NAMES])
        more = f"\n  and {len(misfits) - MAX_NAMES} more" if len(misfits) > MAX_NAMES else ""
        raise InputError(
            f"{len(misfits)} of {len(variables)} variables of the graph template do not fit "
            f"{checkpoint.prefix}:{shown}{more}",
            tip=ANOTHER_WAY,
        )


def tensor_proto(node: NodeDef, value: np.ndarray) -> TensorProto:
    """Encode a value as TensorFlow's ``convert_variables_to_constants`` does."""
    from tensorflow.python.framework import tensor_util

    return tensor_util.make_tensor_proto(value, dtype=node.attr["dtype"].type, shape=value.shape)


def serialized(graph: GraphDef) -> bytes:
    """Return the bytes of a graph, independent of the order of attributes in its nodes."""
    return graph.SerializeToString(deterministic=True)


def read_graph(path: Path) -> GraphDef:
    """Read a graph.

    Raises:
        InputError: the file cannot be read, or is not a graph.
    """
    import_tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.graph_pb2 import GraphDef

    try:
        return GraphDef.FromString(path.read_bytes())
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}", tip=ANOTHER_WAY) from problem
    except DecodeError as problem:
        raise InputError(f"{path}: not a graph, or damaged", tip=ANOTHER_WAY) from problem


def read_template(folder: Path) -> tuple[GraphDef, list[Variable]]:
    """Read a template.

    Raises:
        InputError: a file is missing or damaged.
    """
    path = folder / VARIABLES_NAME
    try:
        variables = [Variable.from_json(entry) for entry in json.loads(path.read_text("utf-8"))]
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}", tip=ANOTHER_WAY) from problem
    except (ValueError, TypeError, KeyError) as problem:
        raise InputError(f"{path}: not a list of variables: {problem}", tip=ANOTHER_WAY) from problem
    return read_graph(folder / GRAPH_NAME), variables


def write_template(graph: GraphDef, variables: list[Variable], folder: Path) -> None:
    """Remove the variables' values from a graph, in place, and write the two files of the template."""
    nodes = {node.name: node for node in graph.node}
    for variable in variables:
        tensor = nodes[variable.node].attr["value"].tensor
        emptied = type(tensor)(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)
        tensor.CopyFrom(emptied)
    (folder / GRAPH_NAME).write_bytes(serialized(graph))
    entries = [variable._asdict() for variable in variables]
    (folder / VARIABLES_NAME).write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
