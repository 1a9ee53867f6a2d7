"""The native TOCO command line: parsed values, and command lines that are refused before the engine runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.locations import DOCKER_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

BIN = DOCKER_DIR / "bin"


class Plan(Protocol):
    model_flags: dict[str, Any]
    toco_flags: dict[str, Any]


class Toco:
    """The two modules of the command that do not need TensorFlow."""

    def __init__(self, flags: ModuleType, conversion: ModuleType) -> None:
        self.flags: Any = flags
        self.conversion: Any = conversion

    def plan(self, *arguments: str) -> Plan:
        plan: Plan = self.conversion.plan(self.flags.read(arguments))
        return plan

    def refusal(self, *arguments: str) -> str:
        """Return the message and the tip of a refused command line."""
        with pytest.raises(self.flags.FlagError) as caught:
            self.plan(*arguments)
        return f"{caught.value}\n{caught.value.tip}"


@pytest.fixture(scope="module")
def toco() -> Iterator[Toco]:
    sys.path.insert(0, str(BIN))
    yield Toco(importlib.import_module("_toco_flags"), importlib.import_module("_toco_conversion"))
    sys.path.remove(str(BIN))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Return the flags for an existing input file and a possible output file."""
    graph = tmp_path / "tflite_graph.pb"
    graph.touch()
    return f"--input_file={graph}", f"--output_file={tmp_path / 'model.tflite'}"


PUBLISHED = (
    "--input_shapes=1,320,320,3",
    "--input_arrays=normalized_input_image_tensor",
    "--output_arrays=TFLite_Detection_PostProcess,TFLite_Detection_PostProcess:1",
    "--inference_type=QUANTIZED_UINT8",
    "--allow_custom_ops",
    "--mean_values=128",
    "--std_values=128",
)


def test_published_line_sets_its_fields_and_no_others(toco: Toco, files: tuple[str, str]) -> None:
    plan = toco.plan(*files, *PUBLISHED)
    assert plan.model_flags == {
        "input_arrays": [
            {
                "name": "normalized_input_image_tensor",
                "shape": {"dims": [1, 320, 320, 3]},
                "mean_value": 128.0,
                "std_value": 128.0,
            }
        ],
        "output_arrays": ["TFLite_Detection_PostProcess", "TFLite_Detection_PostProcess:1"],
    }
    assert plan.toco_flags == {
        "input_format": "TENSORFLOW_GRAPHDEF",
        "output_format": "TFLITE",
        "inference_type": "QUANTIZED_UINT8",
        "allow_custom_ops": True,
    }


def test_value_may_follow_as_the_next_argument(toco: Toco, files: tuple[str, str]) -> None:
    apart = [part for flag in (*files, *PUBLISHED) for part in flag.split("=", 1)]
    assert toco.plan(*apart) == toco.plan(*files, *PUBLISHED)


def test_negative_number_may_follow_as_the_next_argument(toco: Toco) -> None:
    assert toco.flags.read(("--default_ranges_min", "-6")) == {"default_ranges_min": -6.0}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--change_concat_input_ranges", True),
        ("--change_concat_input_ranges=true", True),
        ("--change_concat_input_ranges=FALSE", False),
    ],
)
def test_bool_flags_are_true_alone_and_take_a_value(toco: Toco, argument: str, value: bool) -> None:
    assert toco.flags.read((argument,)) == {"change_concat_input_ranges": value}


def test_singular_flags_say_the_same_as_plural_ones(toco: Toco, files: tuple[str, str]) -> None:
    singular = [
        argument.replace("shapes", "shape").replace("arrays", "array").replace("values", "value")
        for argument in PUBLISHED
        if not argument.startswith("--output_arrays")
    ]
    plural = [argument for argument in PUBLISHED if not argument.startswith("--output_arrays")]
    assert toco.plan(*files, *singular, "--output_array=out") == toco.plan(
        *files, *plural, "--output_arrays=out"
    )


def test_each_of_several_inputs_has_its_own_values(toco: Toco, files: tuple[str, str]) -> None:
    plan = toco.plan(
        *files,
        "--input_arrays=a,b",
        "--input_shapes=1,2:",
        "--input_data_types=FLOAT,INT32",
        "--output_arrays=c",
    )
    assert plan.model_flags["input_arrays"] == [
        {"name": "a", "shape": {"dims": [1, 2]}, "data_type": "FLOAT"},
        {"name": "b", "shape": {"dims": []}, "data_type": "INT32"},
    ]


