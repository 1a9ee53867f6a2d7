"""Run an export script of the detection API unchanged, but refuse what it would swallow.

``tf.app.run`` parses the command line tolerantly: an unknown or misspelt flag is dropped without a word, and
so is a stray argument. Here the same parser of the same library is strict.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import NoReturn

from _quiet import quiet_tensorflow

# Both scripts fail without these, one of them only after minutes or with a type error deep in TensorFlow.
REQUIRED_FLAGS = ("pipeline_config_path", "trained_checkpoint_prefix", "output_directory")


def run_strictly(module: str) -> None:
    """Run the module as the script it is, with the flags of this process's command line."""
    with quiet_tensorflow():
        from tensorflow.python.platform import app
    # What tf.app.run hands to absl.app.run as the parser, in the 1.15.0 this toolchain is pinned to.
    app._parse_flags_tolerate_undef = _parse_strictly
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _parse_strictly(argv: list[str] | None) -> list[str]:
    """Parse all flags or exit with 2."""
    from absl import flags

    argv = sys.argv if argv is None else argv
    try:
        flags.mark_flags_as_required(REQUIRED_FLAGS)
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _refuse(str(error))
    except SystemExit:
        sys.exit(0)  # --help; absl leaves with 1 after it
    if len(rest) > 1:
        _refuse(f"unexpected argument {rest[1]!r}: every argument is a flag, --flag=value or --flag value")
    return rest


def _refuse(message: str) -> NoReturn:
    # absl names the nearest known flag by itself.
    print(f"{Path(sys.argv[0]).name}: {message}\n  tip: --help lists the flags", file=sys.stderr)
    sys.exit(2)
