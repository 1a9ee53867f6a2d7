"""The real toolchain server, run with this Python and without preloaded modules."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.locations import DOCKER_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30.0


class Client:
    """The client side of the protocol."""

    def __init__(self, *arguments: str, toolchain: Path = DOCKER_DIR) -> None:
        self.process = subprocess.Popen(
            [sys.executable, toolchain / "server" / "server.py", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send(self, **request: object) -> None:
        self.send_raw(json.dumps(request).encode() + b"\n")

    def send_raw(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        event: dict[str, Any] = json.loads(self.process.stdout.readline())
        return event

    def wait_for(self, **wanted: object) -> dict[str, Any]:
        """Read events up to the first with these fields."""
        while True:
            event = self.event()
            if all(event.get(name) == value for name, value in wanted.items()):
                return event

    def run(self, *argv: str, **more: object) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """Run a job; return its lines and its exit event."""
        self.send(op="run", id="job", argv=argv, **more)
        lines = []
        while (event := self.event())["event"] == "line":
            lines.append((event["stream"], event["text"]))
        return lines, event

    def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    assert client.event()["event"] == "ready"
    with client.process:
        yield client
        client.process.kill()


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    """Yield a server for tests that do not change its state."""
    client = Client()
    assert client.event()["event"] == "ready"
    with client.process:
        yield client
        client.process.kill()


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_server_reports_when_it_is_ready() -> None:
    client = Client()
    ready = client.event()
    assert ready["event"] == "ready"
    assert ready["pid"] == client.process.pid
    assert ready["python"].startswith("3.")
    assert ready["tensorflow"] is None
    assert ready["threads"] == 1
    with client.process:
        assert client.close() == 0


def test_preload_of_a_module_that_is_not_there_fails_loudly() -> None:
    client = Client("--preload", "no_such_module_here")
    _, stderr = client.process.communicate(timeout=PATIENCE_S)
    assert client.process.returncode == 1
    assert b"no_such_module_here" in stderr


def test_lines_of_both_streams_and_exit_code_are_reported(shared: Client) -> None:
    lines, end = shared.run("sh", "-c", "echo one; echo two >&2; exit 7")
    assert sorted(lines) == [("stderr", "two"), ("stdout", "one")]
    assert end["event"] == "exit"
    assert (end["exit_code"], end["signal"]) == (7, None)
    assert end["timed_out"] is False
    assert end["out_of_memory"] is False
    assert end["wall_s"] > 0
    assert end["cpu_s"] >= 0


def test_line_is_sent_while_the_job_still_runs(shared: Client) -> None:
    shared.send(op="run", id="slow", argv=["sh", "-c", "echo first; exec sleep 60"])
    assert shared.event()["text"] == "first"
    shared.send(op="kill", id="slow")
    assert shared.wait_for(event="exit")["signal"] == signal.SIGTERM


def test_last_line_needs_no_end(shared: Client) -> None:
    lines, _ = shared.run("printf", "one\\ntwo")
    assert lines == [("stdout", "one"), ("stdout", "two")]


def test_more_output_than_a_pipe_holds_arrives_whole(shared: Client) -> None:
    lines, end = shared.run(*python("for n in range(20_000): print('line', n)"))
    assert lines == [("stdout", f"line {n}") for n in range(20_000)]
    assert end["exit_code"] == 0


def test_non_ascii_and_broken_output_stays_readable(shared: Client) -> None:
    lines, _ = shared.run(*python(r"import os; os.write(1, 'größe 模\n'.encode() + b'a\xffb\n')"))
    assert lines == [("stdout", "größe 模"), ("stdout", "a\ufffdb")]


def test_signal_that_ends_a_job_is_reported(shared: Client) -> None:
    _, end = shared.run(*python("import os; os.abort()"))
    assert (end["exit_code"], end["signal"]) == (None, signal.SIGABRT)
    assert end["out_of_memory"] is False


def test_unknown_command_exits_127(shared: Client) -> None:
    lines, end = shared.run("no-such-command")
    assert end["exit_code"] == 127
    assert lines == [("stderr", "no-such-command: command not found")]


def test_missing_folder_exits_126(shared: Client, tmp_path: Path) -> None:
    lines, end = shared.run("true", cwd=str(tmp_path / "none"))
    assert end["exit_code"] == 126
    assert "none" in lines[0][1]


def test_folder_and_environment_are_the_jobs(shared: Client, tmp_path: Path) -> None:
    lines, _ = shared.run("sh", "-c", 'pwd; echo "$GREETING"', cwd=str(tmp_path), env={"GREETING": "grüß"})
    assert lines == [("stdout", str(tmp_path.resolve())), ("stdout", "grüß")]


def test_job_reads_an_empty_stdin(shared: Client) -> None:
    lines, end = shared.run("cat")
    assert (lines, end["exit_code"]) == ([], 0)


def test_job_leads_its_own_session_and_is_killed_before_the_server(shared: Client) -> None:
    lines, _ = shared.run(
        *python(
            "import os; print(os.getsid(0) == os.getpid(), open('/proc/self/oom_score_adj').read().strip())"
        )
    )
    assert lines == [("stdout", "True 500")]


def test_job_has_no_descriptors_of_the_server(shared: Client) -> None:
    shared.send(op="run", id="other", argv=["sleep", "60"])
    lines, _ = shared.run(*python("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"))
    shared.send(op="kill", id="other")
    shared.wait_for(event="exit", id="other")
    assert lines == [("stdout", "[0, 1, 2]")]


def test_jobs_run_side_by_side(shared: Client) -> None:
    shared.send(op="run", id="long", argv=["sleep", "60"])
    shared.send(op="run", id="short", argv=["echo", "done"])
    assert shared.wait_for(event="exit")["id"] == "short"
    shared.send(op="kill", id="long")
    assert shared.wait_for(event="exit")["id"] == "long"


def test_crash_of_one_job_leaves_the_others(shared: Client) -> None:
    shared.send(
        op="run", id="steady", argv=["sh", "-c", "trap 'exit 5' TERM; echo; while :; do sleep 0.05; done"]
    )
    shared.event()
    _, crashed = shared.run(*python("import ctypes; ctypes.string_at(0)"))
    assert crashed["signal"] == signal.SIGSEGV
    shared.send(op="kill", id="steady")
    assert shared.wait_for(event="exit", id="steady")["exit_code"] == 5


def test_time_out_ends_the_job_and_all_it_started(shared: Client) -> None:
    lines, end = shared.run("sh", "-c", "sleep 60 & echo $!; wait", timeout_s=0.3)
    assert end["timed_out"] is True
    assert end["signal"] == signal.SIGTERM
    wait_until_gone(int(lines[0][1]))


def test_killed_job_is_not_called_timed_out(shared: Client) -> None:
    shared.send(op="run", id="job", argv=["sleep", "60"], timeout_s=30)
    shared.send(op="kill", id="job")
    end = shared.wait_for(event="exit")
    assert end["signal"] == signal.SIGTERM
    assert end["timed_out"] is False


def test_what_a_job_leaves_running_ends_with_it(shared: Client) -> None:
    lines, end = shared.run("sh", "-c", "sleep 60 & echo $!")
    assert end["exit_code"] == 0
    wait_until_gone(int(lines[0][1]))


def test_job_over_its_memory_is_killed_and_called_that(shared: Client) -> None:
    _, end = shared.run(*python("import time; held = bytearray(256 << 20); time.sleep(60)"), memory_mib=100)
    assert end["out_of_memory"] is True
    assert end["signal"] == signal.SIGKILL
    assert end["peak_memory_mib"] > 100


def test_memory_of_all_a_job_started_counts(shared: Client) -> None:
    hold = f"{sys.executable} -c 'import time; held = bytearray(80 << 20); time.sleep(60)'"
    _, end = shared.run("sh", "-c", f"{hold} & {hold} & wait", memory_mib=120)
    assert end["out_of_memory"] is True


def test_job_killed_by_somebody_else_is_not_called_out_of_memory(shared: Client) -> None:
    _, end = shared.run("sh", "-c", "kill -9 $$")
    assert end["signal"] == signal.SIGKILL
    assert end["out_of_memory"] is False


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a toolchain that tests can add scripts to."""
    copy = tmp_path_factory.mktemp("toolchain") / "docker"
    shutil.copytree(DOCKER_DIR, copy, ignore=shutil.ignore_patterns("manifests", "*.lock", "__pycache__"))
    return copy