def test_old_names_reach_the_fields_that_replaced_them(
    toco: Toco, files: tuple[str, str], tmp_path: Path
) -> None:
    plan = toco.plan(
        *files,
        "--output_arrays=out",
        "--input_type=QUANTIZED_UINT8",
        "--quantize_weights",
        f"--dump_graphviz={tmp_path}",
        "--dump_graphviz_video",
    )
    assert plan.toco_flags["inference_input_type"] == "QUANTIZED_UINT8"
    assert plan.toco_flags["post_training_quantize"] is True
    assert plan.toco_flags["dump_graphviz_dir"] == str(tmp_path)
    assert plan.toco_flags["dump_graphviz_include_video"] is True


def test_records_are_read_key_by_key(toco: Toco) -> None:
    values = toco.flags.read(
        (
            "--rnn_states={state_array:s, back_edge_source_array:b, size:4}",
            "--model_checks={count_type:None,count_max:3},{count_min:-1}",
        )
    )
    assert values["rnn_states"] == ({"state_array": "s", "back_edge_source_array": "b", "size": 4},)
    assert values["model_checks"] == ({"count_type": "None", "count_max": 3}, {"count_min": -1})


def test_every_flag_is_listed_with_help(toco: Toco) -> None:
    text = toco.flags.help_text()
    assert all(f"--{flag.name}" in text and flag.help in text for flag in toco.flags.FLAGS)


def test_misspelt_flag_is_named_with_the_nearest_known_one(toco: Toco) -> None:
    refusal = toco.refusal("--mean_valeus=128")
    assert "--mean_valeus" in refusal
    assert "did you mean --mean_values?" in refusal


def test_flag_with_dashes_for_underscores_is_unknown_but_recognised(toco: Toco) -> None:
    assert "did you mean --allow_custom_ops?" in toco.refusal("--allow-custom-ops")


@pytest.mark.parametrize(
    ("foreign", "native"),
    [
        ("--graph_def_file=x.pb", "--input_file"),
        ("--std_dev_values=128", "--std_values"),
        ("--target_ops=TFLITE_BUILTINS", "--enable_select_tf_ops"),
        ("--saved_model_dir=x", "freeze"),
        ("--keras_model_file=x", "freeze"),
        ("--enable_v1_converter", "leave it out"),
    ],
)
def test_flag_of_tflite_convert_is_called_that_and_translated(toco: Toco, foreign: str, native: str) -> None:
    refusal = toco.refusal(foreign)
    assert "tflite_convert" in refusal
    assert native in refusal


@pytest.mark.parametrize("argument", ["--batch_size=1", "--savedmodel_directory=x"])
def test_native_flag_the_messages_cannot_carry_is_refused(toco: Toco, argument: str) -> None:
    assert "is not supported" in toco.refusal(argument)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mean_values=1", "--mean_values=2"), "given twice"),
        (("--allow_custom_ops", "true"), "unexpected argument 'true'"),
        (("-input_file=x",), "unexpected argument"),
        (("--input_file",), "needs a value"),
        (("--input_file", "--output_file=x"), "--input_file needs a value"),
        (("--allow_custom_ops=yes",), "neither true nor false"),
        (("--input_shapes=1,320,x",), "'x' is not a whole number"),
        (("--input_shapes=1,0",), "a dimension cannot be 0"),
        (("--input_shapes=-1,320",), "a dimension cannot be -1"),
        (("--input_shapes=2147483648",), "a dimension cannot be 2147483648"),
        (("--input_arrays=a,,b",), "is empty"),
        (("--output_file=",), "is empty"),
        (("--mean_values=nan",), "is not a number"),
        (("--mean_values=1_0",), "is not a number"),
        (("--inference_type=UINT8",), "'UINT8'"),
        (("--input_type=image_tensor",), "'image_tensor'"),
        (("--input_format=TFLITE",), "'TFLITE'"),
        (("--input_data_types=FLOAT,IMAGE",), "'IMAGE'"),
        (("--dedupe_array_min_size_bytes=-1",), "out of range"),
        (("--rnn_states=x",), "is not of the form"),
        (("--rnn_states={size:0}",), "out of range"),
        (("--model_checks={count:3}",), "KEY:VALUE"),
        (("--model_checks={count_min:3,count_min:4}",), "count_min"),
    ],
)
def test_invalid_argument_is_refused(toco: Toco, arguments: tuple[str, ...], said: str) -> None:
    assert said in toco.refusal(*arguments)


