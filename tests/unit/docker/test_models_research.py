"""The script that fetches and verifies tensorflow/models, with loopback servers at each address."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import os
import socket
import struct
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT
from tests.unit.fixtures.small_project import (
    GENERATED,
    PROTO,
    TREE,
    blob_id,
    reply,
    reply_status,
    sdist,
    tarball,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

    from tests.servers import Answer, Request, Serve
    from tests.unit.fixtures.small_project import Project

EXPORTER = "research/object_detection/exporter.py"
ALTERED = {**TREE, EXPORTER: b"def export():\n    steal()\n"}


@pytest.fixture
def run(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> DownloadRun:
    return DownloadRun(project, monkeypatch, capsys)


class DownloadRun:
    """Runs the script's main on a project."""

    def __init__(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.project = project
        self.output = project.root / "out" / "models"
        self._script = load_script()
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, kind: str, *flags: str) -> None:
        arguments = [
            "--source",
            kind,
            "--pin",
            str(self.project.pin_file),
            "--output",
            str(self.output),
            *flags,
        ]
        self._monkeypatch.setattr(sys, "argv", ["models_research.py", *arguments])
        self._script.main()

    def refused(self, kind: str, *flags: str, exit_code: int = 7) -> str:
        """Return the message of a run that must fail and must leave nothing behind."""
        with pytest.raises(SystemExit) as exited:
            self(kind, *flags)
        assert exited.value.code == exit_code
        assert not self.output.exists()
        assert not self.output.parent.exists() or not list(self.output.parent.iterdir())
        return self._capsys.readouterr().err

    def written(self) -> dict[str, bytes]:
        files = [path for path in self.output.rglob("*") if path.is_file()]
        return {path.relative_to(self.output).as_posix(): path.read_bytes() for path in files}

    def record(self) -> dict[str, object]:
        record: dict[str, object] = json.loads((self.output / "models-research.json").read_text())
        return record


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "models_research", PROJECT_ROOT / "docker/models_research.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


# --- the proof --------------------------------------------------------------------------------------------


def test_a_tree_is_taken_when_every_file_is_the_pinned_one(run: DownloadRun, serve: Serve) -> None:
    run.project.point_to(github=serve(reply(tarball(TREE))))
    run("github")
    files = run.written()
    del files["models-research.json"]
    assert files == TREE
    assert run.record()["proven_files"] == len(TREE)
    manifest_sha256 = hashlib.sha256(run.project.manifest.read_bytes()).hexdigest()
    assert run.record()["manifest_sha256"] == manifest_sha256


def test_a_file_with_other_content_is_named(run: DownloadRun, serve: Serve) -> None:
    run.project.point_to(github=serve(reply(tarball(ALTERED))))
    message = run.refused("github")
    assert EXPORTER in message
    assert blob_id(ALTERED[EXPORTER]) in message
    assert blob_id(TREE[EXPORTER]) in message


def test_a_manifest_entry_altered_by_one_character_names_its_file(run: DownloadRun, serve: Serve) -> None:
    right = blob_id(TREE[EXPORTER])
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    run.project.manifest.write_text(run.project.manifest.read_text().replace(right, wrong))
    run.project.point_to(github=serve(reply(tarball(TREE))))
    assert EXPORTER in run.refused("github")


def test_a_missing_file_is_named(run: DownloadRun, serve: Serve) -> None:
    rest = {name: content for name, content in TREE.items() if name != EXPORTER}
    run.project.point_to(github=serve(reply(tarball(rest))))
    assert f"1 of 3 files are missing: {EXPORTER}" in run.refused("github")


def test_a_declared_gap_is_the_sdists_alone(run: DownloadRun, serve: Serve) -> None:
    rest = {name: content for name, content in TREE.items() if name != EXPORTER}
    run.project.point_to(github=serve(reply(tarball(rest))), lacks=("research/object_detection/*.py",))
    assert EXPORTER in run.refused("github")


def test_only_files_of_the_manifest_are_unpacked(run: DownloadRun, serve: Serve) -> None:
    strangers = {
        "research/object_detection/extra.py": b"extra",
        "research/lfads/other.py": b"other",
        "../../escaped.py": b"escaped",
        "research/../../escaped.py": b"escaped",
        "/research/slim/absolute.py": b"absolute",
    }
    run.project.point_to(github=serve(reply(tarball({**strangers, **TREE}))))
    run("github")
    assert run.written().keys() == {*TREE, "models-research.json"}
    assert not list(run.project.root.rglob("escaped.py"))


