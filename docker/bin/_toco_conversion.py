"""Check the flags of a TOCO command line and turn them into the fields of TOCO's two protobuf messages.

TOCO calls abort() on most contradictory flags. For some (a quantized input without a mean value, a standard
deviation of zero) it writes a useless model. Errors that are visible in the command line alone are rejected
here, without importing TensorFlow.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Mapping

from _toco_flags import ALL_FLAGS, BY_NAME, FlagError

PLURALS = {
    "input_array": "input_arrays",
    "input_shape": "input_shapes",
    "input_data_type": "input_data_types",
    "mean_value": "mean_values",
    "std_value": "std_values",
    "output_array": "output_arrays",
}
# The range in which the zero point of each quantized input type must be. TOCO's int16 is symmetric.
ZERO_POINTS = {"QUANTIZED_UINT8": (0, 255), "QUANTIZED_INT16": (0, 0)}


@dataclasses.dataclass(frozen=True)
class TocoInvocation:
    """One conversion: input and output file, and the fields of ModelFlags and TocoFlags to set."""

    input_file: Path
    output_file: Path
    model_flags: Mapping[str, Any]
    toco_flags: Mapping[str, Any]
    model_flags_file: Path | None = None
    arrays_extra_info_file: Path | None = None


def plan(given: Mapping[str, Any]) -> TocoInvocation:
    """Check that the flags are consistent and the files exist, and return the conversion.

    Raises:
        FlagError: a flag or file is missing, flags contradict each other, or a value is not supported.
    """
    values = _in_plural(given)
    toco_flags = _toco_flags(values)
    _check_ranges(toco_flags)
    _check_inference_types(toco_flags)
    model_flags = _fields("model", values)
    inputs = _input_arrays(values)
    _check_quantized_inputs(inputs, _input_type(toco_flags))
    if inputs:
        model_flags["input_arrays"] = inputs
    if "output_arrays" in values:
        model_flags["output_arrays"] = list(values["output_arrays"])
    elif "model_flags_file" not in values:
        raise FlagError(
            "--output_arrays is missing", tip="name the model's output arrays, separated by commas"
        )
    _check_names(model_flags)
    input_file = _existing_file("input_file", values)
    return TocoInvocation(
        input_file=input_file,
        output_file=_new_file("output_file", values, input_file),
        model_flags=model_flags,
        toco_flags=toco_flags,
        model_flags_file=_existing_file("model_flags_file", values) if "model_flags_file" in values else None,
        arrays_extra_info_file=(
            _existing_file("arrays_extra_info_file", values) if "arrays_extra_info_file" in values else None
        ),
    )


def _in_plural(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``--input_array=x`` into ``--input_arrays=x``; the native tool accepts either form."""
    singular = [name for name in PLURALS if name in given and name != "output_array"]
    plural = [PLURALS[name] for name in PLURALS if PLURALS[name] in given and name != "output_array"]
    if singular and plural:
        raise FlagError(
            f"--{singular[0]} and --{plural[0]} cannot be combined",
            tip="use the plural flags for all inputs",
        )
    if "output_array" in given and "output_arrays" in given:
        raise FlagError("--output_array and --output_arrays cannot be combined", tip="use --output_arrays")
    return {PLURALS.get(name, name): (value,) if name in PLURALS else value for name, value in given.items()}


