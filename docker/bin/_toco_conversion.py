"""From the values on TOCO's command line to one conversion that can succeed: the fields of its two messages.

TOCO answers most contradictions with abort(), and some (no mean value for a quantized input, a deviation of
zero) with a model that means nothing. What the command line alone can tell is refused here, without
TensorFlow.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Mapping

from _toco_flags import BY_NAME, FlagError

PLURALS = {
    "input_array": "input_arrays",
    "input_shape": "input_shapes",
    "input_data_type": "input_data_types",
    "mean_value": "mean_values",
    "std_value": "std_values",
    "output_array": "output_arrays",
}
# The values an input of that type can hold, so where its zero may lie. TOCO's int16 is symmetric.
ZERO_POINTS = {"QUANTIZED_UINT8": (0, 255), "QUANTIZED_INT16": (0, 0)}


@dataclasses.dataclass(frozen=True)
class TocoInvocation:
    """What to convert, where to, and those fields of ModelFlags and TocoFlags that are set."""

    input_file: Path
    output_file: Path
    model_flags: Mapping[str, Any]
    toco_flags: Mapping[str, Any]
    model_flags_file: Path | None = None
    arrays_extra_info_file: Path | None = None


def plan(given: Mapping[str, Any]) -> TocoInvocation:
    """Check the values of a command line against each other and the file system.

    Raises:
        FlagError: something is missing, contradicts something else, or cannot be converted.
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
            "--output_arrays is missing", tip="name the arrays the model hands out, commas between them"
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
    """Turn ``--input_array=x`` into ``--input_arrays=x``; like the native tool, take either form."""
    singular = [name for name in PLURALS if name in given and name != "output_array"]
    plural = [PLURALS[name] for name in PLURALS if PLURALS[name] in given and name != "output_array"]
    if singular and plural:
        raise FlagError(
            f"--{singular[0]} and --{plural[0]} do not go together",
            tip="describe the inputs with the plural flags throughout",
        )
    if "output_array" in given and "output_arrays" in given:
        raise FlagError("--output_array and --output_arrays do not go together")
    return {PLURALS.get(name, name): (value,) if name in PLURALS else value for name, value in given.items()}


def _fields(message: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the values that are a field of that message by themselves."""
    fields = {}
    for name, value in values.items():
        owner, _, field = BY_NAME[name].field.partition(".")
        if owner == message:
            fields[field] = list(value) if isinstance(value, tuple) else value
    return fields


def _toco_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    # The two that have to be set: unset, the engine aborts with "Unhandled input_format".
    fields = {"input_format": "TENSORFLOW_GRAPHDEF", "output_format": "TFLITE", **_fields("toco", values)}
    for old_name in ("input_type", "input_types"):
        if old_name in values:
            fields["inference_input_type"] = values[old_name]
    if fields.get("quantize_weights"):
        # The native tool does this too; the engine itself no longer looks at quantize_weights.
        fields["post_training_quantize"] = True
    graphviz = fields.get("dump_graphviz_dir")
    if graphviz is not None and not Path(graphviz).is_dir():
        raise FlagError(f"--dump_graphviz={graphviz} is not a folder", tip="make it first; TOCO does not")
    return fields


def _check_ranges(toco_flags: Mapping[str, Any]) -> None:
    for name in ("default_ranges", "default_int16_ranges"):
        low, high = toco_flags.get(f"{name}_min"), toco_flags.get(f"{name}_max")
        if (low is None) != (high is None):
            raise FlagError(f"--{name}_min and --{name}_max come together or not at all")
        if low is not None and high is not None and not low <= 0 <= high:
            raise FlagError(
                f"the default range {low} to {high} does not hold 0, as every quantized range must"
            )


def _is_quantized(toco_flags: Mapping[str, Any]) -> bool:
    # With post_training_quantize the engine works in float, whatever inference_type says.
    return toco_flags.get("inference_type") in ZERO_POINTS and not toco_flags.get("post_training_quantize")


def _check_inference_types(toco_flags: Mapping[str, Any]) -> None:
    if _is_quantized(toco_flags) and toco_flags.get("inference_input_type") == "FLOAT":
        raise FlagError(
            f"--inference_type={toco_flags['inference_type']} cannot have --inference_input_type=FLOAT"
        )


def _input_type(toco_flags: Mapping[str, Any]) -> str:
    inference_type = toco_flags.get("inference_type") if _is_quantized(toco_flags) else None
    return toco_flags.get("inference_input_type") or inference_type or "FLOAT"


def _input_arrays(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the ``input_arrays`` of ModelFlags; each of the other input flags has one value per array."""
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
            raise FlagError(f"--{flag} without --input_arrays")
        if len(values[flag]) != len(inputs):
            separator = "colons" if flag == "input_shapes" else "commas"
            raise FlagError(
                f"--{flag} has {len(values[flag])} values for {len(inputs)} input arrays",
                tip=f"one value for each of --input_arrays, {separator} between them",
            )
        for array, value in zip(inputs, values[flag]):
            array[field] = {"dims": list(value)} if field == "shape" else value
    return inputs


def _check_quantized_inputs(inputs: list[dict[str, Any]], input_type: str) -> None:
    """Refuse a quantized input that nobody says how to read: TOCO would take it as (q - 0) / 1."""
    for array in inputs:
        std = array.get("std_value")
        if std is not None and std <= 0:
            raise FlagError(
                f"the standard deviation of {array['name']!r} cannot be {std}",
                tip="--std_values are quantized steps per 1.0, so above 0",
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
                f"mean value {array['mean_value']} of a {input_type} input is not within {low} to {high}"
            )


def _check_names(model_flags: Mapping[str, Any]) -> None:
    inputs = [array["name"] for array in model_flags.get("input_arrays", ())]
    outputs = list(model_flags.get("output_arrays", ()))
    for name in inputs + outputs:
        if name.endswith(":0"):
            raise FlagError(
                f"array {name!r}: TOCO does not take a zero output index", tip=f"write {name[:-2]}"
            )
        if not all(" " <= character <= "~" for character in name) and not model_flags.get(
            "allow_nonascii_arrays"
        ):
            raise FlagError(
                f"array {name!r} has characters outside ASCII",
                tip="--allow_nonascii_arrays, if that is meant",
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
            f"--{flag}={path}: the folder {path.parent} does not exist", tip="make it first; TOCO does not"
        )
    if path.exists() and not path.is_file():
        raise FlagError(f"--{flag}={path}: is not a file")
    if path.exists() and path.samefile(input_file):
        raise FlagError(f"--{flag}={path} is the input file")
    return path


def _path(flag: str, values: Mapping[str, Any]) -> Path:
    if flag not in values:
        raise FlagError(f"--{flag} is missing", tip="toco --help lists the flags")
    return Path(values[flag])
