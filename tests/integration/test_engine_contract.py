"""The contract of all engines: argv, folders, output lines and exit codes behave the same."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.commands.options import ToolchainOptions, choose_engine
from runner.engines.base import Folders, Job
from runner.errors import EngineError, OutOfMemoryError, OutputMissingError, ScriptError, ScriptTimeoutError
from runner.scripts.run import Script, ScriptOptions, require_output, run_script
from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from runner.engines.base import Engine, JobResult, Session

WORDS = (
    "plain",
    "with  blanks",
    " ",
    "",
    "-",
    "--flag=a b",
    "ü € 漢",
    "'quoted\"",
    "$HOME `id` \\n;|&",
    "a\nb\tc",
)
PATIENCE_S = 60.0
NAME = "with  blanks, ü 漢 'quoted\""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only input folder with an unusual name."""
    folder = tmp_path_factory.mktemp("in") / NAME
    folder.mkdir()
    (folder / "an input").write_text("the input\n")
    return folder


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writable folder with an unusual name."""
    folder = tmp_path_factory.mktemp("out") / NAME
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def opened(engine: Engine, inputs: Path, outputs: Path) -> Iterator[Session]:
    with engine.open(Folders(read_only=(inputs,), writable=(outputs,)), {"OF_THE_SESSION": "a b"}) as session:
        yield session


def python(program: str, *words: str) -> tuple[str, ...]:
    return ("python3", "-c", program, *words)


def test_a_toolchain_that_does_not_start_says_why_to_all_who_wait(engine: Engine, outputs: Path) -> None:
    with engine.open(Folders(writable=(outputs,)), {"RUNNER_SPEEDUPS": "no-such"}) as session:
        for ask in (session.wait_until_ready, lambda: session.run("true")):
            with pytest.raises(EngineError, match="stopped unexpectedly while it started") as caught:
                ask()
            assert caught.value.exit_code == 3
            assert "RUNNER_SPEEDUPS" in caught.value.message
            assert "'no-such'" in caught.value.message


class Gate:
    """A point that a job reports when it reaches it; there it waits until the test lets it continue."""

    program = (
        "import os, sys, time\n"
        "print('waiting', flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
        "print('went on', flush=True)\n"
    )

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"gate of {name}"
        self.argv = python(self.program, str(self._file))
        self.came = threading.Event()
        self.lines: list[str] = []

    def on_line(self, stream: str, line: str) -> None:  # noqa: ARG002 - a Stream
        self.lines.append(line)
        self.came.set()

    def open(self) -> None:
        self._file.touch()


# --- argv, folders, environment ---------------------------------------------------------------------------


def test_every_word_of_argv_arrives_as_it_is(opened: Session) -> None:
    result = opened.run(*python("import json, sys; print(json.dumps(sys.argv[1:]))", *WORDS))
    assert result.exit_code == 0
    assert json.loads(result.stdout[0]) == list(WORDS)


def test_the_toolchain_is_python_3_7_with_tensorflow_1_15_and_its_tools(opened: Session) -> None:
    program = "import sys, tensorflow; print(sys.version_info[:2], tensorflow.__version__)"
    assert opened.run(*python(program)).stdout == ("(3, 7) 1.15.0",)
    for tool in ("toco", "tflite_convert", "export_tflite_ssd_graph.py", "export_inference_graph.py"):
        assert opened.run("sh", "-c", 'command -v "$1"', "sh", tool).exit_code == 0, tool
    assert opened.run("test", "-d", str(opened.toolchain_dir / "steps")).exit_code == 0


def test_folders_are_seen_under_their_own_paths(opened: Session, inputs: Path, outputs: Path) -> None:
    copied = outputs / "a copy ü"
    result = opened.run("cp", str(inputs / "an input"), str(copied))
    assert (result.exit_code, result.stderr) == (0, ())
    assert copied.read_text() == "the input\n"


def test_what_is_written_belongs_to_the_caller(opened: Session, outputs: Path) -> None:
    written = outputs / "written"
    assert opened.run("touch", str(written)).exit_code == 0
    assert (written.stat().st_uid, written.stat().st_gid) == (os.getuid(), os.getgid())


def test_the_job_starts_in_the_folder_it_was_given(opened: Session, outputs: Path) -> None:
    result = opened.run_job(Job(argv=("pwd",), cwd=outputs))
    assert result.stdout == (str(outputs),)


def test_the_environment_is_the_sessions_and_the_jobs_and_nobody_elses(
    engine: Engine, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_USER", "leaked")
    monkeypatch.setenv("PYTHONPATH", "/leaked")
    with engine.open(Folders(writable=(outputs,)), {"OF_THE_SESSION": "a b"}) as session:
        result = session.run_job(Job(argv=("env",), env={"OF_THE_JOB": "c ü"}))
    assert {"OF_THE_SESSION=a b", "OF_THE_JOB=c ü", "CUDA_VISIBLE_DEVICES="} <= set(result.stdout)
    assert not [line for line in result.stdout if "leaked" in line]


def test_scripts_leave_read_only_inputs_as_they_were(opened: Session, inputs: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in inputs.iterdir()}
    result = opened.run("sh", "-c", 'cat "$1"/*', "sh", str(inputs))
    assert result.stdout == ("the input",)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in inputs.iterdir()} == before


# --- exit codes and lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2, 42, 126, 255])
def test_the_exit_code_comes_back(opened: Session, code: int) -> None:
    assert opened.run("sh", "-c", f"exit {code}").exit_code == code


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV])
def test_a_job_that_a_signal_ends_gives_128_and_its_number(opened: Session, number: signal.Signals) -> None:
    result = opened.run(*python("import os, sys; os.kill(os.getpid(), int(sys.argv[1]))", str(int(number))))
    assert result.exit_code == 128 + number
    assert not result.timed_out
    assert not result.out_of_memory


def test_a_command_that_does_not_exist_gives_127_and_its_name(opened: Session) -> None:
    result = opened.run("no-such-command")
    assert result.exit_code == 127
    assert "no-such-command" in result.stderr[0]


def test_lines_come_back_by_stream_and_in_order(opened: Session) -> None:
    program = (
        "import sys\n"
        "for number in range(1000): print('out', number, 'ü')\n"
        "for number in range(1000): print('err', number, file=sys.stderr)\n"
        "sys.stdout.write('no line end')\n"
    )
    result = opened.run(*python(program))
    assert result.stdout == (*(f"out {number} ü" for number in range(1000)), "no line end")
    assert result.stderr == tuple(f"err {number}" for number in range(1000))


def test_lines_come_while_the_job_runs(opened: Session, outputs: Path) -> None:
    gate = Gate(outputs, "lines")
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(opened.run_job, Job(argv=gate.argv), gate.on_line)
        assert gate.came.wait(PATIENCE_S)
        assert gate.lines == ["waiting"]
        assert not job.done()
        gate.open()
        assert job.result(PATIENCE_S).stdout == ("waiting", "went on")


def test_the_resources_of_a_job_are_reported(opened: Session) -> None:
    # Memory is sampled: the job lasts long enough to be seen.
    program = "import time; block = b'x' * (100 << 20); sum(range(3_000_000)); time.sleep(1)"
    result = opened.run(*python(program))
    assert result.peak_memory_mib >= 100
    assert result.cpu_s > 0
    assert result.wall_s > 0


# --- several at once, and an end before the end -----------------------------------------------------------


def test_several_jobs_run_at_the_same_time(opened: Session, outputs: Path) -> None:
    gates = [Gate(outputs, f"job {number}") for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(opened.run_job, Job(argv=gate.argv), gate.on_line) for gate in gates]
        assert all(gate.came.wait(PATIENCE_S) for gate in gates)
        for gate in gates:
            gate.open()
        assert [job.result(PATIENCE_S).exit_code for job in jobs] == [0, 0, 0]


def test_a_job_that_crashes_harms_no_other(opened: Session, outputs: Path) -> None:
    gate = Gate(outputs, "neighbour")
    with ThreadPoolExecutor(1) as pool:
        neighbour = pool.submit(opened.run_job, Job(argv=gate.argv), gate.on_line)
        assert gate.came.wait(PATIENCE_S)
        assert opened.run("sh", "-c", "kill -SEGV $$").exit_code == 139
        gate.open()
        assert neighbour.result(PATIENCE_S).exit_code == 0


class LockedFile:
    """A lock that a job holds while it is alive and that the kernel releases when it ends."""

    program = (
        "import fcntl, sys, time\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "time.sleep(600)\n"
    )

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"lock of {name}"
        self.argv = python(self.program, str(self._file))
        self.came = threading.Event()

    def on_line(self, stream: str, line: str) -> None:  # noqa: ARG002 - a Stream
        self.came.set()

    def is_free(self) -> bool:
        with self._file.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def gets_free(self) -> bool:
        """Wait until the lock is free; a job that was not ended would hold it for ten minutes."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not self.is_free() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return self.is_free()