QUANTIZED = ("--inference_type=QUANTIZED_UINT8", "--input_arrays=in", "--output_arrays=out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--output_arrays is missing"),
        (("--output_arrays=a:0",), "output index :0"),
        (("--output_arrays=ä",), "outside ASCII"),
        (("--output_arrays=a", "--output_array=a"), "cannot be combined"),
        (("--input_arrays=a", "--output_arrays=a"), "both an input and an output"),
        (("--input_arrays=a", "--input_shape=1", "--output_arrays=b"), "cannot be combined"),
        (("--input_shapes=1,2", "--output_arrays=b"), "--input_shapes needs --input_arrays"),
        (
            ("--input_arrays=a,b", "--input_shapes=1,2", "--output_arrays=c"),
            "one value per input array: 2, not 1",
        ),
        (
            ("--input_arrays=a", "--mean_values=1,2", "--output_arrays=c"),
            "one value per input array: 1, not 2",
        ),
        ((*QUANTIZED, "--std_values=128"), "--mean_values is missing"),
        ((*QUANTIZED, "--mean_values=128"), "--std_values is missing"),
        ((*QUANTIZED, "--mean_values=128", "--std_values=0"), "cannot be 0"),
        ((*QUANTIZED, "--mean_values=300", "--std_values=1"), "not between 0 and 255"),
        ((*QUANTIZED, "--inference_input_type=FLOAT"), "--inference_input_type=FLOAT"),
        (("--output_arrays=a", "--default_ranges_min=0"), "given together"),
        (("--output_arrays=a", "--default_ranges_min=6", "--default_ranges_max=0"), "does not contain 0"),
        (("--output_arrays=a", "--dump_graphviz=/no/such/folder"), "is not a folder"),
    ],
)
def test_contradiction_is_refused(
    toco: Toco, files: tuple[str, str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in toco.refusal(*files, *arguments)


def test_float_arithmetic_with_quantized_input_needs_mean_and_deviation(
    toco: Toco, files: tuple[str, str]
) -> None:
    arguments = ("--inference_input_type=QUANTIZED_UINT8", "--input_arrays=in", "--output_arrays=out")
    assert "--mean_values is missing" in toco.refusal(*files, *arguments)


def test_missing_input_file_is_refused(toco: Toco, tmp_path: Path) -> None:
    assert "no such file" in toco.refusal(
        f"--input_file={tmp_path / 'none.pb'}", f"--output_file={tmp_path / 'x'}", "--output_arrays=a"
    )


def test_missing_output_folder_is_refused(toco: Toco, files: tuple[str, str], tmp_path: Path) -> None:
    assert "does not exist" in toco.refusal(
        files[0], f"--output_file={tmp_path / 'none' / 'x.tflite'}", "--output_arrays=a"
    )


def test_output_over_the_input_is_refused(toco: Toco, files: tuple[str, str]) -> None:
    output = files[0].replace("input_file", "output_file")
    assert "is the input file" in toco.refusal(files[0], output, "--output_arrays=a")


@given(st.lists(st.text()))
def test_any_command_line_is_read_or_refused(toco: Toco, arguments: list[str]) -> None:
    with suppress(toco.flags.FlagError):
        toco.flags.read(arguments)


@given(st.data())
def test_any_value_of_any_flag_is_read_or_refused(toco: Toco, data: st.DataObject) -> None:
    flag = data.draw(st.sampled_from(toco.flags.FLAGS))
    value = data.draw(st.text(alphabet="01.,:{}-enaTcount_size") | st.text())
    with suppress(toco.flags.FlagError):
        assert list(toco.flags.read((f"--{flag.name}={value}",))) == [flag.name]


def run_toco(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BIN / "toco", *arguments], capture_output=True, text=True, check=False
    )


def test_command_exits_2_with_message_and_tip() -> None:
    result = run_toco("--graph_def_file=x.pb")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("toco: --graph_def_file is a flag of tflite_convert")
    assert "tip: use --input_file" in result.stderr


def test_command_prints_help_on_stdout() -> None:
    result = run_toco("--help")
    assert result.returncode == 0
    assert "--std_values=<float,...>" in result.stdout


def test_command_without_arguments_is_a_usage_error() -> None:
    result = run_toco()
    assert result.returncode == 2
    assert "usage: toco" in result.stderr
