"""Run a user's command in the toolchain, with access to the model directory and the output directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.engines.base import Folders
from runner.host.mounts import check_apart, mountable, mountable_when_made
from runner.host.output_dir import OutputDir

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine


def attach(engine: Engine, argv: tuple[str, ...], *, model_dir: Path | None, out_dir: Path) -> int:
    """Run a command on the caller's terminal or pipes and return its exit code.

    Raises:
        UsageError: a folder cannot be mounted into the toolchain, or the two folders overlap.
        EngineError: the engine cannot be used, or it died during the run.
    """
    out = mountable_when_made(out_dir)
    env, read_only = {"TFLITE_MODEL_DIR": str(out)}, []
    if model_dir is not None:
        check_apart(out, model_dir)
        read_only.append(mountable(model_dir))
        env["TF_MODEL_DIR"] = str(read_only[0])
    OutputDir.at(out)  # only now, so that a rejected directory is not created
    engine.prepare()
    return engine.attach(argv, Folders(read_only=tuple(read_only), writable=(out,)), env)
