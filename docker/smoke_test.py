"""End the build of the toolchain with a look at whether all of it is there and answers.

Imports what the conversions import, calls what they call, and prints one line for each; a problem ends it
with exit code 1 and its name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

# What the published command lines call, with a word that its --help says.
HELPFUL_COMMANDS = {
    "export_tflite_ssd_graph.py": "--pipeline_config_path",
    "export_inference_graph.py": "--pipeline_config_path",
    "toco": "--std_values",
    "tflite_convert": "--change_concat_input_ranges",
}
TENSORFLOW_VERSION = "1.15.0"


def main() -> None:
    """Run all checks; each exits with its own message."""
    check_found("toco_from_protos")
    for command, word in HELPFUL_COMMANDS.items():
        check_helpful(command, word)
    check_tensorflow()
    print("smoke test: TensorFlow", TENSORFLOW_VERSION, "and all commands answer", flush=True)


def check_found(command: str) -> str:
    """Return where on PATH a command is."""
    path = shutil.which(command)
    if path is None:
        sys.exit(f"smoke test: {command} is not on PATH")
    return path


def check_helpful(command: str, word: str) -> None:
    """Call a command with --help; absl's flags end that with exit code 1, so the text counts."""
    finished = subprocess.run(
        [check_found(command), "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = finished.stdout.decode("utf-8", "replace")
    if finished.returncode not in (0, 1) or word not in text:
        sys.exit(f"{text}\nsmoke test: {command} --help ends with {finished.returncode} and no {word}")
    print("smoke test:", command, "--help answers", flush=True)


def check_tensorflow() -> None:
    """Import TensorFlow and the model builder, which imports nearly all of the detection API."""
    import tensorflow as tf
    from object_detection.builders import model_builder

    if tf.__version__ != TENSORFLOW_VERSION:
        sys.exit(f"smoke test: TensorFlow says {tf.__version__}")
    if not callable(model_builder.build):
        sys.exit("smoke test: the detection API has no model builder")


if __name__ == "__main__":
    main()
