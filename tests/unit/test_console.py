"""Output on a terminal while variants are converted in parallel, and output elsewhere."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest

from runner import console

PROGRAM = """
import os
from runner import console
from runner.scripts.parallel import run_together

console.print_messages()


class TerminalSession:
    def wait_until_ready(self):
        console.note("the session is ready")

    def stop(self):
        pass


def work(name):
    what = {"fp32": "export the frozen graph", "uint8": "convert with TOCO"}[name]
    with console.step(what, of=name):
        console.note(f"   [{name}] $ export_tflite_ssd_graph.py [x] " + "--long=word " * 20)
    console.result(name)


os.cpu_count = lambda: 1  # one after the other
run_together(TerminalSession(), work, ["fp32", "uint8"], memory_mib=4096)
console.note("after")
"""
TOO_LONG = "   [fp32] $ export_tflite_ssd_graph.py [x] " + "--long=word " * 20


COUNTING = """
from runner import console

console.print_messages()
with console.counting(3, "pictures") as tally:
    for _ in range(3):
        tally.add()
console.result("done")
"""


def said_to_a_terminal(program: str = PROGRAM, **env: str) -> str:
    """Return all that is written to a terminal of 80 columns; results are not."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **env},
    )
    os.close(theirs)
    said = b""
    # An OSError is how a terminal says that its last writer is gone.
    with open(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # noqa: PTH123 - a descriptor
        while chunk := terminal.read(4096):
            said += chunk
    results, _ = child.communicate()
    assert (child.returncode, results) == (0, b"done\n" if program == COUNTING else b"fp32\nuint8\n")
    return said.decode().replace("\r\n", "\n")


def lines_of(said: str) -> list[str]:
    """Return the drawn text line by line, without control sequences."""
    return [line.rstrip() for line in re.split(r"\n|\r", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said))]


def test_a_terminal_has_a_line_for_each_and_whole_commands() -> None:
    said = said_to_a_terminal()
    lines = lines_of(said)
    assert any(re.match(r"\S fp32  export the frozen graph +0:00:00", line) for line in lines)
    assert any(re.match(r"\S uint8 convert with TOCO +0:00:00", line) for line in lines)
    assert TOO_LONG.rstrip() in lines
    assert "   done: [fp32] export the frozen graph (0.0 s)" in lines
    assert not any(line.startswith("-> ") for line in lines)


def test_the_lines_go_away_and_the_cursor_comes_back() -> None:
    said = said_to_a_terminal()
    last_draw, after = said.rsplit("\x1b[2K", 1)
    assert "after" in after
    assert "uint8" in last_draw
    assert "uint8" not in after
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "unknown"}, {"TTY_INTERACTIVE": "0"}])
def test_a_terminal_that_can_do_nothing_gets_plain_lines(env: dict[str, str]) -> None:
    said = said_to_a_terminal(**env)
    assert "\x1b" not in said
    assert "-> [fp32] export the frozen graph\n" in said


IN_ANOTHER_PROGRAM = """
import logging, sys
from runner import console
if "--log" in sys.argv:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
console.note("   a note")
console.warn("a warning")
with console.step("a step"), console.line_for_each(["fp32"]):
    pass
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], []),
        (["--log"], ["INFO runner: a note", "WARNING runner: a warning", "INFO runner: -> a step"]),
    ],
)
def test_another_program_prints_messages_only_if_it_logs_them(arguments: list[str], said: list[str]) -> None:
    command = [sys.executable, "-c", IN_ANOTHER_PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines()[:3] == said


def test_a_pipe_gets_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["fp32", "uint8"]
    assert done.stderr.splitlines() == [
        "the session is ready",
        "-> [fp32] export the frozen graph",
        TOO_LONG,
        "   done: [fp32] export the frozen graph (0.0 s)",
        "-> [uint8] convert with TOCO",
        TOO_LONG.replace("fp32", "uint8"),
        "   done: [uint8] convert with TOCO (0.0 s)",
        "after",
    ]


def test_messages_of_one_thread_can_be_diverted(capsys: pytest.CaptureFixture[str]) -> None:
    from runner import console

    lines: list[str] = []
    with console.diverted(lines.append):
        console.note("for the log")
        with console.step("a step"):
            console.warn("careful")
        other = threading.Thread(target=console.note, args=("from elsewhere",))
        other.start()
        other.join()
    console.note("afterwards")
    assert lines[:3] == ["for the log", "-> a step", "warning: careful"]
    assert lines[3].startswith("   done: a step")
    assert capsys.readouterr().err == "from elsewhere\nafterwards\n"


def test_a_terminal_has_a_bar_while_things_are_counted() -> None:
    said = said_to_a_terminal(COUNTING)
    assert "3 of 3 pictures" in said
    assert "\x1b[2K" in said  # at the end it is erased


def test_rate_and_time_left_do_not_count_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    tally = console.Tally(100, "pictures", lambda _: None)
    tally.add(32, is_kept=True)
    assert tally.text == "32 of 100 pictures"
    clock = 4.0
    tally.add(8)
    assert tally.text == "40 of 100 pictures, 2.0 a second, 30 s left"
    tally.add(60)
    assert tally.text == "100 of 100 pictures"
