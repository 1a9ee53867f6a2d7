from __future__ import annotations

from runner.convert.toco import toco_argv
from runner.recipes.recipe import InferenceType


def argv(*more_flags: str, input_shape: tuple[int, ...] | None = None) -> tuple[str, ...]:
    return toco_argv(
        graph="graph.pb",
        output="model.tflite",
        inference_type=InferenceType.FLOAT,
        input_array="in",
        input_shape=input_shape,
        output_arrays=("out", "out:1"),
        mean_value=None,
        std_value=None,
        more_flags=more_flags,
    )


def test_what_is_not_given_is_left_to_toco() -> None:
    assert argv() == (
        *("toco", "--input_file=graph.pb", "--output_file=model.tflite", "--input_arrays=in"),
        *("--output_arrays=out,out:1", "--inference_type=FLOAT", "--allow_custom_ops"),
    )


def test_native_flag_replaces_the_value_of_the_option() -> None:
    more = ("--input_shapes", "1,8", "--inference_type=QUANTIZED_UINT8", "--allow_custom_ops")
    assert argv(*more, input_shape=(1, 9)) == (
        *("toco", "--input_file=graph.pb", "--output_file=model.tflite", "--input_arrays=in"),
        *("--output_arrays=out,out:1", *more),
    )


def test_files_are_not_replaced() -> None:
    assert "--output_file=model.tflite" in argv("--output_file=other.tflite")
