"""Translate native ``toco`` commands, such as those that MLCommons published, to ``tflite_convert``."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CONCAT_FLAG: Final = "change_concat_input_ranges"
TFLITE_CONVERT_NAMES: Final[Mapping[str, str]] = {
    "input_file": "graph_def_file",
    "output_file": "output_file",
    "input_shapes": "input_shapes",
    "input_arrays": "input_arrays",
    "output_arrays": "output_arrays",
    "inference_type": "inference_type",
    "mean_values": "mean_values",
    "std_values": "std_dev_values",
    "allow_custom_ops": "allow_custom_ops",
    CONCAT_FLAG: CONCAT_FLAG,
}
QUANTIZED: Final = "--inference_type=QUANTIZED_UINT8"


def as_tflite_convert(native: tuple[str, ...], more_flags: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """Translate a native ``toco`` command to ``tflite_convert``; return None if a flag has no counterpart.

    ``change_concat_input_ranges`` is true by default in the native tool and false in ``tflite_convert``. The
    flag changes the bytes of a quantized model, so the translated command sets it explicitly. ``more_flags``
    are the flags that make the ``tflite_convert`` of a toolchain use TOCO.
    """
    flags = [word.removeprefix("--").partition("=") for word in native[1:]]
    if any(name not in TFLITE_CONVERT_NAMES for name, _, _ in flags):
        return None
    renamed = tuple(f"--{TFLITE_CONVERT_NAMES[name]}{equals}{value}" for name, equals, value in flags)
    is_default = QUANTIZED in native and all(name != CONCAT_FLAG for name, _, _ in flags)
    native_default = (f"--{CONCAT_FLAG}=TRUE",) if is_default else ()
    return ("tflite_convert", *more_flags, *renamed, *native_default)


def shell_text(argv: tuple[str, ...], *, separator: str = " \\\n    ") -> str:
    """Format a command for a POSIX shell, one argument per line; ``${TF_MODEL_DIR}`` stays a variable."""
    return separator.join(_shell_word(word) for word in argv)


def _shell_word(word: str) -> str:
    parts = re.split(r"(\$\{(?:TF|TFLITE)_MODEL_DIR\}|\$\{PIPELINE_CONFIG\})", word)
    if len(parts) == 1:
        return shlex.quote(word)
    escaped = (
        part if number % 2 else re.sub(r'([\\"$`])', r"\\\1", part) for number, part in enumerate(parts)
    )
    return f'"{"".join(escaped)}"'
