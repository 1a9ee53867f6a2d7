#!/usr/bin/env python3
"""Rebuild the inference graph that MLCommons published, from any weights, and return its digest.

Runs the detection API's own ``export_inference_graph.py`` with the published config override. That override
allows fewer detections in total than per class, which the API rejects; MLCommons had commented out the check.
Here the check is removed from the module in memory; the verified tree on disk is not changed.

    meta_graph.py --pipeline-config FILE --checkpoint-prefix PREFIX --config-override TEXT --output DIR
                  [--published-excerpt FILE]
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from _step import InputError, Parser, import_tensorflow, run

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

    from tensorflow.core.framework.graph_pb2 import GraphDef

SCRIPT = "object_detection.export_inference_graph"


def main() -> None:
    """Rebuild the graph for the config given on the command line."""
    parser = Parser("Rebuild the published inference graph.")
    parser.add_argument("--pipeline-config", type=Path, required=True)
    parser.add_argument(
        "--checkpoint-prefix", type=Path, required=True, help="any checkpoint that fits the config"
    )
    parser.add_argument("--config-override", required=True, help="text proto to merge into the config")
    parser.add_argument("--output", type=Path, required=True, help="folder the script writes to")
    parser.add_argument(
        "--published-excerpt",
        type=Path,
        help="nodes of the published graph: also report the digest with these nodes inserted",
    )
    run(parser, rebuild)


def rebuild(options: argparse.Namespace) -> dict[str, Any]:
    """Run the script and describe what it wrote."""
    if options.output.is_dir() and any(options.output.iterdir()):
        raise InputError(
            f"{options.output}: the folder is not empty, and the export script needs an empty one",
            tip="choose a new --output",
        )
    import_tensorflow()
    from object_detection.builders import post_processing_builder

    switched_off = switch_off_limits_check(post_processing_builder)
    argv = [
        "export_inference_graph.py",
        "--input_type=image_tensor",
        f"--pipeline_config_path={options.pipeline_config}",
        f"--trained_checkpoint_prefix={options.checkpoint_prefix}",
        f"--output_directory={options.output}",
        f"--config_override={options.config_override}",
    ]
    run_script(argv)
    graph = read_graph(options.output / "model.ckpt.meta")
    excerpt = options.published_excerpt
    return {
        "argv": argv,
        "switched_off": switched_off,
        "graph_sha256": digest(graph),
        "nodes": len(graph.node),
        "pipeline_config_git_blob": git_blob_id((options.output / "pipeline.config").read_bytes()),
        "with_excerpt": patch(graph, read_graph_text(excerpt)) if excerpt else None,
    }


def switch_off_limits_check(module: ModuleType) -> dict[str, Any]:
    """Remove the check of max_detections_per_class from the loaded module, and return what was removed.

    Raises:
        InputError: the module has no such check, or more than one.
    """
    source = inspect.getsource(module)
    tree = ast.parse(source)
    checks = [
        (function, statement)
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for statement in function.body
        if isinstance(statement, ast.If)
        and reads(statement.test, "max_detections_per_class", "max_total_detections")
    ]
    if len(checks) != 1:
        raise InputError(
            f"{module.__file__}: found {len(checks)} checks of max_detections_per_class, expected one",
            tip="is this the pinned tensorflow/models tree?",
        )
    function, check = checks[0]
    function.body.remove(check)
    exec(compile(tree, module.__file__, "exec"), vars(module))
    return {
        "module": module.__name__,
        "line": check.lineno,
        "statement": source.splitlines()[check.lineno - 1].strip(),
    }


def reads(expression: ast.expr, *attributes: str) -> bool:
    """Return whether an expression reads all the given attributes."""
    read = {node.attr for node in ast.walk(expression) if isinstance(node, ast.Attribute)}
    return read.issuperset(attributes)


def run_script(argv: list[str]) -> None:
    """Run the export script in this process, where the check has been removed.

    Raises:
        InputError: the script ended with a code other than 0.
    """
    with mock.patch.object(sys, "argv", argv):
        try:
            # tf.app.run looks for the main function in sys.modules["__main__"].
            runpy.run_module(SCRIPT, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise InputError(f"{argv[0]} ended with code {end.code}") from end


def read_graph(path: Path) -> GraphDef:
    """Read the graph of a ``.meta`` file."""
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    return MetaGraphDef.FromString(path.read_bytes()).graph_def


def read_graph_text(path: Path) -> GraphDef:
    """Read a graph in text form."""
    from google.protobuf import text_format
    from tensorflow.core.framework.graph_pb2 import GraphDef

    return text_format.Parse(path.read_text("utf-8"), GraphDef())


def patch(graph: GraphDef, excerpt: GraphDef) -> dict[str, Any]:
    """Insert the nodes of the published excerpt into a copy of the graph, and return its digest.

    A node with the same name is replaced. A new node is inserted after its predecessor in the excerpt.
    """
    nodes = {node.name: node for node in graph.node}
    replaced = [node.name for node in excerpt.node if node.name in nodes and node != nodes[node.name]]
    followers: dict[str, list[str]] = {}
    predecessor = ""
    for node in excerpt.node:
        if node.name in nodes:
            predecessor = node.name
        else:
            followers.setdefault(predecessor, []).append(node.name)
    nodes.update({node.name: node for node in excerpt.node})
    order = [name for node in graph.node for name in (node.name, *followers.get(node.name, ()))]
    patched = type(graph)()
    patched.CopyFrom(graph)
    del patched.node[:]
    patched.node.extend(nodes[name] for name in order)
    return {
        "graph_sha256": digest(patched),
        "added": len(patched.node) - len(graph.node),
        "replaced": len(replaced),
    }


def digest(graph: GraphDef) -> str:
    """Hash a graph; the order of attributes in its nodes does not matter."""
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()


def git_blob_id(content: bytes) -> str:
    """Return the git blob id of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


if __name__ == "__main__":
    main()
