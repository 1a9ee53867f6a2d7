"""Downloads from servers that stall, break, lie and refuse: real ones, on loopback."""

from __future__ import annotations

import gzip
import io
import os
import re
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final

import pytest

from runner.content import Content
from runner.download import Limits, download, shown_url
from runner.errors import DownloadError, IntegrityError, UsageError
from runner.unpack import gzip_fault

if TYPE_CHECKING:
    from pathlib import Path

Request = BaseHTTPRequestHandler
Serve = Callable[[Callable[[Request], None]], str]

QUICK: Final = Limits(
    connect_timeout_s=20,
    read_timeout_s=20,
    attempts=3,
    progress_bytes=1000,
    first_wait_s=0.001,
    longest_wait_s=0.002,
    max_bytes=1 << 20,
)
IMPATIENT: Final = replace(QUICK, read_timeout_s=0.3)


def make_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("model/weights")
        info.size = 40_000
        tar.addfile(info, io.BytesIO(bytes(range(256)) * 157))
    return gzip.compress(buffer.getvalue(), compresslevel=0, mtime=0)


ARCHIVE: Final = make_archive()
HALF: Final = len(ARCHIVE) // 2


def get(url: str, target: Path, limits: Limits = QUICK) -> None:
    download(url, target, expected=(Content.GZIP,), fault=gzip_fault, ways_out="the ways out", limits=limits)


def send(
    request: Request,
    body: bytes = ARCHIVE,
    *,
    status: int = 200,
    length: int | None = None,
    etag: str | None = '"v1"',
    **headers: str,
) -> None:
    """Answer; ``length`` is what is announced, ``body`` what is sent before the connection ends."""
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    if etag:
        request.send_header("ETag", etag)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)
    request.close_connection = True


def send_rest(
    request: Request, content: bytes = ARCHIVE, *, cut: int | None = None, etag: str = '"v1"'
) -> None:
    """Honour a range, as good servers do, and break off at ``cut``."""
    asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    start = int(asked[1]) if asked and request.headers.get("If-Range") == etag else 0
    send(
        request,
        content[start:cut],
        status=206 if start else 200,
        length=len(content) - start,
        etag=etag,
        Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}",
    )


class Log(list[Request]):
    """The requests that came, each answered by the next function, the last one for ever."""

    def __init__(self, *answers: Callable[[Request], None]) -> None:
        super().__init__()
        self.answers = answers

    def __call__(self, request: Request) -> None:
        self.append(request)
        self.answers[min(len(self), len(self.answers)) - 1](request)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "model.tar.gz"


def nothing_but(target: Path) -> bool:
    return [path.name for path in target.parent.iterdir()] == [target.name]


