"""An interrupted or failed conversion is reported, leaves no process or partial file, and keeps inputs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from runner.host.digests import digest_file
from runner.host.output_dir import WORK_PREFIX, OutputDir
from runner.toolchain.pins import PROJECT_ROOT
from tests.disks import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.engines.base import Engine
    from tests.integration.conftest import Program

EXPORTING = "$ export_tflite_ssd_graph.py"
WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Running:
    """A conversion of the fp32 stand-in in a separate process."""

    process: subprocess.Popen[str]
    out_dir: Path

    def wait_until_it_says(self, words: str) -> None:
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if words in line:
                return
        pytest.fail("".join(seen))

    def finish(self) -> tuple[int, str]:
        """Return the exit code and the output since the last call."""
        _, stderr = self.process.communicate()
        return self.process.returncode, stderr


def convert(model_dir: Path, out_dir: Path) -> tuple[str, ...]:
    """Return a command that converts, whatever is in the cache."""
    return ("fp32", "--model-dir", str(model_dir), "--out", str(out_dir), "--force")


@contextlib.contextmanager
def converting(
    program: Program, model_dir: Path, out_dir: Path, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Convert in a separate process group, like a command on a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *convert(model_dir, out_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
        env={
            **os.environ,
            "RUNNER_ENGINE": program.engine_name,
            "PYTHONPATH": str(PROJECT_ROOT),
            **(env or {}),
        },
        start_new_session=True,
    )
    with process:
        try:
            yield Running(process=process, out_dir=out_dir)
        finally:
            process.kill()


def processes_about(folder: Path) -> list[str]:
    """Return the command lines of processes that still run for a folder, in a container or not."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or belongs to somebody else
            command_line = (process / "cmdline").read_bytes()
            if os.fsencode(folder) in command_line + (process / "environ").read_bytes():
                found.append(command_line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def containers_about(folder: Path) -> list[str]:
    with contextlib.closing(docker.from_env()) as client:
        containers = client.api.containers(all=True, filters={"label": "mobiledet-runner"})
    return [
        container["Id"]
        for container in containers
        if any(mount["Source"].startswith(str(folder)) for mount in container["Mounts"])
    ]


def assert_nothing_runs_for(out_dir: Path, engine_name: str) -> None:
    """Check that nothing runs for a folder. After a kill, child processes need a moment to notice."""
    deadline = time.monotonic() + WAIT_S
    while (left := processes_about(out_dir)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    if engine_name == "docker":
        while (left := containers_about(out_dir)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == []


@pytest.fixture
def model_dir(stand_in_dir: Path) -> Iterator[Path]:
    """The stand-in, which must not be changed."""
    before = fingerprint(stand_in_dir)
    yield stand_in_dir
    assert fingerprint(stand_in_dir) == before


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (digest_file(path).sha256, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    """An output directory that contains a foreign file."""
    made = tmp_path / "öut of it"
    made.mkdir()
    (made / "notes.txt").write_text("mine")
    return made


def files_in(out_dir: Path) -> list[str]:
    return sorted(str(path.relative_to(out_dir)) for path in out_dir.rglob("*"))


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
)
def test_signal_ends_a_conversion_and_all_it_started(
    program: Program, model_dir: Path, out_dir: Path, number: signal.Signals
) -> None:
    with converting(program, model_dir, out_dir) as running:
        running.wait_until_it_says(EXPORTING)
        if number == signal.SIGINT:
            os.killpg(running.process.pid, number)  # as Ctrl-C on a terminal does
        else:
            running.process.send_signal(number)
        exit_code, said = running.finish()
    assert exit_code == 130
    assert f"error: stopped by {number.name}" in said
    assert "Traceback" not in said
    assert processes_about(out_dir) == []
    assert_nothing_runs_for(out_dir, program.engine_name)
    assert files_in(out_dir) == ["notes.txt"]


def test_killed_program_leaves_nothing_running_and_no_final_file(
    program: Program, model_dir: Path, out_dir: Path
) -> None:
    with converting(program, model_dir, out_dir) as running:
        running.wait_until_it_says(EXPORTING)
        running.process.kill()
        exit_code, _ = running.finish()
    assert exit_code == -signal.SIGKILL
    assert_nothing_runs_for(out_dir, program.engine_name)
    left = [path.name for path in out_dir.iterdir() if not path.name.startswith(WORK_PREFIX)]
    assert left == ["notes.txt"]
    with OutputDir.at(out_dir).work_dir() as next_work_dir:
        assert sorted(path.name for path in out_dir.iterdir()) == [next_work_dir.name, "notes.txt"]


def test_too_little_memory_is_named(program: Program, model_dir: Path, out_dir: Path) -> None:
    done = program(*convert(model_dir, out_dir), "--memory-mib", "100")
    assert done.exit_code == 5
    assert "ran out of memory" in done.stderr
    assert "of 100 MiB" in done.stderr
    assert "raise --memory-mib" in done.stderr
    assert files_in(out_dir) == ["notes.txt"]


def test_too_little_time_is_named(program: Program, model_dir: Path, out_dir: Path) -> None:
    done = program(*convert(model_dir, out_dir), "--timeout-s", "1")
    assert done.exit_code == 5
    assert "ran longer than 1 s" in done.stderr
    assert "raise --timeout-s" in done.stderr
    assert_nothing_runs_for(out_dir, program.engine_name)
    assert files_in(out_dir) == ["notes.txt"]


# Graph and .tflite files are 17 MB each: the disk is full in the middle of the export, or at the very end.
@pytest.mark.as_root
@pytest.mark.parametrize("size", ["8m", "44m"])
def test_full_disk_is_named(program: Program, model_dir: Path, tmp_path: Path, size: str) -> None:
    with small_disk(tmp_path / "small", f"size={size}") as out_dir:
        done = program(*convert(model_dir, out_dir), "--no-check")
        assert done.exit_code == 6, done.stderr
        assert "full" in done.stderr.splitlines()[-2]
        assert "free some space" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr.splitlines()[-2]
        assert files_in(out_dir) == []


@pytest.mark.as_root
def test_output_directory_that_cannot_be_written_is_named(
    program: Program, model_dir: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "ro") as out_dir:
        done = program("fp32", "--model-dir", model_dir, "--out", out_dir)
    assert done.exit_code == 2
    assert f"cannot write to the output directory {out_dir}: Read-only file system" in done.stderr


@pytest.mark.parametrize("where", [".", "fp32", "fp32/deeper", ".."])
def test_output_directory_in_or_around_the_model_is_refused(
    program: Program, model_dir: Path, tmp_path: Path, where: str
) -> None:
    link = tmp_path / "link"
    link.symlink_to(model_dir)
    done = program("fp32", "--model-dir", model_dir, "--out", link / where)
    assert done.exit_code == 2
    assert "overlap" in done.stderr
    assert "outside the model" in done.stderr


def test_file_of_somebody_else_is_not_replaced(program: Program, model_dir: Path, out_dir: Path) -> None:
    (out_dir / "ssd_mobiledets.f32.tflite").write_text("mine, too")
    done = program("fp32", "--model-dir", model_dir, "--out", out_dir)
    assert done.exit_code == 2
    assert "was not made by this tool" in done.stderr
    assert (out_dir / "ssd_mobiledets.f32.tflite").read_text() == "mine, too"


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A separate Docker daemon for a test."""

    process: subprocess.Popen[bytes]
    address: str


@contextlib.contextmanager
def own_daemon() -> Iterator[Daemon]:
    """Start a daemon with its own socket and data folder, and without a network, which sessions do not need.

    It gets namespaces of its own as well: a daemon that starts without a bridge removes docker0, and with it
    the network of the daemon that is already there; and its mounts end with it.
    """
    folder = Path(tempfile.mkdtemp(prefix="daemon-"))
    address = f"unix://{folder}/docker.sock"
    command = ["unshare", "--net", "--mount", "--", "dockerd"]
    command += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    command += ["--pidfile", f"{folder}/pid", "--host", address, "--bridge", "none", "--iptables=false"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    with process:
        try:
            deadline = time.monotonic() + WAIT_S
            while not is_up(address):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            yield Daemon(process=process, address=address)
        finally:
            process.kill()
            remove_daemon(folder)


def remove_daemon(folder: Path) -> None:
    """End the processes that a killed daemon left behind, and unmount its mounts."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if os.fsencode(folder) in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(folder)


def is_up(address: str) -> bool:
    # Not by the SDK: it leaves its socket open when nobody answers.
    asked = subprocess.run(["docker", "--host", address, "version"], capture_output=True, check=False)
    return asked.returncode == 0


def copy_image(image_id: str, daemon: Daemon) -> None:
    """Give a daemon an image of ours, under all its names."""
    with contextlib.closing(docker.from_env()) as ours:
        names = ours.images.get(image_id).tags
    with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as saved:
        subprocess.run(["docker", "--host", daemon.address, "load"], stdin=saved.stdout, check=True)


@pytest.mark.slow
@pytest.mark.as_root
@pytest.mark.engine("docker")
def test_daemon_that_dies_in_the_middle_is_named(
    engine: Engine, program: Program, model_dir: Path, out_dir: Path
) -> None:
    with own_daemon() as daemon:
        copy_image(engine.prepare().id, daemon)
        with converting(program, model_dir, out_dir, {"DOCKER_HOST": daemon.address}) as running:
            running.wait_until_it_says(EXPORTING)
            daemon.process.kill()
            exit_code, said = running.finish()
    assert exit_code == 3
    # It dies while the export runs, or just before: what is said of the moment differs, the reason does not.
    assert "error: the toolchain stopped unexpectedly" in said
    assert ": the connection to the Docker daemon was lost" in said
    assert "Docker removes it at its next start" in said
    assert files_in(out_dir) == ["notes.txt"]