def fails_or_ends_badly(job: Future[JobResult]) -> bool:
    problem = job.exception(PATIENCE_S)
    return isinstance(problem, EngineError) if problem is not None else job.result().exit_code != 0


def test_stop_ends_what_runs_and_whoever_waits_is_told(engine: Engine, outputs: Path) -> None:
    lock = LockedFile(outputs, "stopped")
    with engine.open(Folders(writable=(outputs,)), {}) as session, ThreadPoolExecutor(1) as pool:
        job = pool.submit(session.run_job, Job(argv=lock.argv), lock.on_line)
        assert lock.came.wait(PATIENCE_S)
        session.stop()
        assert fails_or_ends_badly(job)
        assert lock.gets_free()


def test_a_job_whose_waiting_is_interrupted_ends_and_the_session_goes_on(
    opened: Session, outputs: Path
) -> None:
    class Interrupt(BaseException):
        """An exception that a signal handler raises."""

    def interrupt(stream: str, line: str) -> None:  # noqa: ARG001 - a Stream
        raise Interrupt

    lock = LockedFile(outputs, "interrupted")
    with pytest.raises(Interrupt):
        opened.run_job(Job(argv=lock.argv), interrupt)
    assert lock.gets_free()
    assert opened.run("echo", "still here").stdout == ("still here",)


