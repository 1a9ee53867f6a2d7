"""Downloads over connections that stall and break, from real servers on loopback."""

from __future__ import annotations

import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from runner.download.http import shown_url
from runner.errors import DownloadError
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

    def test_progress_resets_the_number_of_attempts(self, serve: Serve, target: Path) -> None:
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
    def test_without_a_strong_validator_nothing_is_resumed(
        self, etag: str | None, serve: Serve, target: Path
    ) -> None:
        log = Log(lambda request: send(request, ARCHIVE[:HALF], length=len(ARCHIVE), etag=etag), send)
        get(serve(log), target)
        assert "Range" not in log[1].headers
        assert target.read_bytes() == ARCHIVE

    def test_a_date_serves_as_a_validator(self, serve: Serve, target: Path) -> None:
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
    def test_a_part_without_a_record_is_not_continued(self, memory: str, serve: Serve, target: Path) -> None:
        target.parent.mkdir()
        target.with_name(f"{target.name}.part").write_bytes(b"whatever")
        target.with_name(f"{target.name}.part.json").write_text(memory)
        get(serve(send_rest), target)
        assert target.read_bytes() == ARCHIVE


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