@pytest.fixture
def script(toolchain: Path) -> Path:
    return toolchain / "steps" / "made_by_a_test.py"


@pytest.fixture(scope="module")
def own(toolchain: Path) -> Iterator[Client]:
    """Yield a server for that toolchain."""
    client = Client(toolchain=toolchain)
    assert client.event()["event"] == "ready"
    with client.process:
        yield client
        client.process.kill()


def test_own_script_runs_in_a_fork_of_the_server(own: Client, script: Path) -> None:
    script.write_text(
        "import os, sys\nprint(os.getppid(), __name__, sys.argv[1:], sys.path[0])\nsys.exit(3)\n"
    )
    for command in ((str(script),), ("python", str(script))):
        lines, end = own.run(*command, "a b", "--c")
        said = f"{own.process.pid} __main__ ['a b', '--c'] {script.parent}"
        assert (lines, end["exit_code"]) == ([("stdout", said)], 3)


def test_own_script_by_name_on_path_runs_in_a_fork_too(own: Client, toolchain: Path) -> None:
    lines, end = own.run("toco", "--mean_valeus=1", env={"PATH": str(toolchain / "bin")})
    assert end["exit_code"] == 2
    assert lines[0] == ("stderr", "toco: unknown flag --mean_valeus")


def test_preloaded_module_is_there_for_scripts(toolchain: Path, script: Path) -> None:
    script.write_text("import sys\nprint('colorsys' in sys.modules)\n")
    client = Client("--preload", "colorsys", toolchain=toolchain)
    with client.process:
        client.wait_for(event="ready")
        assert client.run(str(script))[0] == [("stdout", "True")]
        client.close()


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("raise SystemExit", 0, None),
        ("raise SystemExit(-1)", 255, None),
        ("raise SystemExit('that will not do')", 1, "that will not do"),
        ("raise KeyError('lost')", 1, "KeyError: 'lost'"),
        ("import atexit; atexit.register(print, 'tidied')", 0, "tidied"),
        ("import threading; threading.Thread(target=print, args=['joined']).start()", 0, "joined"),
    ],
)
def test_own_script_ends_as_under_python(
    own: Client, script: Path, code: str, exit_code: int, said: str | None
) -> None:
    script.write_text(code + "\n")
    lines, end = own.run(str(script))
    assert end["exit_code"] == exit_code
    assert (lines[-1][1] if lines else None) == said


