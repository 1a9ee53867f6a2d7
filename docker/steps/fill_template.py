#!/usr/bin/env python3
"""Fill a graph template with the tensors of a checkpoint and write the graph.

The result is the graph that the export script would export from this checkpoint, serialized
deterministically. This step needs TensorFlow but not the detection API.

    fill_template.py --template DIR --checkpoint-prefix PREFIX --output FILE
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _graph_template import Checkpoint, fill, read_template, serialized
from _step import Parser, run, whole_file

if TYPE_CHECKING:
    import argparse


def main() -> None:
    """Fill the template given on the command line."""
    parser = Parser("Fill a graph template.")
    parser.add_argument("--template", type=Path, required=True, help="folder of the template")
    parser.add_argument("--checkpoint-prefix", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(parser, write)


def write(options: argparse.Namespace) -> dict[str, Any]:
    """Write the graph and return a description of it."""
    template, variables = read_template(options.template)
    content = serialized(fill(template, variables, Checkpoint(options.checkpoint_prefix)))
    with whole_file(options.output) as partial:
        partial.write_bytes(content)
    return {"graph_sha256": hashlib.sha256(content).hexdigest(), "variables": len(variables)}


if __name__ == "__main__":
    main()