def test_a_link_in_the_place_of_a_file_is_refused(run: DownloadRun, tmp_path: Path) -> None:
    packed = tmp_path / "models.tar"
    with tarfile.open(packed, "w") as archive:
        member = tarfile.TarInfo(EXPORTER)
        member.type = tarfile.SYMTYPE
        member.linkname = "/etc/passwd"
        archive.addfile(member)
    assert f"{EXPORTER}: in the archive" in run.refused("local", "--path", str(packed))


@pytest.mark.parametrize(
    "line",
    [
        "e69de29  research/slim/short_id.py",
        f"{'e' * 40}  /etc/passwd",
        f"{'e' * 40}  research/../../escaped.py",
        f"{'e' * 40}  research/slim//double.py",
    ],
)
def test_a_malformed_manifest_line_is_named(run: DownloadRun, line: str) -> None:
    with run.project.manifest.open("a") as manifest:
        manifest.write(line + "\n")
    message = run.refused("github", exit_code=2)
    assert "small.manifest, line 4" in message
    assert line in message


# --- GitHub -----------------------------------------------------------------------------------------------


def cut_short(content: bytes) -> Answer:
    """Announce the full length, send half, and close the connection."""

    def answer(request: Request) -> None:
        reply_half = content[: len(content) // 2]
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(reply_half)

    return answer


def reset(request: Request) -> None:
    """Reset the connection in the middle of the answer."""
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"\x1f\x8b")
    request.wfile.flush()
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply_status(404), "the server answered 404"),
        (cut_short(tarball({**TREE, "research/slim/large.py": os.urandom(1 << 16)})), "reading it failed"),
        (reset, "reading it failed"),
        (reply(b"<html>Please log in</html>", "text/html"), "reading it failed"),
    ],
)
def test_a_bad_answer_of_github_is_named(run: DownloadRun, serve: Serve, answer: Answer, reason: str) -> None:
    url = serve(answer)
    run.project.point_to(github=url)
    message = run.refused("github")
    assert url in message
    assert reason in message