def test_traceback_of_an_own_script_begins_with_the_script(own: Client, script: Path) -> None:
    script.write_text("raise KeyError('lost')\n")
    lines, _ = own.run(str(script))
    assert str(script) in lines[1][1]


def test_own_script_changes_nothing_for_the_next_job(own: Client, script: Path) -> None:
    script.write_text("import os, sys\nprint(os.environ.pop('MARK', None), len(sys.argv))\n")
    lines, _ = own.run(str(script), "x", env={"MARK": "1"})
    assert lines == [("stdout", "1 2")]
    lines, _ = own.run(str(script))
    assert lines == [("stdout", "None 1")]


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"op": "run"}{"op": "run"}'],
)
def test_line_that_is_no_request_is_answered(shared: Client, content: bytes) -> None:
    shared.send_raw(content + b"\n")
    answer = shared.event()
    assert (answer["event"], answer["id"]) == ("error", None)
    assert "bad request" in answer["message"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"op": "dance"}, "op must be run, kill or stop"),
        ({"op": "run", "argv": ["true"]}, "id must be"),
        ({"op": "run", "id": "", "argv": ["true"]}, "id must be"),
        ({"op": "run", "id": "1"}, "argv must be"),
        ({"op": "run", "id": "1", "argv": []}, "argv must be"),
        ({"op": "run", "id": "1", "argv": ["a\0b"]}, "argv must be"),
        ({"op": "run", "id": "1", "argv": "true"}, "argv must be"),
        ({"op": "run", "id": "1", "argv": ["true"], "cwd": 3}, "cwd must be a string"),
        ({"op": "run", "id": "1", "argv": ["true"], "env": {"A": 1}}, "env must map names"),
        ({"op": "run", "id": "1", "argv": ["true"], "env": {"A=B": "1"}}, "env must map names"),
        ({"op": "run", "id": "1", "argv": ["true"], "timeout_s": 0}, "timeout_s must be"),
        ({"op": "run", "id": "1", "argv": ["true"], "memory_mib": True}, "memory_mib must be"),
        ({"op": "run", "id": "1", "argv": ["true"], "timeout": 3}, "unknown field 'timeout'"),
        ({"op": "kill", "id": "nobody"}, "no job 'nobody' is running"),
        ({"op": "kill", "id": ["x"]}, "no job ['x'] is running"),
    ],
)
def test_bad_request_is_answered_with_its_fault(shared: Client, fields: dict[str, Any], said: str) -> None:
    shared.send(**fields)
    answer = shared.event()
    assert answer["event"] == "error"
    assert said in answer["message"]


