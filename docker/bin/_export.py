"""Run an export script of the detection API unchanged, with strict command-line parsing.

``tf.app.run`` silently ignores unknown or misspelt flags and stray arguments. Here the same absl parser
rejects them.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import NoReturn

from _quiet import quiet_tensorflow

# Without these flags both scripts fail, one of them after minutes or with a TypeError deep in TensorFlow.
REQUIRED_FLAGS = ("pipeline_config_path", "trained_checkpoint_prefix", "output_directory")


def run_strictly(module: str) -> None:
    """Run a module as a script with this process's command line."""
    with quiet_tensorflow():
        from tensorflow.python.platform import app
    # The parser that tf.app.run passes to absl.app.run in TensorFlow 1.15.0, the pinned version.
    app._parse_flags_tolerate_undef = _parse_strictly
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _parse_strictly(argv: list[str] | None) -> list[str]:
    """Parse all flags; on an error exit with code 2."""
    from absl import flags

    argv = sys.argv if argv is None else argv
    try:
        flags.mark_flags_as_required(REQUIRED_FLAGS)
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _refuse(str(error))
    except SystemExit:
        sys.exit(0)  # --help; absl would exit with code 1
    if len(rest) > 1:
        _refuse(f"unexpected argument {rest[1]!r}: every argument is a flag, --flag=value or --flag value")
    return rest


def _refuse(message: str) -> NoReturn:
    # The message of absl already names the most similar flag.
    print(f"{Path(sys.argv[0]).name}: {message}\n  tip: --help lists the flags", file=sys.stderr)
    sys.exit(2)