class TestGoodServers:
    def test_the_file_arrives_and_nothing_else_stays(self, serve: Serve, target: Path) -> None:
        get(serve(send) + "/model.tar.gz", target)
        assert target.read_bytes() == ARCHIVE
        assert nothing_but(target)

    def test_an_unannounced_length_is_fine(self, serve: Serve, target: Path) -> None:
        def answer(request: Request) -> None:
            request.send_response(200)
            request.end_headers()
            request.wfile.write(ARCHIVE)

        get(serve(answer), target)
        assert target.read_bytes() == ARCHIVE

    def test_a_gz_is_kept_packed_whatever_the_server_calls_it(self, serve: Serve, target: Path) -> None:
        get(serve(lambda request: send(request, Content_Encoding="gzip")), target)
        assert target.read_bytes() == ARCHIVE

    def test_redirects_are_followed(self, serve: Serve, target: Path) -> None:
        elsewhere = serve(send)
        get(serve(lambda request: send(request, b"", status=302, Location=f"{elsewhere}/there")), target)
        assert target.read_bytes() == ARCHIVE

    def test_what_is_there_is_not_fetched_again(self, serve: Serve, target: Path) -> None:
        target.parent.mkdir()
        target.write_bytes(ARCHIVE)
        log = Log(send)
        get(serve(log), target)
        assert log == []

    def test_the_proxy_of_the_environment_is_used(
        self, serve: Serve, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = Log(send)
        monkeypatch.setenv("HTTP_PROXY", serve(log))
        get("http://zoo.invalid/model.tar.gz", target)
        assert [request.path for request in log] == ["http://zoo.invalid/model.tar.gz"]
        assert target.read_bytes() == ARCHIVE


class TestResuming:
    def test_a_broken_line_goes_on_where_it_broke(self, serve: Serve, target: Path) -> None:
        log = Log(lambda request: send_rest(request, cut=HALF), send_rest)
        get(serve(log), target)
        assert [request.headers.get("Range") for request in log] == [None, f"bytes={HALF}-"]
        assert target.read_bytes() == ARCHIVE

    def test_a_reset_connection_goes_on_as_well(self, serve: Serve, target: Path) -> None:
        def reset(request: Request) -> None:
            send(request, ARCHIVE[:HALF], length=len(ARCHIVE))
            linger_for_nothing = struct.pack("ii", 1, 0)  # close by RST, not by FIN
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_nothing)
            os.close(request.connection.detach())

        get(serve(Log(reset, send_rest)), target)
        assert target.read_bytes() == ARCHIVE

    def test_a_stalled_line_goes_on_after_the_timeout(self, serve: Serve, target: Path) -> None:
        over = threading.Event()

        def stall(request: Request) -> None:
            send(request, ARCHIVE[:HALF], length=len(ARCHIVE))
            over.wait()

        log = Log(stall, send_rest)
        try:
            get(serve(log), target, IMPATIENT)
        finally:
            over.set()
        assert log[1].headers["Range"] == f"bytes={HALF}-"
        assert target.read_bytes() == ARCHIVE

    def test_a_later_run_goes_on_where_an_earlier_one_gave_up(self, serve: Serve, target: Path) -> None:
        answers = [lambda request: send_rest(request, cut=HALF), lambda request: send(request, status=500)]
        log = Log(*answers, answers[1], answers[1], send_rest)
        url = serve(log)
        with pytest.raises(DownloadError):
            get(url, target)
        get(url, target)
        assert log[-1].headers["Range"] == f"bytes={HALF}-"
        assert target.read_bytes() == ARCHIVE

    def test_progress_renews_the_patience(self, serve: Serve, target: Path) -> None:
        answers = [lambda request, n=n: send_rest(request, cut=n * 2000) for n in range(1, 20)]
        log = Log(*answers, send_rest)
        get(serve(log), target)
        assert len(log) == 20 > QUICK.attempts
        assert target.read_bytes() == ARCHIVE

    def test_a_server_that_ignores_ranges_starts_from_the_beginning(self, serve: Serve, target: Path) -> None:
        log = Log(lambda request: send(request, ARCHIVE[:HALF], length=len(ARCHIVE)), send)
        get(serve(log), target)
        assert "Range" in log[1].headers
        assert target.read_bytes() == ARCHIVE

    def test_a_file_that_changed_in_between_is_not_mixed(self, serve: Serve, target: Path) -> None:
        old = bytes(len(ARCHIVE))
        log = Log(
            lambda request: send_rest(request, old, cut=HALF, etag='"old"'),
            lambda request: send_rest(request, etag='"new"'),
        )
        get(serve(log), target)
        assert log[1].headers["If-Range"] == '"old"'
        assert target.read_bytes() == ARCHIVE

    def test_a_changed_file_is_seen_also_when_if_range_is_ignored(self, serve: Serve, target: Path) -> None:
        def ignores_if_range(request: Request) -> None:
            start = int(request.headers.get("Range", "bytes=0-")[6:-1])
            span = f"bytes {start}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"
            status = 206 if start else 200
            send(request, ARCHIVE[start:], status=status, etag='"new"', Content_Range=span)

        log = Log(lambda request: send_rest(request, bytes(len(ARCHIVE)), cut=HALF), ignores_if_range)
        get(serve(log), target)
        assert len(log) == 3
        assert target.read_bytes() == ARCHIVE

    def test_an_answer_for_another_range_is_not_appended(self, serve: Serve, target: Path) -> None:
        span = f"bytes 5-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"
        wrong = Log(
            lambda request: send_rest(request, cut=HALF),
            lambda request: send(request, ARCHIVE[5:], status=206, Content_Range=span),
            send_rest,
        )
        get(serve(wrong), target)
        assert target.read_bytes() == ARCHIVE

    def test_an_unsatisfiable_range_starts_over(self, serve: Serve, target: Path) -> None:
        log = Log(
            lambda request: send_rest(request, cut=HALF),
            lambda request: send(request, b"", status=416),
            send_rest,
        )
        get(serve(log), target)
        assert "Range" not in log[2].headers
        assert target.read_bytes() == ARCHIVE

    @pytest.mark.parametrize("etag", [None, 'W/"weak"'])
    def test_without_a_strong_mark_nothing_is_resumed(
        self, etag: str | None, serve: Serve, target: Path
    ) -> None:
        log = Log(lambda request: send(request, ARCHIVE[:HALF], length=len(ARCHIVE), etag=etag), send)
        get(serve(log), target)
        assert "Range" not in log[1].headers
        assert target.read_bytes() == ARCHIVE

    def test_a_date_serves_as_a_mark(self, serve: Serve, target: Path) -> None:
        date = "Tue, 19 May 2020 00:00:00 GMT"

        def half(request: Request) -> None:
            send(request, ARCHIVE[:HALF], length=len(ARCHIVE), etag=None, Last_Modified=date)

        log = Log(half, send)
        get(serve(log), target)
        assert log[1].headers["If-Range"] == date

    def test_the_part_of_another_address_is_not_continued(self, serve: Serve, target: Path) -> None:
        broken = Log(lambda request: send_rest(request, cut=HALF), lambda request: send(request, status=404))
        with pytest.raises(DownloadError):
            get(serve(broken), target)
        log = Log(send_rest)
        get(serve(log), target)
        assert "Range" not in log[0].headers
        assert target.read_bytes() == ARCHIVE

    @pytest.mark.parametrize(
        "memory", ["", "[]", "{}", '{"validator": 1, "url_sha256": 2, "total_bytes": 3}']
    )
    def test_a_part_nobody_remembers_is_not_continued(self, memory: str, serve: Serve, target: Path) -> None:
        target.parent.mkdir()
        target.with_name(f"{target.name}.part").write_bytes(b"whatever")
        target.with_name(f"{target.name}.part.json").write_text(memory)
        get(serve(send_rest), target)
        assert target.read_bytes() == ARCHIVE


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "tip"),
        [
            (401, "wants a login"),
            (403, "HTTPS_PROXY"),
            (404, "check the address"),
            (407, "USER:PASSWORD"),
            (410, "taken down"),
            (418, "the ways out"),
        ],
    )
    def test_a_refusal_is_final_and_explained(
        self, status: int, tip: str, serve: Serve, target: Path
    ) -> None:
        log = Log(lambda request: send(request, b"<html>No <b>entry</b></html>", status=status))
        with pytest.raises(DownloadError, match=rf"answered {status} .*\(No entry\)") as problem:
            get(serve(log), target)
        assert tip in str(problem.value.tip)
        assert "the ways out" in str(problem.value.tip)
        assert len(log) == 1
        assert not target.exists()

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_trouble_that_passes_is_waited_for(self, status: int, serve: Serve, target: Path) -> None:
        log = Log(lambda request: send(request, b"", status=status), send)
        get(serve(log), target)
        assert len(log) == 2
        assert target.read_bytes() == ARCHIVE

    @pytest.mark.parametrize(("status", "tip"), [(429, "wait a while"), (500, "try again later")])
    def test_trouble_that_stays_ends_after_some_attempts(
        self, status: int, tip: str, serve: Serve, target: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = Log(lambda request: send(request, b"", status=status, Retry_After="3600"))
        with pytest.raises(DownloadError, match=f"answered {status}") as problem:
            get(serve(log), target)
        assert tip in str(problem.value.tip)
        assert len(log) == QUICK.attempts
        assert capsys.readouterr().err.count("trying again in 0.002 s") == QUICK.attempts - 1

    def test_no_server_at_all_is_said(self, target: Path) -> None:
        with pytest.raises(DownloadError, match="the connection failed") as problem:
            get("http://127.0.0.1:9/model.tar.gz", target)
        assert problem.value.exit_code == 7
        assert problem.value.tip == "the ways out"

    def test_no_network_is_said(self, target: Path) -> None:
        with pytest.raises(DownloadError, match="the host cannot be found; is there a network"):
            get("http://zoo.invalid/model.tar.gz", target, replace(QUICK, attempts=1))

    def test_a_server_that_says_nothing_is_left(self, serve: Serve, target: Path) -> None:
        over = threading.Event()

        def wait(_: Request) -> None:
            over.wait()

        try:
            with pytest.raises(DownloadError, match=r"not a byte for 0\.3 s"):
                get(serve(wait), target, IMPATIENT)
        finally:
            over.set()

    def test_a_proxy_that_wants_a_login_is_said(
        self, serve: Serve, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(request: Request) -> None:
            request.connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        monkeypatch.setattr(BaseHTTPRequestHandler, "do_CONNECT", refuse, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", serve(send))
        with pytest.raises(DownloadError, match="the proxy answered 407") as problem:
            get("https://zoo.invalid/model.tar.gz", target)
        assert "USER:PASSWORD" in str(problem.value.tip)

    def test_a_circle_of_redirects_ends(self, serve: Serve, target: Path) -> None:
        with pytest.raises(DownloadError, match="sends us elsewhere"):
            get(serve(lambda request: send(request, b"", status=302, Location="/again")), target)

    @pytest.mark.parametrize("url", ["ftp://zoo/model.tar.gz", "http://", "gs://bucket/model", "http://[::1"])
    def test_an_impossible_address_is_a_usage_error(self, url: str, target: Path) -> None:
        with pytest.raises(UsageError, match="is no address"):
            get(url, target)

    def test_an_impossible_proxy_is_a_usage_error(
        self, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", "gopher://proxy")
        with pytest.raises(UsageError, match="proxy settings"):
            get("http://zoo.invalid/model.tar.gz", target)


class TestContent:
    def test_a_page_instead_of_the_file_is_named(self, serve: Serve, target: Path) -> None:
        page = b"<!DOCTYPE html><title>Google Drive - Quota exceeded</title><script>x</script>"
        url = serve(lambda request: send(request, page, Content_Type="text/html"))
        with pytest.raises(IntegrityError) as problem:
            get(url, target)
        said = problem.value.message
        assert "gave (status 200, text/html) an HTML page instead of gzip data" in said
        assert f"({len(page)} bytes)" in said
        assert "which begins: Google Drive - Quota exceeded" in said
        assert list(target.parent.iterdir()) == []

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "nothing (0 bytes) instead of gzip data"),
            (ARCHIVE[:-9], "a gzip file that is cut off"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a git LFS pointer"),
            (gzip.compress(b"<html>Sign in"), "gzip data around an HTML page, not a tar: Sign in"),
        ],
    )
    def test_what_is_no_archive_is_named(self, body: bytes, said: str, serve: Serve, target: Path) -> None:
        with pytest.raises(IntegrityError) as problem:
            get(serve(lambda request: send(request, body)), target)
        assert said in problem.value.message
        assert problem.value.tip == "the ways out"
        assert list(target.parent.iterdir()) == []

    def test_a_length_that_is_too_large_is_said(self, serve: Serve, target: Path) -> None:
        def lies(request: Request) -> None:
            start = int(request.headers.get("Range", "bytes=0-")[6:-1])
            send(request, ARCHIVE[start:], status=206 if start else 200, length=len(ARCHIVE) - start + 10)

        with pytest.raises(DownloadError, match=r"connection failed|cannot continue"):
            get(serve(lies), target)
        assert not target.exists()

    def test_a_length_that_is_too_small_cuts_the_file(self, serve: Serve, target: Path) -> None:
        with pytest.raises(IntegrityError, match="a gzip file that is cut off"):
            get(serve(lambda request: send(request, length=HALF)), target)
        assert list(target.parent.iterdir()) == []

    def test_a_range_longer_than_the_file_is_not_kept(self, serve: Serve, target: Path) -> None:
        span = f"bytes {HALF}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"
        log = Log(
            lambda request: send_rest(request, cut=HALF),
            lambda request: send(request, ARCHIVE[HALF:] + b"more", status=206, Content_Range=span),
            send_rest,
        )
        get(serve(log), target)
        assert target.read_bytes() == ARCHIVE

    @pytest.mark.parametrize("announced", [True, False])
    def test_a_file_without_end_is_left(self, announced: bool, serve: Serve, target: Path) -> None:
        def endless(request: Request) -> None:
            request.send_response(200)
            if announced:
                request.send_header("Content-Length", str(QUICK.max_bytes + 1))
            request.end_headers()
            for _ in range(40):
                request.wfile.write(bytes(1 << 16))

        with pytest.raises(DownloadError, match=r"at most 1\.0 MB make sense"):
            get(serve(endless), target)
        assert list(target.parent.iterdir()) == []

    def test_another_file_of_that_name_survives(self, serve: Serve, target: Path) -> None:
        target.parent.mkdir()
        target.write_text("mine")
        log = Log(send)
        with pytest.raises(IntegrityError, match="text instead of gzip data") as problem:
            get(serve(log), target)
        assert problem.value.tip == "move it away"
        assert target.read_text() == "mine"
        assert log == []


class TestDisk:
    def test_a_full_disk_is_said(self, serve: Serve, target: Path) -> None:
        target.parent.mkdir()
        target.with_name(f"{target.name}.part").symlink_to("/dev/full")
        with pytest.raises(DownloadError, match=r"disk of .* is full"):
            get(serve(send), target)
        assert not target.exists()

    def test_a_place_that_is_no_folder_is_a_usage_error(self, serve: Serve, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot be used"):
            get(serve(send), tmp_path / "file" / "model.tar.gz")

    def test_two_at_once_share_one_download(self, serve: Serve, target: Path) -> None:
        others: list[subprocess.Popen[str]] = []

        def answer_when_another_waits(request: Request) -> None:
            script = ANOTHER_RUN.format(url=url, target=str(target))
            other = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
            others.append(other)
            assert other.stderr is not None
            assert "another run is making" in other.stderr.readline()
            send(request)

        log = Log(answer_when_another_waits)
        url = serve(log)
        get(url, target, Limits())
        (other,) = others
        with other:
            assert other.wait() == 0
        assert len(log) == 1
        assert target.read_bytes() == ARCHIVE


ANOTHER_RUN: Final = """
from pathlib import Path
from runner.content import Content
from runner.download import download
from runner.unpack import gzip_fault
download({url!r}, Path({target!r}), expected=(Content.GZIP,), fault=gzip_fault, ways_out="")
"""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://zoo/a.tar.gz", "http://zoo/a.tar.gz"),
        ("https://me:secret@zoo/a.tar.gz", "https://zoo/a.tar.gz"),
        ("https://zoo/a.tar.gz?signature=secret", "https://zoo/a.tar.gz?…"),
    ],
)
def test_secrets_of_an_address_are_not_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
