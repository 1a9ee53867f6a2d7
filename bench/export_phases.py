"""Profile an export: run it with a timer around each phase, and print the CPU seconds as JSON.

Runs in the toolchain, on Python 3.7:

    python -c TEXT_OF_THIS_FILE TOOLCHAIN_DIR SPEEDUPS EXPORT_FLAGS…
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import runpy
import sys
import time
from typing import Any, Callable, Dict, List  # noqa: UP035 - Python 3.7

phases: Dict[str, float] = {}  # noqa: UP006 - Python 3.7
running: List[float] = []  # noqa: UP006 - for each running phase, the time of the phases in it


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the CPU time of each call to a phase, without the time of other phases within it."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - wraps any function
        started_s = time.process_time()
        running.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            taken_s = time.process_time() - started_s
            phases[name] = phases.get(name, 0.0) + taken_s - running.pop()
            if running:
                running[-1] += taken_s

    return call


def wrap(owner: Any, attribute: str, name: str) -> None:  # noqa: ANN401 - a module or a class
    """Wrap a function of a module or class in a timer."""
    setattr(owner, attribute, timed(name, getattr(owner, attribute)))


def main() -> None:
    """Import, install the timers, run the script."""
    toolchain_dir, names, *flags = sys.argv[1:]
    sys.path[:0] = [os.path.join(toolchain_dir, name) for name in ("server", "bin")]  # noqa: PTH118 - one line
    speedups = importlib.import_module("speedups")
    quiet = importlib.import_module("_quiet")
    with quiet.quiet_tensorflow():
        timed("imports", import_all)(speedups, names)
    speedups.apply_to_job(names)
    put_clocks_in_place()
    sys.argv = ["export_tflite_ssd_graph.py", *flags]
    try:
        timed("everything else", runpy.run_module)(
            "object_detection.export_tflite_ssd_graph", run_name="__main__", alter_sys=True
        )
    except SystemExit as end:
        if end.code:
            raise
    print(json.dumps(phases))  # noqa: T201 - its result


def import_all(speedups: Any, names: str) -> None:  # noqa: ANN401 - a module
    """Import the modules that the server preloads."""
    speedups.apply_to_server(names)
    for module in ("tensorflow", "object_detection.export_tflite_ssd_graph_lib", "object_detection.exporter"):
        importlib.import_module(module)


def put_clocks_in_place() -> None:
    """Install timers around the functions that the script and its library call."""
    library: Any = importlib.import_module("object_detection.export_tflite_ssd_graph_lib")
    meta_architecture: Any = importlib.import_module("object_detection.meta_architectures.ssd_meta_arch")
    saver: Any = importlib.import_module("tensorflow.python.training.saver")
    freeze: Any = importlib.import_module("tensorflow.python.tools.freeze_graph")
    wrap(library.model_builder, "build", "build the model")
    wrap(meta_architecture.SSDMetaArch, "predict", "build the model")
    build_rewriter = library.graph_rewriter_builder.build
    library.graph_rewriter_builder.build = lambda *args, **kwargs: timed(
        "rewrite for quantization", build_rewriter(*args, **kwargs)
    )
    wrap(saver.Saver, "__init__", "add the restore operators")
    wrap(saver.Saver, "restore", "restore")
    wrap(freeze.importer, "import_graph_def", "freeze: import the graph again")
    wrap(freeze.graph_util, "convert_variables_to_constants", "freeze: variables to constants")
    wrap(library, "append_postprocessing_op", "add the post-processing operator")
    library.str = timed("text form (.pbtxt)", getattr(library, "str", str))


main()
