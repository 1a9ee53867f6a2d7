"""The CPython that the local engine installs, from a small archive on a loopback server.

uv is the real one. What is in the archive is a script that answers as a CPython 3.7 does.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runner.engines.local.engine import LocalEngine
from runner.engines.local.interpreter import find_interpreter
from runner.engines.local.own_python import find_own_python, install_python
from runner.errors import BuildError, DownloadError, EngineError, IntegrityError, UsageError
from runner.host.cache_dir import cache_dir
from runner.toolchain.pins import PYTHON_PIN_FILE, PythonPin, load_python_pin
from tests.loopback import send
from tests.python_archive import NAME, pack_files, pin_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Request, Serve


# uv looks at this file of an installation.
HEADER = b"# system configuration generated and used by the sysconfig module\n"
LIBRARY = {"lib/python3.7/_sysconfigdata_m_linux_x86_64-linux-gnu.py": HEADER + b"build_time_vars = {}\n"}


@pytest.fixture
def archive(python37: Path) -> bytes:
    return pack_files({**LIBRARY, "bin/python3.7": python37.read_bytes()})


@pytest.fixture
def pin(archive: bytes, serve: Serve, tmp_path: Path, answers: list[Callable[[Request], None]]) -> PythonPin:
    """A pin of that archive; the server answers with the first of ``answers`` as long as there is one."""

    def answer(request: Request) -> None:
        if answers:
            answers.pop(0)(request)
        else:
            send(request, archive)

    (tmp_path / PYTHON_PIN_FILE).write_text(pin_text(archive, version="3.7.17", url=serve(answer)))
    return load_python_pin(tmp_path)


@pytest.fixture
def answers() -> list[Callable[[Request], None]]:
    return []


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No CPython 3.7 on PATH, in pyenv or in conda."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    for name in ("PYENV_ROOT", "ASDF_DATA_DIR", "RUNNER_PYTHON"):
        monkeypatch.delenv(name, raising=False)


def everything_in_the_cache() -> list[str]:
    folder = cache_dir() / "pythons"
    return sorted(path.name for path in folder.glob("*/*"))


def test_it_is_installed_and_found(pin: PythonPin, capsys: pytest.CaptureFixture[str]) -> None:
    executable = install_python(pin)
    answer = json.loads(subprocess.run([executable], capture_output=True, check=True).stdout)
    assert answer["version"] == "3.7.17"
    assert find_own_python(pin) == executable
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("-> install"))
    assert line == f"-> install CPython 3.7.17 ({pin.size_bytes} bytes) from {pin.url}"


def test_it_is_downloaded_once_and_the_archive_does_not_stay(pin: PythonPin, answers: list[Any]) -> None:
    executable = install_python(pin)
    answers.append(lambda request: pytest.fail(f"asked again: {request.path}"))
    assert install_python(pin) == executable
    assert not any(name.endswith(".zst") for name in everything_in_the_cache())


@pytest.mark.parametrize("as_url", [False, True], ids=["path", "file URL"])
def test_a_local_archive_is_only_read(
    pin: PythonPin,
    archive: bytes,
    answers: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_url: bool,
) -> None:
    local = tmp_path / "no ending"
    local.write_bytes(archive)
    local.chmod(0o400)
    answers.append(lambda request: pytest.fail(f"asked for {request.path}"))
    monkeypatch.setenv("RUNNER_PYTHON_ARCHIVE", local.as_uri() if as_url else str(local))
    assert install_python(pin).exists()
    assert local.read_bytes() == archive


def test_a_mirror_is_asked_instead(
    pin: PythonPin, archive: bytes, answers: list[Any], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.append(lambda request: pytest.fail(f"asked for {request.path}"))
    monkeypatch.setenv("RUNNER_PYTHON_ARCHIVE", serve(lambda request: send(request, archive)) + "/mirrored")
    assert install_python(pin).exists()


def with_last_byte_changed(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("where", ["server", "file"])
@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (with_last_byte_changed, "its sha256 is"),
        (lambda content: content[:-100], "bytes instead of"),
        (lambda content: content + b"more", "bytes instead of"),
        (lambda _: b"<!doctype html><title>Sign in</title>", "an HTML page"),
        (lambda _: b"", "nothing (0 bytes)"),
    ],
    ids=["other byte", "cut", "longer", "HTML", "empty"],
)
def test_what_is_not_the_pinned_archive_is_named_and_the_next_run_repairs(
    pin: PythonPin,
    archive: bytes,
    answers: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alter: Callable[[bytes], bytes],
    words: str,
    where: str,
) -> None:
    if where == "server":
        answers.append(lambda request: send(request, alter(archive)))
    else:
        (tmp_path / NAME).write_bytes(alter(archive))
        monkeypatch.setenv("RUNNER_PYTHON_ARCHIVE", str(tmp_path / NAME))
    with pytest.raises(IntegrityError) as caught:
        install_python(pin)
    assert words in caught.value.message
    assert "RUNNER_PYTHON_ARCHIVE" in (caught.value.tip or "")
    assert find_own_python(pin) is None
    monkeypatch.delenv("RUNNER_PYTHON_ARCHIVE", raising=False)
    assert install_python(pin).exists()


def test_an_address_that_has_no_such_file_is_named(pin: PythonPin, answers: list[Any]) -> None:
    answers.append(lambda request: request.send_error(404))
    with pytest.raises(DownloadError, match="404"):
        install_python(pin)


def test_a_file_that_is_not_there_is_named(pin: PythonPin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_PYTHON_ARCHIVE", "/nowhere/python.tar.zst")
    with pytest.raises(UsageError, match=r"/nowhere/python\.tar\.zst"):
        install_python(pin)


def test_an_archive_without_an_interpreter_is_named(serve: Serve, tmp_path: Path) -> None:
    archive = pack_files(LIBRARY)
    url = serve(lambda request: send(request, archive))
    (tmp_path / PYTHON_PIN_FILE).write_text(pin_text(archive, version="3.7.17", url=url))
    with pytest.raises(BuildError, match="could not be installed"):
        install_python(load_python_pin(tmp_path))


def test_a_download_that_breaks_off_goes_on_in_the_next_run(
    pin: PythonPin, archive: bytes, answers: list[Any]
) -> None:
    """A run that is killed during the download leaves a part; the next run requests the rest."""
    ranges: list[str | None] = []

    def half(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(archive)))
        request.send_header("ETag", '"1"')
        request.end_headers()
        request.wfile.write(archive[: len(archive) // 2])
        request.wfile.flush()
        os.kill(killed.pid, signal.SIGKILL)

    def rest(request: Request) -> None:
        ranges.append(request.headers.get("Range"))
        begin = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {begin}-{len(archive) - 1}/{len(archive)}")
        request.send_header("Content-Length", str(len(archive) - begin))
        request.send_header("ETag", '"1"')
        request.end_headers()
        request.wfile.write(archive[begin:])

    answers += [half, rest]
    program = f"""