def test_a_session_that_is_left_leaves_no_job_running(engine: Engine, outputs: Path) -> None:
    lock = LockedFile(outputs, "left")
    with ThreadPoolExecutor(1) as pool:
        with engine.open(Folders(writable=(outputs,)), {}) as session:
            job = pool.submit(session.run_job, Job(argv=lock.argv), lock.on_line)
            assert lock.came.wait(PATIENCE_S)
        assert fails_or_ends_badly(job)
        assert lock.gets_free()


def test_a_server_that_is_killed_under_a_job_is_an_engine_error(engine: Engine, outputs: Path) -> None:
    lock = LockedFile(outputs, "killed server")
    with engine.open(Folders(writable=(outputs,)), {}) as session, ThreadPoolExecutor(1) as pool:
        job = pool.submit(session.run_job, Job(argv=lock.argv), lock.on_line)
        assert lock.came.wait(PATIENCE_S)
        kill_server(engine, session)
        with pytest.raises(EngineError, match=r"stopped unexpectedly while python3 ran: .*137") as caught:
            job.result(PATIENCE_S)
        assert caught.value.exit_code == 3
        assert lock.gets_free()


def kill_server(engine: Engine, session: Session) -> None:
    if engine.name == "docker":
        (container,) = session.run("hostname").stdout
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
    else:
        (server,) = session.run(*python("import os; print(os.getppid())")).stdout
        os.kill(int(server), signal.SIGKILL)


RUN_IN_A_SESSION = """
import os, sys
from pathlib import Path
from runner.commands.options import ToolchainOptions, choose_engine
from runner.engines.base import Folders, Job
engine = choose_engine(ToolchainOptions(engine=sys.argv[1], base_image=os.environ.get("RUNNER_BASE_IMAGE")))
with engine.open(Folders(writable=(Path(sys.argv[2]),)), {}) as session:
    session.run_job(Job(argv=tuple(sys.argv[3:])), lambda stream, line: print(line, flush=True))
"""


