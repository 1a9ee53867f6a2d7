"""Starting the program: with a Python that has nothing installed, and with signals that are to be ignored."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import venv
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Request, Serve


def test_a_python_without_our_packages_is_told_the_one_command_that_sets_it_up(tmp_path: Path) -> None:
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


def test_the_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "--version"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


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
