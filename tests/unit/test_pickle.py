"""Errors, requests, plans and results are equal after pickling, so they can be sent to other processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import runner.errors
from runner.convert.one_step import ExportRequest, TocoRequest
from runner.deliver.run import Result
from runner.engines.base import Folders, Job
from runner.engines.choose import EngineOptions
from runner.errors import RunnerError, ScriptError
from runner.host.digests import digest_bytes
from runner.recipes.recipe import InferenceType, load_recipe
from runner.recipes.settings import Settings
from runner.scripts.run import Script, ScriptOptions, ScriptRun
from tests.unit.fixtures.conversion import ENDED_WELL

ERRORS = [it for it in vars(runner.errors).values() if isinstance(it, type) and issubclass(it, RunnerError)]
OPTIONS = ScriptOptions(log_dir=Path("/logs"), label="fp32")
SCRIPT = Script(name="toco", argv=("toco", "--help"), log_name="toco.log", options=OPTIONS)
EXPORT_REQUEST = ExportRequest(
    pipeline_config=Path("/model/pipeline.config"),
    checkpoint_prefix=Path("/model/model.ckpt"),
    settings=Settings(),
    options=OPTIONS,
)
TOCO_REQUEST = TocoRequest(
    graph=Path("/model/tflite_graph.pb"),
    output=Path("/out/model.tflite"),
    inference_type=InferenceType.QUANTIZED_UINT8,
    input_array="input",
    input_shape=(1, 300, 300, 3),
    output_arrays=("boxes",),
    mean_value=128.0,
    std_value=128.0,
    options=OPTIONS,
)
RESULT = Result(
    variant="fp32",
    file=Path("/out/fp32/model.tflite"),
    copy=Path("/out/model.tflite"),
    digests=digest_bytes(b"model"),
    known_digests="MD5",
    matches_published=False,
    is_from_cache=True,
)


def again(value: object) -> object:
    """Pickle a value and read it back."""
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_the_same_in_another_process(kind: type[RunnerError]) -> None:
    more = {"script_exit_code": 134, "log": Path("/logs/toco.log")} if issubclass(kind, ScriptError) else {}
    problem = kind("it failed", tip="try again", last_lines=("one", "two"), **more)
    copy = again(problem)
    assert type(copy) is kind
    assert isinstance(copy, kind)
    assert (str(copy), copy.args, vars(copy)) == (str(problem), problem.args, vars(problem))
    assert copy.exit_code == problem.exit_code


@pytest.mark.parametrize(
    "value",
    [
        load_recipe(),
        Job(argv=("true",)),
        Job(argv=("true",), env={"A": "b"}, cwd=Path("/")),
        Folders(read_only=(Path("/model"),)),
        EngineOptions(),
        SCRIPT,
        ScriptRun(script=SCRIPT, result=ENDED_WELL),
        EXPORT_REQUEST,
        TOCO_REQUEST,
        RESULT,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_the_same_in_another_process(value: object) -> None:
    assert again(value) == value
