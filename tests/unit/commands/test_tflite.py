"""The commands for existing files: exit codes, stdout, and files that must not be written."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runner.commands.tflite import app
from runner.errors import IdentityError, IntegrityError, RunnerError, UsageError
from runner.tflite.rewrite import normalize
from runner.toolchain.pins import PROJECT_ROOT
from tests.altered import with_other_blob, with_other_weight
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

RUN = TINY_DETECTOR / "uint8.run0.tflite"


def call(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, RunnerError | SystemExit), (
        result.exception
    )
    return result


def exit_code(result: Result) -> int:
    return result.exception.exit_code if isinstance(result.exception, RunnerError) else result.exit_code


def test_verify_says_what_is_wrong_and_exits_8() -> None:
    result = call("verify", RUN)
    assert exit_code(result) == IdentityError.exit_code == 8
    assert "number of CONV_2D: expected 66, found 3" in result.stdout


def test_verify_against_another_run_exits_0_and_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    result = call("verify", RUN, "--against", TINY_DETECTOR / "uint8.run1.tflite", "--write", out)
    assert exit_code(result) == 0
    assert out.read_bytes() == (TINY_DETECTOR / "uint8.run1.tflite").read_bytes()


def test_verify_prints_json() -> None:
    result = call("verify", RUN, "--json", "--variant", "uint8")
    assert exit_code(result) == 8
    assert json.loads(result.stdout)["verdict"] == "different structure or options"


def test_diff_of_two_runs_exits_0() -> None:
    result = call("diff", RUN, TINY_DETECTOR / "uint8.run1.tflite")
    assert (exit_code(result), "same content" in result.stdout) == (0, True)


@pytest.mark.parametrize("other", ["uint8.run0", "uint8.run1", "uint8.tf2.1", "fp32.run0"])
def test_verify_against_and_diff_agree(other: str) -> None:
    path = TINY_DETECTOR / f"{other}.tflite"
    verified, compared = call("verify", RUN, "--against", path), call("diff", RUN, path)
    assert exit_code(verified) == exit_code(compared)
    verdicts = [
        json.loads(call(*command, "--json").stdout)["verdict"]
        for command in (("verify", RUN, "--against", path), ("diff", RUN, path))
    ]
    assert verdicts[0] == verdicts[1]
    assert verified.stdout.splitlines()[2:] == compared.stdout.splitlines()[1:]


def test_diff_names_the_tensor_and_exits_8(tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(with_other_weight(RUN.read_bytes(), CONV_WEIGHTS))
    result = call("diff", RUN, other, "--json")
    assert exit_code(result) == 8
    (difference,) = json.loads(result.stdout)["differences"]
    assert (difference["where"], difference["changed"]) == (CONV_WEIGHTS, 1)
    assert "1 of 108 values" in call("diff", RUN, other, "--all").stdout


def test_diff_of_a_graph_and_a_model_is_a_usage_error(tmp_path: Path) -> None:
    assert exit_code(call("diff", RUN, tmp_path / "tflite_graph.pb")) == UsageError.exit_code


def test_inspect_prints_text_and_json() -> None:
    assert "quantization  integer, uint8" in call("inspect", RUN).stdout
    summary = json.loads(call("inspect", RUN, "--json").stdout)
    assert summary["operators"]["CONV_2D"] == 3
    assert summary["post_processing"]["max_detections"] == 10


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_file_that_is_no_model_exits_7(command: str, tmp_path: Path) -> None:
    page = tmp_path / "page.tflite"
    page.write_text("<html>quota exceeded</html>")
    assert exit_code(call(command, page)) == IntegrityError.exit_code == 7
    assert exit_code(call(command, tmp_path / "nothing.tflite")) == 2


def test_normalize_gives_one_file_for_all_runs(tmp_path: Path) -> None:
    lines = set()
    for number in range(5):
        out = tmp_path / f"{number}.tflite"
        result = call("normalize", TINY_DETECTOR / f"uint8.run{number}.tflite", out)
        assert exit_code(result) == 0
        lines.add((result.stdout.split()[0], out.read_bytes()))
    assert len(lines) == 1


def test_normalize_reports_a_file_without_keys_to_sort(tmp_path: Path) -> None:
    source, out = TINY_DETECTOR / "no_post_processing.tflite", tmp_path / "out.tflite"
    result = call("normalize", source, out, "--json")
    assert "copied unchanged" in result.stderr
    assert json.loads(result.stdout)["order"] is None
    assert out.read_bytes() == source.read_bytes()


def test_normalize_reports_a_file_that_is_normalized_already(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.tflite", tmp_path / "twice.tflite"
    assert "replaced by the fixed one" in normalize(RUN, once).note
    assert "already" in normalize(once, twice).note
    assert once.read_bytes() == twice.read_bytes()


@pytest.mark.parametrize("content", [b"", b"no model", RUN.read_bytes()[:2222]])
def test_normalize_writes_nothing_for_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    source, out = tmp_path / "in.tflite", tmp_path / "out.tflite"
    source.write_bytes(content)
    assert exit_code(call("normalize", source, out)) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["in.tflite"]


def test_normalize_writes_nothing_for_options_that_are_no_flexbuffer(tmp_path: Path) -> None:
    source, out = tmp_path / "in.tflite", tmp_path / "out.tflite"
    source.write_bytes(with_other_blob(RUN.read_bytes(), b"\xff" * 316))
    assert exit_code(call("normalize", source, out)) == 7
    assert not out.exists()


def test_normalize_never_writes_over_what_it_reads(tmp_path: Path) -> None:
    source, link = tmp_path / "in.tflite", tmp_path / "link.tflite"
    source.write_bytes(RUN.read_bytes())
    link.symlink_to(source)
    for target in (source, link, tmp_path / "." / "in.tflite"):
        assert exit_code(call("normalize", source, target, "--force")) == 2
    assert source.read_bytes() == RUN.read_bytes()


def test_normalize_replaces_a_file_only_when_told_to(tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    out.write_text("precious")
    assert exit_code(call("normalize", RUN, out)) == 2
    assert out.read_text() == "precious"
    assert "--overwrite" in str(getattr(call("normalize", RUN, out).exception, "tip", ""))
    assert exit_code(call("normalize", RUN, out, "--overwrite")) == 0
    assert exit_code(call("normalize", RUN, out, "--force")) == 0
    assert exit_code(call("normalize", RUN, tmp_path, "--force")) == 2


def test_every_damaged_input_ends_in_a_result_or_an_error_of_ours() -> None:
    fuzz = [sys.executable, "-m", "bench.fuzz_tflite", "--count", "250", "--seed", "20261122"]
    done = subprocess.run(fuzz, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == []
    assert report["outcomes"]["normalize: result"] > 10
