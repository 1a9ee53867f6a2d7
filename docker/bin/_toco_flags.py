"""Parse the command line of the native TOCO binary: its flags, their types and the message fields they set.

The native tool (``bazel run tensorflow/lite/toco:toco``) fills two protobuf messages, ModelFlags and
TocoFlags, and leaves a field unset if its flag is not given. So ``read`` returns only the given flags. This
module does not need TensorFlow.

Source: tensorflow/lite/toco/{args.h,model_cmdline_flags.cc,toco_cmdline_flags.cc} of TensorFlow 1.15.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from typing import Any, Callable, Mapping, Sequence

IO_TYPES = (
    "FLOAT",
    "FLOAT16",
    "QUANTIZED_UINT8",
    "QUANTIZED_INT16",
    "INT8",
    "INT32",
    "INT64",
    "BOOL",
    "COMPLEX64",
    "STRING",
)
# The message allows the other types too, but the 1.15 engine aborts on them or writes a useless model.
INFERENCE_TYPES = ("FLOAT", "QUANTIZED_UINT8", "QUANTIZED_INT16")


class FlagError(Exception):
    """An invalid command line: what is wrong, and what to write instead."""

    def __init__(self, message: str, tip: str = "") -> None:
        super().__init__(message)
        self.tip = tip


@dataclasses.dataclass(frozen=True)
class FlagKind:
    """The type of a flag: its label in ``--help``, and a parser that raises ValueError for a bad value."""

    label: str
    read: Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of the native tool. ``field`` is the message field that the flag sets, or empty if none."""

    name: str
    kind: FlagKind
    help: str
    field: str = ""


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _boolean(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{value!r} is neither true nor false")
    return value.lower() == "true"


def _whole_number(value: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in value:
        raise ValueError(f"{value!r} is not a number")
    return number


def _dimension(value: str) -> int:
    size = _whole_number(value)
    if not 1 <= size < 2**31:
        raise ValueError(f"a dimension cannot be {size}: TOCO needs every dimension known and at least 1")
    return size


def _shape(value: str) -> tuple[int, ...]:
    """Parse ``1,320,320,3``; an empty string is the shape of a scalar."""
    return tuple(_dimension(part) for part in value.split(",")) if value else ()


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return read


def _list_of(read: Callable[[str], Any], separator: str = ",") -> Callable[[str], tuple[Any, ...]]:
    return lambda value: tuple(read(part) for part in value.split(separator))


def _records(**readers: Callable[[str], Any]) -> Callable[[str], tuple[dict[str, Any], ...]]:
    """Return a parser for ``{key:value,key:value},{...}``; each key may occur once per record."""

    def read_record(text: str) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for pair in text.split(","):
            key, colon, value = (part.strip() for part in pair.partition(":"))
            if not colon or key not in readers or key in record:
                raise ValueError(
                    f"{pair.strip()!r} should be KEY:VALUE, with each KEY of {', '.join(readers)} used once"
                )
            record[key] = readers[key](value)
        return record

    def read(value: str) -> tuple[dict[str, Any], ...]:
        if not re.fullmatch(r"\s*\{[^{}]*\}\s*(,\s*\{[^{}]*\}\s*)*", value):
            raise ValueError(f"{value!r} is not of the form {{key:value,key:value}},{{...}}")
        return tuple(read_record(text) for text in re.findall(r"\{([^{}]*)\}", value))

    return read


def _at_least(minimum: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        number = _whole_number(value)
        if not minimum <= number < 2**31:
            raise ValueError(f"{number} is out of range")
        return number

    return read


TEXT = FlagKind("string", _text)
BOOL = FlagKind("bool", _boolean)
INT = FlagKind("int", _at_least(0))
FLOAT = FlagKind("float", _number)
FLOATS = FlagKind("float,...", _list_of(_number))
NAMES = FlagKind("name,...", _list_of(_text))
SHAPE = FlagKind("int,...", _shape)
SHAPES = FlagKind("int,...:...", _list_of(_shape, ":"))
IO_TYPE = FlagKind("type", _one_of(IO_TYPES))
IO_TYPE_LIST = FlagKind("type,...", _list_of(_one_of(IO_TYPES)))
INFERENCE_TYPE = FlagKind("type", _one_of(INFERENCE_TYPES))
# The native binary also reads .tflite files; the wheel's entry point to the engine cannot.
INPUT_FORMAT = FlagKind("format", _one_of(("TENSORFLOW_GRAPHDEF",)))
OUTPUT_FORMAT = FlagKind("format", _one_of(("TENSORFLOW_GRAPHDEF", "TFLITE", "GRAPHVIZ_DOT")))
RNN_STATES = FlagKind(
    "{...},...", _records(state_array=_text, back_edge_source_array=_text, size=_at_least(1))
)
MODEL_CHECKS = FlagKind(
    "{...},...", _records(count_type=_text, count_min=_at_least(-1), count_max=_at_least(-1))
)

FLAGS: tuple[Flag, ...] = (
    Flag("input_file", TEXT, "the frozen graph (GraphDef, binary or text)"),
    Flag("output_file", TEXT, "the converted model to write"),
    Flag("input_format", INPUT_FORMAT, "default TENSORFLOW_GRAPHDEF", "toco.input_format"),
    Flag("output_format", OUTPUT_FORMAT, "default TFLITE; one of TENSORFLOW_GRAPHDEF, TFLITE, GRAPHVIZ_DOT",
         "toco.output_format"),
    Flag("model_flags_file", TEXT, "a ModelFlags message, binary or text, to start from"),
    Flag("arrays_extra_info_file", TEXT, "an ArraysExtraInfo message: ranges that the graph lacks"),
    # Inputs and outputs.
    Flag("input_arrays", NAMES, "names of the inputs"),
    Flag("input_array", TEXT, "name of the input, for models with one input"),
    Flag("input_shapes", SHAPES, "shape of each input, separated by colons (default: the graph's)"),
    Flag("input_shape", SHAPE, "shape of the input, for models with one input"),
    Flag("input_data_types", IO_TYPE_LIST, "type of each input, if the graph does not define it"),
    Flag("input_data_type", IO_TYPE, "type of the input, for models with one input"),
    Flag("mean_values", FLOATS, "per input, the quantized value that represents 0.0"),
    Flag("mean_value", FLOAT, "as --mean_values, for models with one input"),
    Flag("std_values", FLOATS, "per input, quantized steps per 1.0: real = (quantized - mean) / std"),
    Flag("std_value", FLOAT, "as --std_values, for models with one input"),
    Flag("output_arrays", NAMES, "names of the outputs"),
    Flag("output_array", TEXT, "name of the output, for models with one output"),
    Flag("variable_batch", BOOL, "the model takes any batch size", "model.variable_batch"),
    # Data types and quantization ranges.
    Flag("inference_type", INFERENCE_TYPE, f"type of the arithmetic; one of {', '.join(INFERENCE_TYPES)}",
         "toco.inference_type"),
    Flag("inference_input_type", INFERENCE_TYPE, "type of the inputs (default: inference_type)",
         "toco.inference_input_type"),
    Flag("input_type", INFERENCE_TYPE, "old name of inference_input_type"),
    Flag("input_types", INFERENCE_TYPE, "old name of inference_input_type"),
    Flag("default_ranges_min", FLOAT, "minimum of uint8 arrays that have no range",
         "toco.default_ranges_min"),
    Flag("default_ranges_max", FLOAT, "maximum of uint8 arrays that have no range",
         "toco.default_ranges_max"),
    Flag("default_int16_ranges_min", FLOAT, "minimum of int16 arrays that have no range",
         "toco.default_int16_ranges_min"),
    Flag("default_int16_ranges_max", FLOAT, "maximum of int16 arrays that have no range",
         "toco.default_int16_ranges_max"),
    Flag("change_concat_input_ranges", BOOL, "true (default): a uint8 concatenation uses the range of its "
         "first input and clips the others; false: it uses the range of all inputs (for your own model)",
         "model.change_concat_input_ranges"),
    Flag("post_training_quantize", BOOL, "store float weights as 8-bit integers",
         "toco.post_training_quantize"),
    Flag("quantize_weights", BOOL, "old name of post_training_quantize", "toco.quantize_weights"),
    Flag("quantize_to_float16", BOOL, "with post_training_quantize: store weights as float16",
         "toco.quantize_to_float16"),
    Flag("propagate_fake_quant_num_bits", BOOL, "take the number of bits of arrays from FakeQuant nodes",
         "toco.propagate_fake_quant_num_bits"),
    Flag("drop_fake_quant", BOOL, "ignore FakeQuant nodes", "toco.drop_fake_quant"),
    Flag("reorder_across_fake_quant", BOOL, "transform the graph across FakeQuant nodes",
         "toco.reorder_across_fake_quant"),
    Flag("allow_nudging_weights_to_use_fast_gemm_kernel", BOOL, "change uint8 weights from 0 to 1",
         "toco.allow_nudging_weights_to_use_fast_gemm_kernel"),
    # What TOCO is allowed to do.
    Flag("allow_custom_ops", BOOL, "convert unknown operations to custom operators",
         "toco.allow_custom_ops"),
    Flag("enable_select_tf_ops", BOOL, "fall back to TensorFlow's own kernels", "toco.enable_select_tf_ops"),
    Flag("force_select_tf_ops", BOOL, "use TensorFlow's own kernels throughout", "toco.force_select_tf_ops"),
    Flag("allow_dynamic_tensors", BOOL, "accept shapes that are only known at run time (default: true)",
         "toco.allow_dynamic_tensors"),
    Flag("allow_nonexistent_arrays", BOOL, "accept input and output names that are not in the graph",
         "model.allow_nonexistent_arrays"),
    Flag("allow_nonascii_arrays", BOOL, "accept array names with characters outside ASCII",
         "model.allow_nonascii_arrays"),
    Flag("drop_control_dependency", BOOL, "ignore control inputs", "toco.drop_control_dependency"),
    Flag("debug_disable_recurrent_cell_fusion", BOOL, "do not fuse LSTM cells",
         "toco.debug_disable_recurrent_cell_fusion"),
    Flag("split_tflite_lstm_inputs", BOOL, "LSTM with 18 inputs instead of 5 (default: true)",
         "toco.split_tflite_lstm_inputs"),
    Flag("dedupe_array_min_size_bytes", INT, "store equal constants of this size or more once (default: 64)",
         "toco.dedupe_array_min_size_bytes"),
    Flag("rnn_states", RNN_STATES, "recurrent states: state_array, back_edge_source_array, size",
         "model.rnn_states"),
    Flag("model_checks", MODEL_CHECKS, "operators the graph must have: count_type, count_min, count_max",
         "model.model_checks"),
    Flag("dump_graphviz", TEXT, "an existing folder for Graphviz files of the graph",
         "toco.dump_graphviz_dir"),
    Flag("dump_graphviz_video", BOOL, "write a Graphviz file after each transformation",
         "toco.dump_graphviz_include_video"),
)  # fmt: skip

BY_NAME: Mapping[str, Flag] = {flag.name: flag for flag in FLAGS}

_FREEZE_FIRST = "freeze the model into a GraphDef and pass that as --input_file, or use tflite_convert"
# Flags of pip's tflite_convert (1.x and 2.x), and what to use here instead.
TFLITE_CONVERT_FLAGS: Mapping[str, str] = {
    "graph_def_file": "use --input_file",
    "std_dev_values": "use --std_values",
    "dump_graphviz_dir": "use --dump_graphviz",
    "target_ops": "use --enable_select_tf_ops (and --force_select_tf_ops for SELECT_TF_OPS alone)",
    "saved_model_dir": _FREEZE_FIRST,
    "saved_model_tag_set": _FREEZE_FIRST,
    "saved_model_signature_key": _FREEZE_FIRST,
    "keras_model_file": _FREEZE_FIRST,
    "enable_v1_converter": "leave it out: this is the 1.x converter",
    "experimental_new_converter": "leave it out: this is the old converter",
    "experimental_new_quantizer": "leave it out: this is the old converter",
}
# Flags of the native tool that have no field in the two messages.
NOT_CARRIED: Mapping[str, str] = {
    "savedmodel_directory": _FREEZE_FIRST,
    "savedmodel_tagset": _FREEZE_FIRST,
    "batch_size": "it applies to SavedModels only; the batch size is the first number of --input_shapes",
}
ALL_FLAGS = "`toco --help` in `shell` lists the flags"


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse a command line into the values of the flags that were given.

    Raises:
        FlagError: a flag is unknown, repeated or not supported, or a value has the wrong type.
    """
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag, written_value = _split(rest.pop(0))
        if flag.name in values:
            raise FlagError(f"--{flag.name} is given twice")
        if written_value is None:
            written_value = _next_value(flag, rest)
        try:
            values[flag.name] = flag.kind.read(written_value)
        except ValueError as error:
            raise FlagError(f"--{flag.name}={written_value}: {error}") from None
    return values


def _split(argument: str) -> tuple[Flag, str | None]:
    """Split ``--flag=value`` or ``--flag`` into the flag and its value, None if it has none."""
    if not argument.startswith("--") or argument == "--":
        raise FlagError(
            f"unexpected argument {argument!r}",
            tip="every argument is a flag: --flag=value or --flag value; bool flags: --flag or --flag=value",
        )
    name, equals, value = argument[2:].partition("=")
    if name in BY_NAME:
        return BY_NAME[name], value if equals else None
    if name in TFLITE_CONVERT_FLAGS:
        raise FlagError(
            f"--{name} is a flag of tflite_convert; this toco has the flags of the native binary",
            tip=TFLITE_CONVERT_FLAGS[name],
        )
    if name in NOT_CARRIED:
        raise FlagError(
            f"--{name} is not supported by the engine of the Python package", tip=NOT_CARRIED[name]
        )
    raise FlagError(f"unknown flag --{name}", tip=_nearest_flag(name))


def _next_value(flag: Flag, rest: list[str]) -> str:
    if flag.kind is BOOL:
        return "true"
    if not rest or rest[0].startswith("--"):
        raise FlagError(f"--{flag.name} needs a value ({flag.kind.label})")
    return rest.pop(0)


def _nearest_flag(name: str) -> str:
    nearest = difflib.get_close_matches(name.replace("-", "_"), [*BY_NAME, *TFLITE_CONVERT_FLAGS], n=1)
    return f"did you mean --{nearest[0]}?" if nearest else ALL_FLAGS


def help_text() -> str:
    """List every flag with its type."""
    lines = [
        "usage: toco --input_file=FILE --output_file=FILE --output_arrays=NAME,... [--flag[=]value]...",
        "",
        "TensorFlow 1.15's TOCO with the flags of the native binary. Flags that are not given stay unset.",
        "tflite_convert runs the same engine with other flags and other defaults.",
        "",
    ]
    for flag in FLAGS:
        written = f"--{flag.name}" if flag.kind is BOOL else f"--{flag.name}=<{flag.kind.label}>"
        lines.append(f"  {written:<48} {'bool: ' if flag.kind is BOOL else ''}{flag.help}")
    return "\n".join(lines) + "\n"
