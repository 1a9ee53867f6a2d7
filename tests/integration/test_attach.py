"""`exec` and `shell`: a user's own command in the toolchain, on pipes and on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Program

# A shell that waits for another command does not pass signals on; it is that one which says it is ready.
SLEEP_IN_A_SHELL = "sh -c 'echo ready; exec sleep 100'; echo not reached"
SILENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """A program on its own terminal."""

    process: subprocess.Popen[bytes]
    fd: int

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def read_until(self, text: str) -> str:
        seen = b""
        while text.encode() not in seen:
            readable, _, _ = select.select([self.fd], [], [], SILENCE_S)
            assert readable, seen
            seen += os.read(self.fd, 4096)
        return seen.decode()


def command_line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "runner", *map(str, arguments)]


@pytest.fixture
def environment(program: Program) -> dict[str, str]:
    return {**os.environ, "RUNNER_ENGINE": program.engine_name, "PYTHONPATH": str(PROJECT_ROOT)}


@pytest.fixture
def terminal(tmp_path: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """A shell in the toolchain, on a terminal with 33 lines and 101 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command_line("shell", "--out", tmp_path / "out")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=PROJECT_ROOT,
        env={**environment, "PS1": "$ "},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process=process, fd=ours)
    finally:
        # Leave as a user does: a program that is killed leaves the user's own shell running.
        os.write(ours, b"exit\n")
        process.wait(SILENCE_S)
        os.close(ours)


# What `login` does: make the terminal the one that sends this session's signals.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_exit_code_and_both_streams_come_back(program: Program, tmp_path: Path) -> None:
    done = program("exec", "--out", tmp_path, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.exit_code, done.stdout) == (7, "out\n")
    assert done.stderr.endswith("err\n")


def test_arguments_arrive_as_they_are(program: Program, tmp_path: Path) -> None:
    words = ("a b", "ü€", "$HOME", "*", "", "-x", "--out")
    done = program("exec", "--out", tmp_path, "printf", "<%s>", *words)
    assert done.stdout == "".join(f"<{word}>" for word in words)


def test_folders_keep_their_names_and_are_in_the_variables(program: Program, tmp_path: Path) -> None:
    model_dir, out_dir = tmp_path / "mödel dir", tmp_path / "öut dir"
    model_dir.mkdir()
    (model_dir / "weights").write_text("from the model")
    done = program(
        "exec",
        *("--model-dir", model_dir, "--out", out_dir, "--"),
        *("sh", "-c", 'cp "$TF_MODEL_DIR/weights" "$TFLITE_MODEL_DIR/cöpy"; echo "$TF_MODEL_DIR"'),
    )
    assert done.stdout == f"{model_dir}\n"
    assert (out_dir / "cöpy").read_text() == "from the model"
    assert (out_dir / "cöpy").stat().st_uid == os.getuid()


def test_relative_path_of_a_published_line_is_found(program: Program, tmp_path: Path) -> None:
    done = program("exec", "--out", tmp_path, "ls", "object_detection/export_tflite_ssd_graph.py")
    assert done.exit_code == 0, done.stderr


def test_shell_runs_a_script_from_stdin(program: Program, tmp_path: Path) -> None:
    done = program("shell", "--out", tmp_path, stdin="read -r word\nwört\necho got $word\nexit 3\n")
    assert (done.exit_code, done.stdout) == (3, "got wört\n")


def test_interactive_shell_runs_a_published_path(terminal: Terminal) -> None:
    terminal.type("object_detection/export_tflite_ssd_graph.py --no_such_flag; echo code $((40 + $?))\n")
    terminal.read_until("code 42")


def test_command_that_is_not_there_ends_with_127(program: Program, tmp_path: Path) -> None:
    done = program("exec", "--out", tmp_path, "no-such-command")
    assert done.exit_code == 127
    assert "no-such-command" in done.stderr
    assert "No such file or directory" in done.stderr


def test_exec_without_a_command_is_a_usage_error(program: Program, tmp_path: Path) -> None:
    done = program("exec", "--out", tmp_path)
    assert done.exit_code == 2
    assert "COMMAND" in done.stderr.upper()


def test_misspelt_option_is_not_taken_for_a_command(program: Program, tmp_path: Path) -> None:
    done = program("exec", "--modeldir", tmp_path, "ls")
    assert done.exit_code == 2
    assert "--model-dir" in done.stderr


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program whose command has just reported that it is ready; it is ended afterwards."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=PROJECT_ROOT,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_reaches_what_a_shell_waits_for(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    command = command_line("exec", "--out", tmp_path, "--", "bash", "-c", SLEEP_IN_A_SHELL)
    with running(command, environment) as process:
        process.send_signal(number)
        rest, _ = process.communicate()
    assert process.returncode == 128 + number
    assert rest == ""


def test_command_decides_what_a_signal_means(environment: dict[str, str], tmp_path: Path) -> None:
    program_text = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
    program_text += "print('ready', flush=True)\ntime.sleep(100)\n"
    command = command_line("exec", "--out", tmp_path, "--", "python", "-c", program_text)
    with running(command, environment) as process:
        process.terminate()
    assert process.returncode == 5


def test_command_outlives_a_hangup_under_nohup(environment: dict[str, str], tmp_path: Path) -> None:
    command = command_line("exec", "--out", tmp_path, "--", "sh", "-c", "echo ready; sleep 1; exit 3")
    with running(["nohup", *command], environment) as process:
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 3


def test_terminal_has_the_size_of_the_callers_and_follows_it(terminal: Terminal) -> None:
    terminal.type("stty size\n")
    terminal.read_until("33 101")
    terminal.resize(44, 122)
    terminal.type("until [ \"$(stty size)\" = '44 122' ]; do sleep 0.1; done; echo 'it ''fits'\n")
    terminal.read_until("it fits")


def test_ctrl_c_on_a_terminal_ends_what_runs_and_not_the_shell(terminal: Terminal) -> None:
    terminal.type("python -c \"import time; print('rea' + 'dy', flush=True); time.sleep(100)\"\n")
    terminal.read_until("ready")
    terminal.type("\x03")
    terminal.read_until("KeyboardInterrupt")
    terminal.type("printf '<%s>\\n' gr'ü'n; exit 6\n")
    terminal.read_until("<grün>")
    assert terminal.process.wait() == 6