def test_id_of_a_running_job_is_taken(shared: Client) -> None:
    shared.send(op="run", id="same", argv=["sleep", "60"])
    shared.send(op="run", id="same", argv=["true"])
    assert "already running" in shared.event()["message"]
    shared.send(op="kill", id="same")
    shared.wait_for(event="exit", id="same")


def test_end_of_input_ends_jobs_and_server(client: Client) -> None:
    client.send(op="run", id="1", argv=["sh", "-c", "echo $$; exec sleep 60"])
    pid = int(client.event()["text"])
    assert client.close() == 0
    assert not is_running(pid)


def test_stop_ends_jobs_reports_them_and_exits(client: Client) -> None:
    client.send(op="run", id="1", argv=["sleep", "60"])
    client.send(op="stop")
    assert client.event()["signal"] == signal.SIGTERM
    assert client.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_jobs_and_server(client: Client, number: signal.Signals) -> None:
    client.send(op="run", id="1", argv=["sh", "-c", "echo $$; exec sleep 60"])
    pid = int(client.event()["text"])
    client.process.send_signal(number)
    assert client.process.wait(PATIENCE_S) == 0
    assert not is_running(pid)


def test_jobs_die_with_a_server_that_is_killed(client: Client) -> None:
    client.send(op="run", id="1", argv=["sh", "-c", "echo $$; exec sleep 60"])
    pid = int(client.event()["text"])
    client.process.kill()
    wait_until_gone(pid)


def test_job_that_ignores_the_request_to_end_is_killed() -> None:
    client = Client("--kill-grace-s=0.1")
    client.event()
    client.send(op="run", id="1", argv=["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"])
    client.event()
    client.send(op="kill", id="1")
    assert client.wait_for(event="exit")["signal"] == signal.SIGKILL
    with client.process:
        client.close()


def test_peak_memory_is_that_of_the_job(shared: Client) -> None:
    _, end = shared.run(*python("import time; held = bytearray(64 << 20); time.sleep(0.5)"))
    assert 64 < end["peak_memory_mib"] < 128


def test_client_that_stops_reading_ends_the_server(client: Client) -> None:
    client.send(op="run", id="1", argv=["yes"])
    client.event()
    assert client.process.stdout is not None
    client.process.stdout.close()
    assert client.process.wait(PATIENCE_S) == 0


class Splitter:
    """``LineSplitter``, loaded from the toolchain's folder."""

    def __init__(self) -> None:
        sys.path.insert(0, str(DOCKER_DIR / "server"))
        self.splitter = importlib.import_module("job").LineSplitter()
        sys.path.remove(str(DOCKER_DIR / "server"))

    def lines(self, *chunks: bytes) -> list[str]:
        lines = [line for chunk in chunks for line in self.splitter.feed(chunk)]
        return [*lines, *self.splitter.finish()]


def test_progress_display_gives_a_line_for_each_return() -> None:
    assert Splitter().lines(b"\r 1%\r 50%", b"\r100%\r", b"\ndone\n") == [" 1%", " 50%", "100%", "done"]


def test_empty_lines_are_kept() -> None:
    assert Splitter().lines(b"a\n\nb\r\n\r\n") == ["a", "", "b", ""]


def test_endless_line_is_cut() -> None:
    lines = Splitter().lines(*[b"x" * 50_000] * 4)
    assert len(lines) > 1
    assert "".join(lines) == "x" * 200_000


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"))), st.data())
def test_lines_do_not_depend_on_how_they_arrive(lines: list[str], data: st.DataObject) -> None:
    content = "".join(line + "\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    chunks = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert Splitter().lines(*chunks) == lines
