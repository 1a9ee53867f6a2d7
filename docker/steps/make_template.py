#!/usr/bin/env python3
"""Make a template from an exported graph and the checkpoint that it was exported from.

A node of the graph is a variable if the checkpoint has a tensor with its name and value. With
``use_moving_averages`` in the config, the export script uses the value of ``NAME/ExponentialMovingAverage``
for ``NAME``. The template omits the values of the variables. Before it is saved, it is filled with the same
checkpoint, which must reproduce the graph.

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
NO_TEMPLATE = "pass a graph and the checkpoint that it was exported from"


def main() -> None:
    """Make the template given on the command line."""
    parser = Parser("Make a graph template.")
    parser.add_argument("--frozen-graph", type=Path, required=True)
    parser.add_argument("--pipeline-config", type=Path, required=True, help="the config of the export")
    parser.add_argument("--checkpoint-prefix", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the template")
    run(parser, make)


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Write the template and return a description of it."""
    config = read_pipeline_config(options.pipeline_config)
    graph, checkpoint = read_graph(options.frozen_graph), Checkpoint(options.checkpoint_prefix)
    exported = serialized(graph)
    variables = find_variables(graph, checkpoint, use_averages=config.eval_config.use_moving_averages)
    with whole_folder(options.output) as partial:
        write_template(graph, variables, partial)
        if serialized(fill(*read_template(partial), checkpoint)) != exported:
            raise InputError(
                f"{options.frozen_graph}: its template, filled with the same checkpoint, gives another graph",
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
    """Return the variables of a graph, each with the checkpoint tensor that holds its value.

    Raises:
        InputError: a constant has the name but not the value of a tensor, or the graph has no variable.
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
    """Return the name of the first tensor that equals a node's value.

    Raises:
        InputError: no tensor equals it.
    """
    value = node.attr["value"].tensor.SerializeToString(deterministic=True)
    for name in names:
        found = tensor_proto(node, checkpoint.read(name))
        if found.SerializeToString(deterministic=True) == value:
            return name
    raise InputError(
        f"{node.name}: the value in the graph differs from {' and '.join(names)} in the checkpoint",
        tip=NO_TEMPLATE,
    )


if __name__ == "__main__":
    main()
