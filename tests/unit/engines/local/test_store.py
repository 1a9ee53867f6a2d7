from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runner.engines.local.build import run_build_command, toolchain_variables
from runner.engines.local.interpreter import Interpreter
from runner.engines.local.plan import EnvironmentPlan
from runner.engines.local.store import environments_dir, find_environment
from runner.errors import BuildError, DiskFullError, IntegrityError
from runner.toolchain.catalog import load_toolchain
from runner.toolchain.models_source import GITHUB, PYPI
from runner.toolchain.pins import PROJECT_ROOT

PLAN = EnvironmentPlan(
    interpreter=Interpreter(path=Path("/opt/python/bin/python3.7"), version="3.7.17", build="GCC"),
    source=GITHUB,
    models_commit="9d1a692",
)
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def home() -> Path:
    """The folder of an environment that contains one complete attempt."""
    folder = environments_dir() / PLAN.key
    (folder / "env-1/bin").mkdir(parents=True)
    (folder / "env-1/bin/python").symlink_to(sys.executable)
    (folder / "whole.json").write_text(json.dumps({"folder": "env-1"}))
    return folder


def test_the_attempt_that_the_marker_names_is_found(home: Path) -> None:
    (home / "env-2/bin").mkdir(parents=True)
    assert find_environment(PLAN) == home / "env-1"


@pytest.mark.parametrize(
    "content", ["", '{"folder": "env', "[]", "{}", '{"folder": 1}', '{"folder": "env-2"}']
)
def test_a_marker_that_names_no_environment_counts_for_nothing(home: Path, content: str) -> None:
    (home / "whole.json").write_text(content)
    assert find_environment(PLAN) is None


def test_a_marker_that_was_not_renamed_yet_counts_for_nothing(home: Path) -> None:
    (home / "whole.json").rename(home / "whole.json.unfinished")
    assert find_environment(PLAN) is None


def test_an_environment_whose_interpreter_was_removed_counts_for_nothing(home: Path) -> None:
    (home / "env-1/bin/python").unlink()
    (home / "env-1/bin/python").symlink_to("/nowhere/python3.7")
    assert find_environment(PLAN) is None


@pytest.mark.parametrize(
    "changed",
    [
        replace(PLAN, source=PYPI),
        replace(PLAN, models_commit="3564634"),
        replace(PLAN, interpreter=replace(PLAN.interpreter, version="3.7.16")),
        replace(PLAN, interpreter=replace(PLAN.interpreter, path=Path("/usr/bin/python3.7"))),
    ],
)
def test_another_source_commit_or_interpreter_is_another_environment(changed: EnvironmentPlan) -> None:
    assert changed.key != PLAN.key


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the toolchain's files."""
    root = tmp_path / "checkout"
    shutil.copytree(PROJECT_ROOT / "docker", root / "docker")
    shutil.copy(PROJECT_ROOT / "models-research-pin.txt", root)
    return root


@pytest.mark.parametrize(
    "name",
    [
        "docker/requirements.lock",
        "docker/requirements-sdist.lock",
        "docker/requirements-protoc.lock",
        "docker/models_research.py",
        "docker/manifests/models-research-9d1a692.manifest",
        "models-research-pin.txt",
    ],
)
def test_a_change_of_what_it_is_built_from_is_another_environment(checkout: Path, name: str) -> None:
    plan = replace(PLAN, root=checkout)
    before = plan.key
    assert before == PLAN.key
    (checkout / name).write_text((checkout / name).read_text() + "#\n")
    assert plan.key != before


def test_scripts_that_run_from_where_they_lie_do_not_change_the_environment(checkout: Path) -> None:
    plan = replace(PLAN, root=checkout)
    before = plan.key
    (checkout / "docker/server/server.py").write_text("\n")
    (checkout / "docker/steps/new.py").write_text("\n")
    assert plan.key == before


def test_nothing_of_the_users_environment_reaches_the_toolchain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = toolchain_variables(load_toolchain(), tmp_path / "env", tmp_path / "root", tmp_path / "scratch")
    for name in (*before, "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "the user's own")
    after = toolchain_variables(load_toolchain(), tmp_path / "env", tmp_path / "root", tmp_path / "scratch")
    assert after == before
    assert after["CUDA_VISIBLE_DEVICES"] == ""
    assert after["PATH"].split(":")[:2] == [str(tmp_path / "root/docker/bin"), str(tmp_path / "env/bin")]


def test_a_command_of_the_build_that_fails_keeps_its_last_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BuildError, match=r"ended with code 9: Error: no route") as caught:
        run_build_command("sh", "-c", "seq 100; echo Error: no route >&2; exit 9", environment=ENVIRONMENT)
    assert caught.value.exit_code == 4
    assert caught.value.last_lines[-2:] == ("100", "Error: no route")
    assert len(caught.value.last_lines) < 100
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "   | 1\n" in shown.err


def test_a_full_disk_is_named_with_the_way_out() -> None:
    said = "echo 'OSError: [Errno 28] No space left on device'; exit 1"
    with pytest.raises(DiskFullError) as caught:
        run_build_command("sh", "-c", said, environment=ENVIRONMENT)
    assert caught.value.exit_code == 6
    assert "RUNNER_CACHE_DIR" in (caught.value.tip or "")


def test_a_missing_processor_feature_is_named_by_its_signal() -> None:
    with pytest.raises(BuildError, match=r"code 132: illegal instruction: .*AVX"):
        run_build_command("sh", "-c", "kill -ILL $$", environment=ENVIRONMENT)


@pytest.mark.parametrize(
    "said",
    ["echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.'; exit 1", "exit 7"],
)
def test_bytes_that_are_not_the_pinned_ones_are_an_integrity_error(said: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        run_build_command("sh", "-c", said, environment=ENVIRONMENT)
    assert caught.value.exit_code == 7


def test_an_interrupted_command_of_the_build_ends_with_all_it_started() -> None:
    program = (
        "from runner import console\n"
        "from runner.engines.local.build import run_build_command\n"
        "console.print_messages()\n"
        "run_build_command('sh', '-c', 'sleep 600 & echo $!; wait', environment={'PATH': '/usr/bin:/bin'})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    ) as process:
        assert process.stderr is not None
        sleeper = int(process.stderr.readline().removeprefix("   | "))
        os.kill(sleeper, 0)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert not is_running(sleeper)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
