"""Smoke test at the end of the toolchain build: checks that all commands and modules exist and work.

Calls the commands and imports the modules that conversions use. If one fails, prints what failed and exits
with code 1.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

# The commands that the published command lines use, each with a flag that its --help must list.
HELPFUL_COMMANDS = {
    "export_tflite_ssd_graph.py": "--pipeline_config_path",
    "export_inference_graph.py": "--pipeline_config_path",
    "toco": "--std_values",
    "tflite_convert": "--change_concat_input_ranges",
}
TENSORFLOW_VERSION = "1.15.0"


def main() -> None:
    """Run all checks; each exits with its own message."""
    find_command("toco_from_protos")
    # In parallel: each takes seconds to import TensorFlow.
    running = {command: start_with_help(command) for command in HELPFUL_COMMANDS}
    check_imports()
    for command, process in running.items():
        check_help(command, process)
    print(f"smoke test: TensorFlow {TENSORFLOW_VERSION} and all commands work", flush=True)


def find_command(command: str) -> str:
    """Return the path of a command on PATH."""
    path = shutil.which(command)
    if path is None:
        sys.exit(f"smoke test: {command} is not on PATH")
    return path


def start_with_help(command: str) -> subprocess.Popen[bytes]:
    """Start a command with --help."""
    return subprocess.Popen(
        [find_command(command), "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def check_help(command: str, process: subprocess.Popen[bytes]) -> None:
    """Check a command's help text. Its exit code is not enough, because absl exits with 1 after --help."""
    text = process.communicate()[0].decode("utf-8", "replace")
    if process.returncode not in (0, 1) or HELPFUL_COMMANDS[command] not in text:
        flag = HELPFUL_COMMANDS[command]
        sys.exit(
            f"{text}\nsmoke test: {command} --help ended with code {process.returncode}; expected 0 or 1, "
            f"and {flag} in its output"
        )


def check_imports() -> None:
    """Import TensorFlow and the model builder, which imports nearly all of the detection API."""
    import tensorflow as tf
    from object_detection.builders import model_builder

    if tf.__version__ != TENSORFLOW_VERSION:
        sys.exit(f"smoke test: TensorFlow is version {tf.__version__}, expected {TENSORFLOW_VERSION}")
    if not callable(model_builder.build):
        sys.exit("smoke test: the detection API has no model builder")


if __name__ == "__main__":
    main()
