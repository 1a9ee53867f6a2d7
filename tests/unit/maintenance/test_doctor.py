from __future__ import annotations

import hashlib
import json
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import docker
import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.engines.docker.inspection import DaemonFacts
from runner.engines.local.interpreter import find_interpreter
from runner.engines.local.plan import EnvironmentPlan
from runner.engines.local.store import environments_dir
from runner.host.cpu import cpu_flags
from runner.maintenance.doctor.docker import daemon_finding, users_finding
from runner.maintenance.doctor.findings import Finding, State
from runner.maintenance.doctor.local import avx_finding
from runner.toolchain.models_source import PYPI
from runner.toolchain.pins import load_models_pin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REAL_FROM_ENV = docker.from_env
REAL_CLIENT = docker.DockerClient


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_daemon: None) -> None:  # noqa: ARG001
    """A machine without daemon, interpreter or network, except for a proxy that refuses requests."""
    monkeypatch.setattr(docker, "from_env", REAL_FROM_ENV)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setenv("RUNNER_PYTHON", "/nowhere/python3.7")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    for name in ("PIP_INDEX_URL", "ALL_PROXY", "all_proxy", "RUNNER_BASE_IMAGE", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))


@pytest.fixture
def interpreter(python37: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_PYTHON", str(python37))


@pytest.fixture
def environment(interpreter: None) -> None:  # noqa: ARG001
    plan = EnvironmentPlan(
        interpreter=find_interpreter(), source=PYPI, models_commit=PYPI.commit(load_models_pin())
    )
    home = environments_dir() / plan.key
    (home / "env-1/bin").mkdir(parents=True)
    (home / "env-1/bin/python").symlink_to("/bin/sh")
    (home / "whole.json").write_text('{"folder": "env-1"}')


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package index on loopback."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield
        server.shutdown()
        thread.join()


def doctor(*options: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, ["doctor", *options], catch_exceptions=False)
    return result.exit_code, result.stdout.splitlines()


def doctor_json(*options: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads("\n".join(doctor("--json", *options)[1]))
    return report


def states(report: dict[str, Any]) -> dict[str, str]:
    return {finding["subject"]: finding["state"] for finding in report["findings"]}


def test_with_nothing_installed_it_exits_3_and_ends_with_the_first_thing_to_do() -> None:
    code, lines = doctor()
    assert code == 3
    assert lines[-1].startswith("not ready: start it (`systemctl start docker`), or use `--engine local`")


def test_every_line_says_how_it_is_and_every_problem_what_to_do() -> None:
    _, lines = doctor()
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "warning", "problem"}
    report = doctor_json()
    assert all(it["remedy"] for it in report["findings"] if it["state"] == "problem")
    assert states(report) == {
        "Docker daemon": "problem",
        "local engine": "problem",
        "processor": states(report)["processor"],
        "PyPI": "problem",
        "tensorflow/models": "warning",
        "model zoo": "warning",
        "disk": states(report)["disk"],
        "memory": states(report)["memory"],
    }


def test_asked_for_local_without_an_interpreter_it_says_how_to_get_one() -> None:
    code, lines = doctor("--engine", "local")
    assert code == 3
    assert "pyenv install 3.7.17" in lines[-1]


@pytest.mark.usefixtures("interpreter")
def test_without_a_daemon_auto_means_local_and_needs_pypi_to_build_it() -> None:
    report = doctor_json()
    assert (report["engine"], report["ready"], report["is_built"]) == ("local", False, False)
    assert "PIP_INDEX_URL" in report["first_to_do"]


@pytest.mark.usefixtures("interpreter", "index")
def test_an_interpreter_and_an_index_are_enough_to_be_ready() -> None:
    code, lines = doctor()
    assert code == 0
    assert lines[-1] == "ready: engine local, the first run builds its toolchain, which takes minutes"


@pytest.mark.usefixtures("environment")
def test_with_a_whole_environment_no_network_is_needed() -> None:
    report = doctor_json()
    assert states(report)["PyPI"] == "problem"
    assert (report["ready"], report["is_built"]) == (True, True)
    assert doctor("--engine", "local")[1][-1] == "ready: engine local, its toolchain is built"


@pytest.mark.usefixtures("environment")
def test_asked_for_docker_a_ready_local_engine_does_not_count() -> None:
    code, lines = doctor("--engine", "docker")
    assert code == 3
    assert lines[-1].startswith("not ready: start it")


@pytest.mark.usefixtures("interpreter", "index")
def test_a_disk_without_room_to_build_is_the_first_thing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.maintenance.doctor.local.NEEDED_DISK_MB", 10**9)
    code, lines = doctor()
    assert code == 3
    assert "RUNNER_CACHE_DIR" in lines[-1]


def test_a_daemon_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.maintenance.doctor.docker.CONNECT_TIMEOUT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        report = doctor_json()
    assert "does not answer" in report["findings"][0]["text"]


def test_a_docker_context_that_leads_nowhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr(docker, "DockerClient", REAL_CLIENT)
    make_context(tmp_path / "docker-config", "far", "tcp://127.0.0.1:9")
    (daemon, *_) = doctor_json()["findings"]
    assert "the Docker context 'far' (tcp://127.0.0.1:9) is not running" in daemon["text"]


def make_context(config: Path, name: str, host: str) -> None:
    meta = config / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}))
    (config / "config.json").write_text(json.dumps({"currentContext": name}))


