"""End the build of the toolchain with a look at whether all of it is there and answers.

Calls what the conversions call and imports what they import; a problem ends it with exit code 1 and its name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

# What the published command lines call, with a flag that its --help has to name.
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
    # All at once: each spends its seconds importing TensorFlow.
    running = {command: start_with_help(command) for command in HELPFUL_COMMANDS}
    check_imports()
    for command, process in running.items():
        check_help(command, process)
    print(f"smoke test: TensorFlow {TENSORFLOW_VERSION} and all commands answer", flush=True)


def find_command(command: str) -> str:
    """Return where on PATH a command is."""
    path = shutil.which(command)
    if path is None:
        sys.exit(f"smoke test: {command} is not on PATH")
    return path


def start_with_help(command: str) -> subprocess.Popen[bytes]:
    """Ask a command for its help."""
    return subprocess.Popen(
        [find_command(command), "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def check_help(command: str, process: subprocess.Popen[bytes]) -> None:
    """Look at the answer; absl ends --help with exit code 1, so the text has to tell."""
    text = process.communicate()[0].decode("utf-8", "replace")
    if process.returncode not in (0, 1) or HELPFUL_COMMANDS[command] not in text:
        flag = HELPFUL_COMMANDS[command]
        sys.exit(
            f"{text}\nsmoke test: {command} --help ends with {process.returncode} and does not name {flag}"
        )


def check_imports() -> None:
    """Import TensorFlow and the model builder, which imports nearly all of the detection API."""
    import tensorflow as tf
    from object_detection.builders import model_builder

    if tf.__version__ != TENSORFLOW_VERSION:
        sys.exit(f"smoke test: TensorFlow says {tf.__version__}")
    if not callable(model_builder.build):
        sys.exit("smoke test: the detection API has no model builder")


if __name__ == "__main__":
    main()
