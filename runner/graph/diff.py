"""Compare two graphs or two ``.tflite`` files by content; graphs are compared in the toolchain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runner.engines.base import Folders
from runner.errors import UsageError
from runner.host.digests import digest_file
from runner.scripts.run import Script, run_step
from runner.tflite.diff import Difference, Kind, ModelDiff, diff_models, verdict_of
from runner.tflite.model import read_model_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.engines.base import Engine
    from runner.scripts.provider import ToolchainProvider
    from runner.scripts.run import ScriptOptions

GRAPH_SUFFIXES: Final = frozenset({".pb", ".meta"})


def diff_files(left: Path, right: Path, provider: ToolchainProvider) -> ModelDiff:
    """Compare two ``.tflite`` files, or two graphs; only graphs need the toolchain.

    Raises:
        UsageError: the files are of different kinds, or one cannot be read.
        IntegrityError: a ``.tflite`` file is damaged.
        RunnerError: as `diff_graphs`.
    """
    graphs = [path.suffix in GRAPH_SUFFIXES for path in (left, right)]
    if all(graphs):
        return diff_graphs(provider.engine(), left, right, provider.options())
    if any(graphs):
        raise UsageError(
            f"{left} and {right} are different kinds of files",
            tip="compare two .tflite files, or two graphs (.pb, .meta)",
        )
    return diff_models(read_model_file(left), read_model_file(right))


def diff_graphs(engine: Engine, left: Path, right: Path, options: ScriptOptions) -> ModelDiff:
    """Compare two graphs (``.pb``) or meta graphs (``.meta``) node by node.

    Raises:
        UsageError: a file does not exist.
        ConfigError: a file does not contain a graph.
        RunnerError: the engine or the step failed.
    """
    for path in (left, right):
        if not path.is_file():
            raise UsageError(f"{path} is not a file")
    names = (str(left), str(right))
    left, right = left.resolve(), right.resolve()
    # Mount only the files: their folders may contain much else, and some folders, such as /tmp, must not be
    # mounted.
    folders = Folders(read_only=tuple(sorted({left, right})))
    engine.prepare()
    with engine.open(folders, {}) as session:
        step = str(session.toolchain_dir / "steps" / "graph_diff.py")
        script = Script(
            name="graph_diff.py",
            argv=(step, "--left", str(left), "--right", str(right)),
            log_name="graph_diff.log",
            options=options,
        )
        found = run_step(session, script)
    differences = tuple(_difference(entry) for entry in found["differences"])
    has_same_bytes = digest_file(left).sha256 == digest_file(right).sha256
    return ModelDiff(
        left=names[0],
        right=names[1],
        verdict=verdict_of(differences, has_same_bytes=has_same_bytes),
        differences=differences,
    )


def _difference(entry: Mapping[str, Any]) -> Difference:
    return Difference(**{**entry, "kind": Kind(entry["kind"])})