def test_an_unknown_engine_or_source_is_refused() -> None:
    result = CliRunner().invoke(app, ["doctor", "--engine", "podman"])
    assert "--engine podman" in str(result.exception)
    assert states(doctor_json("--models", "/nowhere"))["tensorflow/models"] == "problem"


FACTS = DaemonFacts(
    source="the default socket",
    version="27.1",
    architecture="x86_64",
    memory_mib=8000,
    is_rootless=False,
    remaps_users=False,
    is_remote=False,
)


@pytest.mark.parametrize(
    ("facts", "state", "word"),
    [
        (FACTS, State.GOOD, "27.1, x86_64"),
        (replace(FACTS, architecture="aarch64"), State.WARNING, "emulated"),
        (replace(FACTS, is_remote=True), State.WARNING, "cannot see your folders"),
        (replace(FACTS, memory_mib=1000), State.WARNING, "give Docker at least 2048 MiB"),
    ],
)
def test_a_daemon_is_judged_by_what_it_says_of_itself(facts: DaemonFacts, state: State, word: str) -> None:
    finding = daemon_finding(facts)
    assert finding.state is state
    assert word in str(finding)


def test_a_daemon_that_remaps_users_cannot_write_for_the_caller() -> None:
    assert users_finding(replace(FACTS, remaps_users=True)).state is State.PROBLEM
    assert "uid 0 in the container is your user" in users_finding(replace(FACTS, is_rootless=True)).text
    assert users_finding(FACTS).state is State.GOOD


def test_a_processor_without_avx_is_a_problem_with_its_exit_codes_and_ways_out() -> None:
    finding = avx_finding("processor", frozenset({"sse4_2"}))
    assert finding.state is State.PROBLEM
    for word in ("132", "134", "docker context", "QEMU", "Rosetta"):
        assert word in str(finding)
    assert avx_finding("processor", frozenset({"avx"})).state is State.GOOD


@pytest.mark.parametrize(
    ("cpuinfo", "flags"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n",
            {"fpu", "avx", "avx2"},
        ),
        ("Features\t: fp asimd\n", set()),
        ("", set()),
    ],
)
def test_the_flags_of_a_processor_are_read_from_cpuinfo(cpuinfo: str, flags: set[str]) -> None:
    assert cpu_flags(cpuinfo) == flags


def test_a_finding_is_one_line_with_what_to_do() -> None:
    finding = Finding(subject="disk", state=State.PROBLEM, text="is full", remedy="free some space")
    assert str(finding) == "problem  disk: is full; free some space"