def test_a_server_that_is_not_there_is_named(run: DownloadRun) -> None:
    run.project.point_to(github="http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in (message := run.refused("github"))
    assert "cannot be reached" in message


# --- PyPI -------------------------------------------------------------------------------------------------


def index(files: Mapping[str, bytes], *, speaks_json: bool, password: str | None = None) -> Answer:
    """Answer as a package index with one project, and serve its files."""

    def answer(request: Request) -> None:
        wanted = f"Basic {base64.b64encode(password.encode()).decode()}" if password else None
        name = request.path.rpartition("/")[2]
        if wanted and request.headers["Authorization"] != wanted:
            reply_status(401)(request)
        elif name in files:
            reply(files[name])(request)
        elif request.path != "/simple/thing/":
            reply_status(404)(request)
        elif speaks_json:
            listed = [{"filename": name, "url": f"/files/{name}"} for name in files]
            content = json.dumps({"files": listed}).encode()
            reply(content, "application/vnd.pypi.simple.v1+json")(request)
        else:
            links = "".join(f'<a href="../../files/{name}#sha256=00">{name}</a>' for name in files)
            reply(f"<html><body>{links}</body></html>".encode(), "text/html")(request)

    return answer


@pytest.fixture
def stand_in(run: DownloadRun) -> bytes:
    """An sdist with the generated module in place of a .proto, pinned."""
    run.project.pin({**TREE, PROTO: b"syntax = 'proto2';\n"})
    content = sdist({**TREE, GENERATED: b"# made by protoc\n"})
    lacks = ("research/object_detection/protos/*.proto",)
    run.project.point_to(sha256=hashlib.sha256(content).hexdigest(), lacks=lacks)
    return content


@pytest.mark.parametrize("speaks_json", [True, False])
def test_the_sdist_brings_its_generated_modules(
    run: DownloadRun, serve: Serve, stand_in: bytes, monkeypatch: pytest.MonkeyPatch, *, speaks_json: bool
) -> None:
    url = serve(index({"thing-0.1.tar.gz": stand_in}, speaks_json=speaks_json))
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple/")
    run("pypi")
    assert run.written().keys() == {*TREE, GENERATED, "models-research.json"}
    assert run.record()["lacking"] == [PROTO]
    assert run.record()["vouched_for_by_the_sdist"] == [GENERATED]
    assert run.record()["proven_files"] == len(TREE)


def test_a_generated_module_has_to_be_there(
    run: DownloadRun, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = sdist(TREE)
    run.project.pin({**TREE, PROTO: b"syntax = 'proto2';\n"})
    run.project.point_to(sha256=hashlib.sha256(content).hexdigest(), lacks=(PROTO,))
    url = serve(index({"thing-0.1.tar.gz": content}, speaks_json=True))
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    assert f"missing: {GENERATED}" in run.refused("pypi")


def test_an_sdist_with_another_sha256_is_refused_unread(
    run: DownloadRun, serve: Serve, stand_in: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(index({"thing-0.1.tar.gz": stand_in + b"\0"}, speaks_json=True))
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    message = run.refused("pypi")
    assert hashlib.sha256(stand_in).hexdigest() in message
    assert "thing-0.1.tar.gz" in message


def test_an_index_without_the_sdist_is_named(
    run: DownloadRun, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(index({"thing-0.2.tar.gz": b""}, speaks_json=True))
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    assert f"{url}/simple/thing/: the index does not offer thing-0.1.tar.gz" in run.refused("pypi")


def test_the_password_of_a_private_index_is_used_and_not_shown(
    run: DownloadRun, serve: Serve, stand_in: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"thing-0.1.tar.gz": stand_in}
    url = serve(index(files, speaks_json=False, password="me:s3cret"))
    monkeypatch.setenv("PIP_INDEX_URL", f"{url.replace('//', '//me:wrong@')}/simple")
    message = run.refused("pypi")
    assert "401" in message
    assert "wrong" not in message
    monkeypatch.setenv("PIP_INDEX_URL", f"{url.replace('//', '//me:s3cret@')}/simple")
    run("pypi")
    assert GENERATED in run.written()


# --- a local tree -----------------------------------------------------------------------------------------


def write_tree(folder: Path, files: Mapping[str, bytes] = TREE) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_checkout_is_taken_without_what_was_made_in_it(run: DownloadRun, tmp_path: Path) -> None:
    run.project.pin({**TREE, PROTO: b"syntax = 'proto2';\n"})
    made = {PROTO: b"syntax = 'proto2';\n", GENERATED: b"# of an unknown protoc\n"}
    run("local", "--path", str(write_tree(tmp_path / "checkout", {**TREE, **made})))
    assert run.written().keys() == {*TREE, PROTO, "models-research.json"}


@pytest.mark.parametrize("top", ["", "models-9d1a/", "./"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_a_tarball_is_accepted_with_any_folder_above_research(
    run: DownloadRun, tmp_path: Path, top: str, suffix: str
) -> None:
    packed = tmp_path / f"models{suffix}"
    with tarfile.open(str(packed), f"w:{suffix[5:]}") as archive:  # type: ignore[call-overload] # a mode at run time
        for name, content in TREE.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    run("local", "--path", str(packed))
    assert run.written().keys() == {*TREE, "models-research.json"}


def test_an_altered_file_of_a_checkout_is_named(run: DownloadRun, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "checkout", ALTERED)
    assert EXPORTER in run.refused("local", "--path", str(folder))


def test_a_file_that_is_no_tarball_is_named(run: DownloadRun, tmp_path: Path) -> None:
    (tmp_path / "models.tar").write_bytes(b"no tar")
    assert f"{tmp_path}/models.tar: reading it failed" in run.refused(
        "local", "--path", str(tmp_path / "models.tar")
    )


# --- the request ------------------------------------------------------------------------------------------


def test_the_local_source_needs_a_path_and_the_others_take_none(run: DownloadRun, tmp_path: Path) -> None:
    assert "--path" in run.refused("local", exit_code=2)
    assert "--path" in run.refused("github", "--source", str(tmp_path), exit_code=2)


def test_a_folder_that_is_there_is_left_alone(
    run: DownloadRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.output.mkdir(parents=True)
    with pytest.raises(SystemExit, match="2"):
        run("local", "--path", str(write_tree(tmp_path / "checkout")))
    assert "already exists" in capsys.readouterr().err
    assert not list(run.output.iterdir())


def test_a_pin_file_without_the_section_is_refused(run: DownloadRun) -> None:
    run.project.pin_file.write_text("[github]\n")
    assert "[pypi]" in run.refused("pypi", exit_code=2)


def test_a_protoc_that_fails_is_a_failed_build(run: DownloadRun, tmp_path: Path) -> None:
    # The Python of the host has no grpc_tools: a protoc that cannot run.
    files = {**TREE, PROTO: b"syntax = 'proto2';\n"}
    run.project.pin(files)
    folder = write_tree(tmp_path / "checkout", files)
    flags = ("--path", str(folder), "--protoc-python", sys.executable)
    assert "protoc ended with exit code 1" in run.refused("local", *flags, exit_code=4)
