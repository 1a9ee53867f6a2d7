"""The conversion cache and the speed-ups of an export: the files are the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runner.convert.speedups import SPEEDUPS
from runner.host.digests import digest_file

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Session
    from tests.integration.conftest import Converted, Finished, Program

pytestmark = pytest.mark.any_engine

FROM_CACHE = "taken from the cache"


def digests_below(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): digest_file(path).sha256
        for path in folder.rglob("*")
        if path.is_file()
    }


def names_of_speedups(out_dir: Path) -> list[str]:
    statement: Any = json.loads((out_dir / "fp32/provenance.json").read_text())
    names: list[str] = statement["predicate"]["buildDefinition"]["internalParameters"]["speedups"]
    return names


@pytest.fixture(scope="session")
def cache(engine_name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(f"cache-{engine_name}")


@pytest.fixture(scope="session")
def filled(
    program: Program, stand_in_dir: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output directory of the conversion that filled the cache."""
    out_dir = tmp_path_factory.mktemp("filled")
    done = convert(program, stand_in_dir, cache, out_dir)
    assert done.exit_code == 0, done.stderr
    return out_dir


def convert(program: Program, model_dir: Path, cache: Path, out_dir: Path, *more: str) -> Finished:
    """Convert without a reachable daemon, unless the engine needs one."""
    env = {"RUNNER_CACHE_DIR": str(cache), "RUNNER_CACHE_MIB": "2048"}
    return program("fp32", "--model-dir", model_dir, "--out", out_dir, "--no-check", *more, env=env)


def test_a_hit_is_the_same_to_the_last_byte(
    program: Program, stand_in_dir: Path, cache: Path, filled: Path, tmp_path: Path
) -> None:
    done = convert(program, stand_in_dir, cache, tmp_path)
    assert done.exit_code == 0, done.stderr
    assert FROM_CACHE in done.stderr
    assert digests_below(tmp_path) == digests_below(filled)


def test_a_hit_needs_no_engine(
    program: Program, stand_in_dir: Path, cache: Path, filled: Path, tmp_path: Path
) -> None:
    env = {
        "RUNNER_CACHE_DIR": str(cache),
        "RUNNER_CACHE_MIB": "2048",
        "DOCKER_HOST": "tcp://127.0.0.1:9",
        "RUNNER_PYTHON": "/nonexistent",
    }
    flags = ("--model-dir", stand_in_dir, "--out", tmp_path, "--no-check")
    done = program("fp32", *flags, env=env)
    assert done.exit_code == 0, done.stderr
    assert digests_below(tmp_path) == digests_below(filled)


def test_a_hit_can_be_checked_like_any_result(
    program: Program, stand_in_dir: Path, cache: Path, filled: Path, tmp_path: Path
) -> None:
    convert(program, stand_in_dir, cache, tmp_path)
    done = program("verify", "--provenance", tmp_path / "fp32/provenance.json", "--model-dir", stand_in_dir)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert digests_below(tmp_path) == digests_below(filled)


def test_force_converts_again(
    program: Program, stand_in_dir: Path, cache: Path, filled: Path, tmp_path: Path
) -> None:
    done = convert(program, stand_in_dir, cache, tmp_path, "--force")
    assert done.exit_code == 0, done.stderr
    assert FROM_CACHE not in done.stderr
    name = "fp32/mobiledet.tflite"
    assert digests_below(tmp_path)[name] == digests_below(filled)[name]


@pytest.mark.slow
def test_other_settings_are_no_hit(
    program: Program, stand_in_dir: Path, cache: Path, filled: Path, tmp_path: Path
) -> None:
    done = convert(program, stand_in_dir, cache, tmp_path, "--max-detections", "20")
    assert done.exit_code == 0, done.stderr
    assert FROM_CACHE not in done.stderr
    name = "fp32/mobiledet.tflite"
    assert digests_below(tmp_path)[name] != digests_below(filled)[name]


LEFT_OUT = ("matplotlib", "keras", "setuptools", "tensorflow.contrib.slim")
LIST_IMPORTS = f"""
import importlib, sys
sys.path.insert(0, sys.argv[1])
import server, speedups
speedups.apply_to_server(sys.argv[2])
for name in server.DETECTION_MODULES:
    importlib.import_module(name)
print([name for name in {LEFT_OUT} if name in sys.modules])
"""


@pytest.mark.parametrize(("names", "imported"), [("none", list(LEFT_OUT)), (",".join(SPEEDUPS), [])])
def test_speedups_leave_out_imports(session: Session, names: str, imported: list[str]) -> None:
    done = session.run("python", "-c", LIST_IMPORTS, str(session.toolchain_dir / "server"), names)
    assert done.stdout[-1:] == (str(imported),), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("names", ["none", *SPEEDUPS])
def test_no_speedup_changes_the_final_bytes(
    program: Program, stand_in_dir: Path, converted: Converted, tmp_path: Path, names: str
) -> None:
    flags = ("--model-dir", stand_in_dir, "--out", tmp_path, "--no-check", "--json")
    done = program("build-all", *flags, env={"RUNNER_SPEEDUPS": names})
    assert done.exit_code == 0, done.stderr
    assert {it["variant"]: it["sha256"] for it in done.json} == {
        name: result["sha256"] for name, result in converted.results.items()
    }
    assert names_of_speedups(tmp_path) == ([] if names == "none" else [names])


def test_the_provenance_names_the_speedups(converted: Converted) -> None:
    assert names_of_speedups(converted.out_dir) == list(SPEEDUPS)


@pytest.mark.slow
def test_the_text_form_of_the_graph_is_written_when_it_is_kept(
    program: Program, stand_in_dir: Path, converted: Converted, tmp_path: Path
) -> None:
    flags = ("--model-dir", stand_in_dir, "--out", tmp_path, "--no-check", "--keep-pbtxt", "--json")
    done = program("fp32", *flags)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "fp32/tflite_graph.pbtxt").stat().st_size > 40_000_000
    assert names_of_speedups(tmp_path) == [name for name in SPEEDUPS if name != "no-graph-text"]
    assert done.json[0]["sha256"] == converted.results["fp32"]["sha256"]
