"""Servers that refuse, announce wrong lengths or send something else; disks that are full."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final

import pytest

from runner.download.http import Limits
from runner.errors import DiskFullError, DownloadError, IntegrityError, UsageError
from tests.loopback import (
    ARCHIVE,
    HALF,
    IMPATIENT,
    QUICK,
    Log,
    get,
    send,
    send_rest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Request, Serve


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "tip"),
        [
            (401, "needs a login"),
            (403, "HTTPS_PROXY"),
            (404, "check the URL"),
            (407, "USER:PASSWORD"),
            (410, "removed"),
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

    @pytest.mark.parametrize(("status", "tip"), [(429, "try again later"), (500, "try again later")])
    def test_trouble_that_stays_ends_after_some_attempts(
        self, status: int, tip: str, serve: Serve, target: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = Log(lambda request: send(request, b"", status=status, Retry_After="3600"))
        with pytest.raises(DownloadError, match=f"answered {status}") as problem:
            get(serve(log), target)
        assert tip in str(problem.value.tip)
        assert len(log) == QUICK.attempts
        assert capsys.readouterr().err.count("trying again in 0.002 s") == QUICK.attempts - 1

    def test_missing_server_is_reported(self, target: Path) -> None:
        with pytest.raises(DownloadError, match="the connection failed") as problem:
            get("http://127.0.0.1:9/model.tar.gz", target)
        assert problem.value.exit_code == 7
        assert problem.value.tip == "the ways out"

    def test_missing_network_is_reported(self, target: Path) -> None:
        with pytest.raises(DownloadError, match="cannot be resolved, or there is no network"):
            get("http://zoo.invalid/model.tar.gz", target, replace(QUICK, attempts=1))

    def test_a_server_that_never_answers_times_out(self, serve: Serve, target: Path) -> None:
        over = threading.Event()

        def wait(_: Request) -> None:
            over.wait()

        try:
            with pytest.raises(DownloadError, match=r"no data for 0\.3 s"):
                get(serve(wait), target, IMPATIENT)
        finally:
            over.set()

    def test_a_proxy_that_requires_a_login_is_reported(
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
        with pytest.raises(DownloadError, match="redirect"):
            get(serve(lambda request: send(request, b"", status=302, Location="/again")), target)

    @pytest.mark.parametrize("url", ["ftp://zoo/model.tar.gz", "http://", "gs://bucket/model", "http://[::1"])
    def test_an_impossible_address_is_a_usage_error(self, url: str, target: Path) -> None:
        with pytest.raises(UsageError, match="URL"):
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
        assert "(status 200, text/html) an HTML page instead of gzip data" in said
        assert f"it has {len(page)} bytes" in said
        assert "and begins: Google Drive - Quota exceeded" in said
        assert list(target.parent.iterdir()) == []

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "nothing (0 bytes) instead of gzip data"),
            (ARCHIVE[:-9], "a gzip file that is cut off"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
            (gzip.compress(b"<html>Sign in", mtime=0), "gzip data of an HTML page, not a tar: Sign in"),
        ],
    )
    def test_what_is_no_archive_is_named(self, body: bytes, said: str, serve: Serve, target: Path) -> None:
        with pytest.raises(IntegrityError) as problem:
            get(serve(lambda request: send(request, body)), target)
        assert said in problem.value.message
        assert problem.value.tip == "the ways out"
        assert list(target.parent.iterdir()) == []

    def test_a_length_that_is_too_large_is_reported(self, serve: Serve, target: Path) -> None:
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
    def test_a_file_without_end_is_refused(self, announced: bool, serve: Serve, target: Path) -> None:
        def endless(request: Request) -> None:
            request.send_response(200)
            if announced:
                request.send_header("Content-Length", str(QUICK.max_bytes + 1))
            request.end_headers()
            for _ in range(40):
                request.wfile.write(bytes(1 << 16))

        with pytest.raises(DownloadError, match=r"only 1\.0 MB"):
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
    def test_a_full_disk_is_reported(self, serve: Serve, target: Path) -> None:
        target.parent.mkdir()
        target.with_name(f"{target.name}.part").symlink_to("/dev/full")
        with pytest.raises(DiskFullError, match=r"the disk that contains .* is full"):
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
            assert "another run" in other.stderr.readline()
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
from runner import console
from runner.download.file_kind import Content
from runner.download.http import download
from runner.download.unpack import gzip_fault
console.print_messages()
download({url!r}, Path({target!r}), expected=(Content.GZIP,), fault=gzip_fault, ways_out="")
"""
