#!/usr/bin/env python3
"""Make a template from a graph that the export script exported, and the checkpoint it was exported from.

The values of the variables are left out; a node is a variable if its name and value are those of a tensor of
the checkpoint. With ``use_moving_averages`` in the config the script takes the value of
``NAME/ExponentialMovingAverage`` for ``NAME``. Before it is written, the template is filled with the same
checkpoint, which has to give the graph again.

    make_template.py --frozen-graph FILE --pipeline-config FILE --checkpoint-prefix PREFIX --output DIR
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _detection import read_pipeline_config
from _graph_template import (
    GRAPH_NAME,
    Checkpoint,
    Variable,
    fill,
    read_graph,
    read_template,
    serialized,
    tensor_proto,
    write_template,
)
from _step import InputError, Parser, run, whole_folder

if TYPE_CHECKING:
    import argparse

    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef

AVERAGE = "ExponentialMovingAverage"
NO_TEMPLATE = "the graph and the checkpoint have to be those of one export"


def main() -> None:
    """Make the template given on the command line."""
    parser = Parser("Make a graph template.")
    parser.add_argument("--frozen-graph", type=Path, required=True)
    parser.add_argument("--pipeline-config", type=Path, required=True, help="the config it was exported with")
    parser.add_argument("--checkpoint-prefix", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the template")
    run(parser, make)


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Write the template and describe it."""
    config = read_pipeline_config(options.pipeline_config)
    graph, checkpoint = read_graph(options.frozen_graph), Checkpoint(options.checkpoint_prefix)
    exported = serialized(graph)
    variables = find_variables(graph, checkpoint, use_averages=config.eval_config.use_moving_averages)
    with whole_folder(options.output) as partial:
        write_template(graph, variables, partial)
        if serialized(fill(*read_template(partial), checkpoint)) != exported:
            raise InputError(
                f"{options.frozen_graph}: a template of it, filled again, gives another graph",
                tip=NO_TEMPLATE,
            )
        sha256 = hashlib.sha256((partial / GRAPH_NAME).read_bytes()).hexdigest()
    return {
        "template_sha256": sha256,
        "graph_sha256": hashlib.sha256(exported).hexdigest(),
        "variables": len(variables),
        "moving_averages": sum(variable.tensor != variable.node for variable in variables),
    }


def find_variables(graph: GraphDef, checkpoint: Checkpoint, *, use_averages: bool) -> list[Variable]:
    """Return the variables of a graph, with the tensor that each has its value from.

    Raises:
        InputError: a constant has the name of a tensor, but the value of none that it may come from; or the
            graph has no variable at all.
    """
    variables = []
    for node in graph.node:
        average = f"{node.name}/{AVERAGE}"
        names = [average, node.name] if use_averages else [node.name]
        names = [name for name in names if name in checkpoint.shapes]
        if node.op == "Const" and names:
            name = source_of(node, names, checkpoint)
            variables.append(Variable(node.name, name, checkpoint.dtypes[name], checkpoint.shapes[name]))
    if not variables:
        raise InputError("the graph has no variable of the checkpoint", tip=NO_TEMPLATE)
    return variables


def source_of(node: NodeDef, names: list[str], checkpoint: Checkpoint) -> str:
    """Return the first of these tensors that has the value of a node.

    Raises:
        InputError: none has it.
    """
    value = node.attr["value"].tensor.SerializeToString(deterministic=True)
    for name in names:
        found = tensor_proto(node, checkpoint.read(name))
        if found.SerializeToString(deterministic=True) == value:
            return name
    raise InputError(
        f"{node.name}: its value in the graph is not that of {' or '.join(names)}", tip=NO_TEMPLATE
    )


if __name__ == "__main__":
    main()