from runner.engines.local.own_python import install_python
from runner.toolchain.pins import PythonPin
install_python({pin!r})
"""
    killed = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert find_own_python(pin) is None
    assert install_python(pin).exists()
    assert ranges != []


# --- in the engine ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bare_machine")
def test_without_an_installed_one_the_engine_can_run_and_says_what_it_would_install(
    pin: PythonPin, tmp_path: Path
) -> None:
    available = LocalEngine(root=tmp_path).availability()
    assert available.can_run
    assert available.reason == f"CPython 3.7.17 can be installed from {pin.url} ({pin.size_bytes} bytes)"
    assert everything_in_the_cache() == []


@pytest.mark.usefixtures("bare_machine")
def test_once_installed_it_is_the_interpreter_with_its_build_and_archive(
    pin: PythonPin, tmp_path: Path
) -> None:
    install_python(pin)
    found = find_interpreter(root=tmp_path)
    assert (found.version, found.build, found.archive_sha256) == ("3.7.17", "stand-in 20261124", pin.sha256)


@pytest.mark.usefixtures("bare_machine")
def test_an_installed_one_comes_first(
    pin: PythonPin, tmp_path: Path, python37: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_python(pin)
    monkeypatch.setenv("PATH", str(python37.parent))
    assert find_interpreter(root=tmp_path).archive_sha256 is None


@pytest.mark.usefixtures("bare_machine", "pin")
def test_one_that_is_asked_for_by_name_is_not_replaced(tmp_path: Path) -> None:
    engine = LocalEngine(root=tmp_path, python="/nowhere/python3.7")
    assert not engine.availability().can_run
    with pytest.raises(EngineError, match="/nowhere"):
        engine.prepare()
    assert everything_in_the_cache() == []


@pytest.mark.usefixtures("bare_machine", "pin")
@pytest.mark.parametrize(
    ("setting", "is_allowed", "words"),
    [("never", True, "RUNNER_PYTHON_DOWNLOAD=never"), ("", False, "--no-python-download")],
)
def test_installing_one_can_be_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, is_allowed: bool, words: str
) -> None:
    monkeypatch.setenv("RUNNER_PYTHON_DOWNLOAD", setting)
    engine = LocalEngine(root=tmp_path, python_download=is_allowed)
    assert words in engine.availability().reason
    with pytest.raises(EngineError, match=words) as caught:
        engine.prepare()
    assert caught.value.exit_code == 3
    assert "pyenv install" in (caught.value.tip or "")


@pytest.mark.usefixtures("bare_machine", "pin")
def test_an_invalid_setting_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_PYTHON_DOWNLOAD", "perhaps")
    with pytest.raises(UsageError, match="RUNNER_PYTHON_DOWNLOAD=perhaps"):
        LocalEngine(root=tmp_path).availability()


@pytest.mark.usefixtures("bare_machine", "pin")
@pytest.mark.parametrize(
    ("function", "answer", "words"),
    [("machine", "aarch64", "aarch64"), ("libc_ver", ("", ""), "musl")],
)
def test_other_machines_are_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, answer: object, words: str
) -> None:
    monkeypatch.setattr(platform, function, lambda: answer)
    engine = LocalEngine(root=tmp_path)
    assert words in engine.availability().reason
    with pytest.raises(EngineError, match=words) as caught:
        engine.prepare()
    assert "Docker" in (caught.value.tip or "")


@pytest.mark.usefixtures("bare_machine")
def test_an_archive_that_cannot_be_reached_leaves_the_engine_unusable(
    pin: PythonPin, tmp_path: Path, answers: list[Any]
) -> None:
    answers.append(lambda request: request.send_error(404))
    available = LocalEngine(root=tmp_path).availability()
    assert not available.can_run
    assert f"{pin.url} cannot be reached: HTTP status 404" in available.reason