def test_a_runner_that_is_killed_leaves_no_job_running(engine: Engine, outputs: Path) -> None:
    lock = LockedFile(outputs, "killed runner")
    command = [sys.executable, "-c", RUN_IN_A_SESSION, engine.name, str(outputs), *lock.argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "locked\n"
        runner.kill()
    assert lock.gets_free()


# --- limits -----------------------------------------------------------------------------------------------


def script(outputs: Path, *argv: str, timeout_s: float = 60.0, memory_mib: int = 1000) -> Script:
    options = ScriptOptions(log_dir=outputs / "logs", timeout_s=timeout_s, memory_mib=memory_mib)
    return Script(name="a script", argv=argv, log_name="a.log", options=options)


def test_a_job_that_runs_too_long_is_ended_and_named(opened: Session, outputs: Path) -> None:
    lock = LockedFile(outputs, "too long")
    with pytest.raises(ScriptTimeoutError, match="ran longer than 1 s") as caught:
        run_script(opened, script(outputs, *lock.argv, timeout_s=1.0))
    assert caught.value.exit_code == 5
    assert lock.is_free()


def test_a_job_that_will_not_end_is_killed(opened: Session) -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    result = opened.run_job(Job(argv=python(program), timeout_s=0.5))
    assert result.timed_out
    assert result.exit_code == 128 + signal.SIGKILL


def test_a_job_that_takes_too_much_memory_is_ended_and_named(opened: Session, outputs: Path) -> None:
    greedy = "import time\nblocks = []\nwhile True: blocks.append(bytearray(10 << 20)); time.sleep(0.02)"
    with pytest.raises(OutOfMemoryError, match=r"out of memory .* of 200 MiB") as caught:
        run_script(opened, script(outputs, *python(greedy), memory_mib=200))
    assert caught.value.script_exit_code == 128 + signal.SIGKILL
    assert opened.run("echo", "still here").stdout == ("still here",)


def test_a_script_that_fails_is_named_with_its_code_log_and_last_lines(
    opened: Session, outputs: Path
) -> None:
    with pytest.raises(ScriptError, match="a script ended with code 9") as caught:
        run_script(opened, script(outputs, "sh", "-c", "echo the reason >&2; exit 9"))
    assert caught.value.script_exit_code == 9
    assert caught.value.last_lines == ("the reason",)
    assert caught.value.log is not None
    assert caught.value.log.read_text() == "the reason\n"


def test_the_meaning_of_a_signal_is_part_of_the_message(opened: Session, outputs: Path) -> None:
    with pytest.raises(ScriptError, match=r"a script ended with code 139 \(SIGSEGV\)") as caught:
        run_script(opened, script(outputs, "sh", "-c", "kill -SEGV $$"))
    assert caught.value.script_exit_code == 128 + signal.SIGSEGV


@pytest.mark.parametrize("command", ["true", 'touch "$1"'])
def test_a_script_that_succeeds_and_writes_nothing_is_an_error(
    opened: Session, outputs: Path, command: str
) -> None:
    product = outputs / f"product of {len(command)}"
    made_by = script(outputs, "sh", "-c", command, "sh", str(product))
    run_script(opened, made_by)
    with pytest.raises(OutputMissingError, match="reported success but wrote no product") as caught:
        require_output(product, made_by)
    assert caught.value.exit_code == 6


# --- what only a container promises -----------------------------------------------------------------------


@pytest.mark.engine("docker")
def test_a_container_writes_nowhere_but_to_its_writable_folders(inputs: Path, outputs: Path) -> None:
    engine = choose_engine(ToolchainOptions(engine="docker", base_image=os.environ.get("RUNNER_BASE_IMAGE")))
    engine.prepare()
    with engine.open(Folders(read_only=(inputs,), writable=(outputs,)), {}) as session:
        for place in (inputs / "new", Path("/opt/toolchain/new"), Path("/usr/new")):
            result = session.run("touch", str(place))
            assert result.exit_code != 0
            assert "Read-only file system" in result.stderr[0]
        assert session.run(*python("import socket; socket.create_connection(('1.1.1.1', 53))")).exit_code == 1
    assert [path.name for path in inputs.iterdir()] == ["an input"]
