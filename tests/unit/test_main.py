"""Starting the program with a Python without packages, and with ignored signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import venv
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from runner import __version__
from runner.commands.groups import GROUPS
from runner.toolchain.digest import candidate_toolchain_digests
from runner.toolchain.pins import PROJECT_ROOT
from tests.disks import small_disk
from tests.locations import TINY_DETECTOR
from tests.unit.test_startup import HEAVY, LIST_IMPORTS

if TYPE_CHECKING:
    from tests.servers import Request, Serve


ALL_COMMANDS = {name for names in GROUPS.values() for name in names}


def test_a_python_without_our_packages_gets_the_command_that_sets_it_up(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-m", "runner", "--help"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (command,) = re.findall(r"try: (make \S+ \S+ \w+),", done.stderr)
    assert command == f"make -C {PROJECT_ROOT} venv"
    target = subprocess.run([*command.split(), "--dry-run"], capture_output=True, text=True, check=False)
    assert target.returncode == 0, target.stderr


def test_an_installed_program_without_its_dependencies_does_not_ask_for_a_checkout(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT_ROOT / "runner", tmp_path / "site-packages/runner", ignore=ignored)
    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-m", "runner", "--help"],
        cwd=tmp_path / "site-packages",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "try: reinstall mobiledet-runner with its dependencies" in done.stderr


def test_the_version_and_the_digest_of_either_toolchain_are_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "--version"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    version, *toolchains = done.stdout.splitlines()
    assert version == f"mobiledet-runner {__version__}"
    assert [line.split()[1] for line in toolchains] == list(candidate_toolchain_digests("auto"))


@pytest.fixture
def console_script(tmp_path: Path) -> Path:
    """The program under its installed name; it prints its imports to stderr."""
    script = tmp_path / "mobiledet-runner"
    script.write_text(f"#!{sys.executable}\n{LIST_IMPORTS}")
    script.chmod(0o755)
    return script


def run_script(script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("pro", {"prove"}), ("build-all --mod", {"--model-dir", "--models"}), ("", ALL_COMMANDS)],
)
def test_the_shell_completes_commands_and_options_without_heavy_imports(
    console_script: Path, typed: str, completed: set[str]
) -> None:
    words = f"mobiledet-runner {typed}"
    done = run_script(
        console_script,
        _MOBILEDET_RUNNER_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
    )
    assert set(done.stdout.split()) == completed
    assert set(json.loads(done.stderr.splitlines()[-1])).isdisjoint(HEAVY)


def test_the_completion_that_the_program_shows_is_its_own(console_script: Path) -> None:
    shown = run_script(
        console_script, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert shown.returncode == 0
    assert shown.stdout.rstrip().splitlines()[-1].endswith("_completion mobiledet-runner")


def test_a_module_that_python_runs_offers_no_completion() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "--help"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "completion" not in done.stdout


def runner(*arguments: str | Path, stdout: int | IO[str] = subprocess.PIPE) -> tuple[int, str]:
    """Run the program and return its exit code and what it printed to stderr."""
    command = [sys.executable, "-m", "runner", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.as_root
def test_a_full_disk_of_the_output_exits_6(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "nr_inodes=1") as small:
        exit_code, said = runner("normalize", TINY_DETECTOR / "fp32.run0.tflite", small / "out.tflite")
        assert list(small.iterdir()) == []
    assert exit_code == 6
    assert f"error: the disk that contains {small} is full\n" in said


def test_a_result_that_cannot_be_printed_exits_6() -> None:
    with Path("/dev/full").open("w") as full:
        exit_code, said = runner("inspect", TINY_DETECTOR / "fp32.run0.tflite", stdout=full)
    assert exit_code == 6
    assert said == "error: a disk is full\n  try: free some space\n"


@pytest.mark.parametrize(("before", "exit_code"), [((), 130), (("nohup",), 7)])
def test_a_hangup_ends_it_unless_nohup_is_before_it(
    serve: Serve, tmp_path: Path, before: tuple[str, ...], exit_code: int
) -> None:
    is_asked, goes_on = threading.Event(), threading.Event()

    def answer(request: Request) -> None:
        is_asked.set()
        goes_on.wait(timeout=60)
        request.send_error(404)

    command = [*before, sys.executable, "-m", "runner", "fetch", "--url", f"{serve(answer)}/model.tar.gz"]
    env = {**os.environ, "RUNNER_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=env, stderr=subprocess.PIPE, text=True) as program:
        assert is_asked.wait(timeout=60)
        program.send_signal(signal.SIGHUP)
        if before:
            goes_on.set()
        _, said = program.communicate(timeout=60)
        goes_on.set()
    assert program.returncode == exit_code, said
    assert ("stopped by SIGHUP" in said) == (exit_code == 130)