def _fields(message: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that map directly to a field of the named message (``model`` or ``toco``)."""
    fields = {}
    for name, value in values.items():
        owner, _, field = BY_NAME[name].field.partition(".")
        if owner == message:
            fields[field] = list(value) if isinstance(value, tuple) else value
    return fields


def _toco_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    # These two must be set, or the engine aborts with "Unhandled input_format".
    fields = {"input_format": "TENSORFLOW_GRAPHDEF", "output_format": "TFLITE", **_fields("toco", values)}
    for old_name in ("input_type", "input_types"):
        if old_name in values:
            fields["inference_input_type"] = values[old_name]
    if fields.get("quantize_weights"):
        # The native tool does this too; the engine itself no longer reads quantize_weights.
        fields["post_training_quantize"] = True
    graphviz = fields.get("dump_graphviz_dir")
    if graphviz is not None and not Path(graphviz).is_dir():
        raise FlagError(f"--dump_graphviz={graphviz} is not a folder", tip="create it; TOCO does not")
    return fields


def _check_ranges(toco_flags: Mapping[str, Any]) -> None:
    for name in ("default_ranges", "default_int16_ranges"):
        low, high = toco_flags.get(f"{name}_min"), toco_flags.get(f"{name}_max")
        if (low is None) != (high is None):
            raise FlagError(f"--{name}_min and --{name}_max must be given together")
        if low is not None and high is not None and not low <= 0 <= high:
            raise FlagError(
                f"the default range {low} to {high} does not contain 0; every quantized range must contain 0"
            )


def _is_quantized(toco_flags: Mapping[str, Any]) -> bool:
    # With post_training_quantize the engine works in float and ignores inference_type.
    return toco_flags.get("inference_type") in ZERO_POINTS and not toco_flags.get("post_training_quantize")


def _check_inference_types(toco_flags: Mapping[str, Any]) -> None:
    if _is_quantized(toco_flags) and toco_flags.get("inference_input_type") == "FLOAT":
        raise FlagError(
            f"--inference_type={toco_flags['inference_type']} cannot be combined with "
            "--inference_input_type=FLOAT"
        )


def _input_type(toco_flags: Mapping[str, Any]) -> str:
    inference_type = toco_flags.get("inference_type") if _is_quantized(toco_flags) else None
    return toco_flags.get("inference_input_type") or inference_type or "FLOAT"


def _input_arrays(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the ``input_arrays`` of ModelFlags; the other input flags must have one value per array."""
    inputs: list[dict[str, Any]] = [{"name": name} for name in values.get("input_arrays", ())]
    for flag, field in (
        ("input_shapes", "shape"),
        ("input_data_types", "data_type"),
        ("mean_values", "mean_value"),
        ("std_values", "std_value"),
    ):
        if flag not in values:
            continue
        if not inputs:
            raise FlagError(f"--{flag} needs --input_arrays")
        if len(values[flag]) != len(inputs):
            separator = "colons" if flag == "input_shapes" else "commas"
            raise FlagError(
                f"--{flag} needs one value per input array: {len(inputs)}, not {len(values[flag])}",
                tip=f"give one value for each of --input_arrays, separated by {separator}",
            )
        for array, value in zip(inputs, values[flag]):
            array[field] = {"dims": list(value)} if field == "shape" else value
    return inputs


def _check_quantized_inputs(inputs: list[dict[str, Any]], input_type: str) -> None:
    """Reject a quantized input without mean and standard deviation: TOCO would assume 0 and 1."""
    for array in inputs:
        std = array.get("std_value")
        if std is not None and std <= 0:
            raise FlagError(
                f"the standard deviation of {array['name']!r} cannot be {std}",
                tip="--std_values is the number of quantized steps per 1.0 and must be above 0",
            )
        if input_type not in ZERO_POINTS:
            continue
        missing = [flag for flag in ("mean_value", "std_value") if flag not in array]
        if missing:
            raise FlagError(
                f"a {input_type} input needs --mean_values and --std_values; --{missing[0]}s is missing",
                tip="for images scaled to [-1, 1]: --mean_values=128 --std_values=128",
            )
        low, high = ZERO_POINTS[input_type]
        if not low <= array["mean_value"] <= high:
            raise FlagError(
                f"mean value {array['mean_value']} of a {input_type} input is not between {low} and {high}"
            )


def _check_names(model_flags: Mapping[str, Any]) -> None:
    inputs = [array["name"] for array in model_flags.get("input_arrays", ())]
    outputs = list(model_flags.get("output_arrays", ()))
    for name in inputs + outputs:
        if name.endswith(":0"):
            raise FlagError(
                f"array {name!r}: TOCO does not accept the output index :0", tip=f"write {name[:-2]}"
            )
        if not all(" " <= character <= "~" for character in name) and not model_flags.get(
            "allow_nonascii_arrays"
        ):
            raise FlagError(
                f"array {name!r} has characters outside ASCII",
                tip="if this is intended, give --allow_nonascii_arrays",
            )
    both = set(inputs) & set(outputs)
    if both:
        raise FlagError(f"array {min(both)!r} is both an input and an output")


def _existing_file(flag: str, values: Mapping[str, Any]) -> Path:
    path = _path(flag, values)
    if not path.is_file():
        raise FlagError(f"--{flag}={path}: {'is not a file' if path.exists() else 'no such file'}")
    return path


def _new_file(flag: str, values: Mapping[str, Any], input_file: Path) -> Path:
    path = _path(flag, values)
    if not path.parent.is_dir():
        raise FlagError(
            f"--{flag}={path}: the folder {path.parent} does not exist", tip="create it; TOCO does not"
        )
    if path.exists() and not path.is_file():
        raise FlagError(f"--{flag}={path}: not a file")
    if path.exists() and path.samefile(input_file):
        raise FlagError(f"--{flag}={path} is the input file")
    return path


def _path(flag: str, values: Mapping[str, Any]) -> Path:
    if flag not in values:
        raise FlagError(f"--{flag} is missing", tip=ALL_FLAGS)
    return Path(values[flag])
