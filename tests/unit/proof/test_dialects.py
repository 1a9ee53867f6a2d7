from __future__ import annotations

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.proof.dialects import as_tflite_convert, shell_text

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NATIVE = ("toco", "--input_file=g.pb", "--output_file=m.tflite", "--allow_custom_ops")


def test_a_quantized_run_says_what_the_other_dialect_leaves_out() -> None:
    converted = as_tflite_convert((*NATIVE, "--inference_type=QUANTIZED_UINT8", "--std_values=128"))
    assert converted is not None
    assert converted[0] == "tflite_convert"
    assert {"--graph_def_file=g.pb", "--std_dev_values=128", "--change_concat_input_ranges=TRUE"} <= set(
        converted
    )


def test_a_float_run_is_only_renamed() -> None:
    assert as_tflite_convert((*NATIVE, "--inference_type=FLOAT")) == (
        "tflite_convert",
        "--graph_def_file=g.pb",
        "--output_file=m.tflite",
        "--allow_custom_ops",
        "--inference_type=FLOAT",
    )


def test_a_flag_without_counterpart_has_no_translation() -> None:
    assert as_tflite_convert((*NATIVE, "--dump_graphviz_video")) is None


def test_a_setting_that_is_given_is_only_renamed() -> None:
    flag, quantized = "--change_concat_input_ranges=false", "--inference_type=QUANTIZED_UINT8"
    converted = as_tflite_convert((*NATIVE, quantized, flag))
    assert converted is not None
    assert [word for word in converted if "concat" in word] == [flag]


def test_the_flags_with_which_a_toolchain_uses_toco_come_first() -> None:
    converted = as_tflite_convert(NATIVE, ("--enable_v1_converter",))
    assert converted is not None
    assert converted[:2] == ("tflite_convert", "--enable_v1_converter")


def test_our_folders_stay_variables() -> None:
    assert shell_text(("toco", "--input_file=${TF_MODEL_DIR}/a b"), separator=" ") == (
        'toco "--input_file=${TF_MODEL_DIR}/a b"'
    )


FOLDERS = {"TF_MODEL_DIR": "/in", "TFLITE_MODEL_DIR": "/out"}


def as_the_shell_reads_it(text: str) -> list[str]:
    script = f"set -- {text}\nprintf '%s\\0' \"$@\""
    output = subprocess.run(["/bin/sh", "-c", script], env=FOLDERS, capture_output=True, check=True).stdout
    return output.decode().split("\0")[:-1]


def filled_in(word: str) -> str:
    for name, folder in FOLDERS.items():
        word = word.replace(f"${{{name}}}", folder)
    return word


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_pasted_command_has_the_words_it_was_made_of(argv: list[str]) -> None:
    assert as_the_shell_reads_it(shell_text(tuple(argv))) == [filled_in(word) for word in argv]


@settings(max_examples=40, deadline=None)
@given(WORDS, WORDS)
def test_a_variable_is_filled_in_and_what_stands_beside_it_is_kept(before: str, after: str) -> None:
    text = shell_text((f"{before}${{TFLITE_MODEL_DIR}}{after}",))
    assert as_the_shell_reads_it(text) == [filled_in(f"{before}/out{after}")]
