"""An archive to download, and ways for a server to deliver it, correctly or not."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runner.download.file_kind import Content
from runner.download.http import Limits, download
from runner.download.unpack import gzip_fault
from tests.servers import Answer, Request

if TYPE_CHECKING:
    from pathlib import Path

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
    """Answer a request; ``length`` is announced, ``body`` is sent before the connection ends."""
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
    """Honour a range request, and close the connection at ``cut``."""
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
    """The received requests; each is answered by the next function, the last of which is repeated."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.answers = answers

    def __call__(self, request: Request) -> None:
        self.append(request)
        self.answers[min(len(self), len(self.answers)) - 1](request)
