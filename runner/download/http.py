"""Download one file by HTTP, with retries, resume and verification.

Received bytes are stored in ``NAME.part``. ``NAME.part.json`` records which version of the file these bytes
belong to, so that a later run can resume. The file gets its final name only when it is complete and verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from runner import console
from runner.download.file_kind import Content, first_words, read_head, recognise
from runner.download.progress import byte_progress, megabytes
from runner.errors import DownloadError, IntegrityError, UsageError
from runner.host.cache_dir import exclusive, translate_disk_errors
from runner.host.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
TIPS: Final = {
    401: "this URL needs a login",
    403: "a firewall or the server denied access; your network may need a proxy (HTTPS_PROXY)",
    404: "check the URL; the file may have moved",
    407: "your proxy needs a login: set HTTP_PROXY and HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT",
    410: "the file was removed from the server",
    429: "the server has received too many requests; try again later",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Timeouts, number of attempts and maximum size of a download."""

    connect_timeout_s: float = 15.0
    read_timeout_s: float = 60.0
    attempts: int = 5
    """Give up after this many attempts in a row that receive less than ``progress_bytes``."""
    progress_bytes: int = 1 << 20
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    max_bytes: int = 1 << 30


DEFAULT_LIMITS: Final = Limits()


def download(
    url: str,
    target: Path,
    *,
    expected: Collection[Content],
    fault: Callable[[Path], str | None],
    ways_out: str,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Download ``url`` to ``target`` and verify it, or verify an existing ``target``.

    If several runs need the file at the same time, one downloads it and the others wait. ``fault`` checks the
    content and returns a description of what is wrong, or None. ``ways_out`` is the tip for users who cannot
    download the file.

    Raises:
        UsageError: the URL or the proxy settings are invalid, or ``target`` is not writable.
        DownloadError: the download failed.
        IntegrityError: the downloaded or existing file is not the expected one.
    """
    transfer = _Transfer(url, target, limits, ways_out)
    with exclusive(target), translate_disk_errors(target):
        if target.exists():
            _verify_content(target, expected, fault, f"{target} is", "move it away")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive_patiently(transfer)
        try:
            came = f"{transfer.shown_url} returned{transfer.answer}"
            _verify_content(transfer.part, expected, fault, came, ways_out)
        except IntegrityError:
            transfer.start_over()
            raise
        transfer.finish()


def shown_url(url: str) -> str:
    """Return a URL without password and query string, for messages and records."""
    without_login = re.sub(r"(?<=//)[^/@]*@", "", url)
    return re.sub(r"\?.*", "?…", without_login)


def _verify_content(
    path: Path, expected: Collection[Content], fault: Callable[[Path], str | None], came: str, tip: str
) -> None:
    head = read_head(path)
    content = recognise(head)
    if content not in expected:
        wanted = " or ".join(kind.value for kind in expected)
        size = megabytes(path.stat().st_size)
        quote = f"; it has {size} and begins: {first_words(head)}" if head else ""
        raise IntegrityError(f"{came} {content.value} instead of {wanted}{quote}", tip=tip)
    wrong = fault(path)
    if wrong:
        raise IntegrityError(f"{came} {wrong}", tip=tip)


class _TransientError(Exception):
    """A failed attempt that may be retried; ``error`` is the error to raise when no retries are left."""

    def __init__(self, what: str, error: DownloadError, retry_after_s: float = 0.0) -> None:
        super().__init__(what)
        self.error = error
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class _Resumable:
    """A partial download that can be resumed."""

    size_bytes: int
    total_bytes: int | None
    validator: str


class _Transfer:
    """The download of one file, over one or more HTTP responses."""

    def __init__(self, url: str, target: Path, limits: Limits, ways_out: str) -> None:
        self.url = url
        self.shown_url = shown_url(url)
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.memory = target.with_name(f"{target.name}.part.json")
        self.limits = limits
        self.ways_out = ways_out
        self.answer = ""

    def attempt(self, client: httpx.Client) -> None:
        """Send one request and append the response to the part file.

        Raises:
            _TransientError: the attempt failed and may be retried.
            DownloadError: the attempt failed and a retry is useless.
        """
        so_far = self._resumable()
        if so_far and so_far.size_bytes == so_far.total_bytes:
            return
        headers = {}
        if so_far:
            headers = {"Range": f"bytes={so_far.size_bytes}-", "If-Range": so_far.validator}
        with client.stream("GET", self.url, headers=headers) as response:
            self._refuse_bad_status(response)
            start = self._start(response, so_far)
            total = _total(response, start)
            if total is not None and total > self.limits.max_bytes:
                raise self._too_large(total)
            self._remember(response, total)
            self._append(response, start, total)

    def size_bytes(self) -> int:
        """Return the number of bytes received so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def start_over(self) -> None:
        """Delete the partial download."""
        self.part.unlink(missing_ok=True)
        self.memory.unlink(missing_ok=True)

    def finish(self) -> None:
        """Rename the complete file to its final name; sync the folder, so that the name survives a crash."""
        self.part.replace(self.target)
        self.memory.unlink(missing_ok=True)
        folder = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def retryable_error(
        self, what: str, tip: str | None = None, retry_after_s: float = 0.0
    ) -> _TransientError:
        """Return an error about this file that may be retried."""
        return _TransientError(what, self.fail(what, tip), retry_after_s)

    def fail(self, what: str, tip: str | None = None) -> DownloadError:
        """Return an error about this file."""
        return DownloadError(
            f"{self.shown_url}: {what}", tip=f"{tip}; or {self.ways_out}" if tip else self.ways_out
        )

    def _resumable(self) -> _Resumable | None:
        try:
            memory = json.loads(self.memory.read_text("utf-8"))
            so_far = _Resumable(
                size_bytes=self.part.stat().st_size,
                total_bytes=memory["total_bytes"],
                validator=memory["validator"],
            )
            is_ours = memory["url_sha256"] == _sha256(self.url) and isinstance(so_far.validator, str)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return so_far if is_ours and so_far.size_bytes > 0 else None

    def _remember(self, response: httpx.Response, total: int | None) -> None:
        etag = response.headers.get("ETag", "W/")
        validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
        memory = {"url_sha256": _sha256(self.url), "validator": validator, "total_bytes": total}
        self.memory.write_text(json.dumps(memory), "utf-8")
        kind = response.headers.get("Content-Type", "no Content-Type")
        self.answer = f" (status {response.status_code}, {kind})"

    def _refuse_bad_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if response.is_success or status == 416:
            return
        said = first_words(_beginning(response))
        what = f"the server answered {status} {response.reason_phrase}{f' ({said})' if said else ''}"
        trouble = "the server has a problem; try again later" if status >= 500 else None
        tip = TIPS.get(status, trouble)
        if status in WORTH_ANOTHER_TRY:
            raise self.retryable_error(what, tip, _retry_after_s(response))
        raise self.fail(what, tip)

    def _start(self, response: httpx.Response, so_far: _Resumable | None) -> int:
        """Return the offset in the file at which this response starts."""
        if response.status_code not in {206, 416}:
            return 0  # the server sends the whole file, because it ignores ranges or the file has changed
        begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status_code == 206 and so_far and begins and int(begins[1]) == so_far.size_bytes:
            is_other_version = response.headers.get("ETag", so_far.validator) != so_far.validator
            if not (so_far.validator.startswith('"') and is_other_version):
                return so_far.size_bytes
        self.start_over()
        what = "the server cannot resume the download"
        raise self.retryable_error(what)

    def _append(self, response: httpx.Response, start: int, total: int | None) -> None:
        size = start
        with (
            byte_progress(self.target.name, total) as report,
            self.part.open("r+b" if start else "wb") as file,
        ):
            file.seek(start)
            for chunk in response.iter_raw():
                size += len(chunk)
                if size > self.limits.max_bytes:
                    raise self._too_large(size)
                file.write(chunk)
                report(size)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and size != total:
            if size > total:
                self.start_over()
            what = f"received {size} bytes instead of {total}"
            raise self.retryable_error(what)

    def _too_large(self, size: int) -> DownloadError:
        self.start_over()
        allowed = megabytes(self.limits.max_bytes)
        return self.fail(f"the file is too large: at least {megabytes(size)}, but only {allowed} is allowed")


def _receive_patiently(transfer: _Transfer) -> None:
    """Try until the file is complete; give up after several attempts in a row without progress."""
    limits = transfer.limits
    most_bytes = fruitless = 0
    with _client(transfer) as client:
        while (problem := _transient_failure(transfer, client)) is not None:
            size_bytes = transfer.size_bytes()
            fruitless = 1 if size_bytes >= most_bytes + limits.progress_bytes else fruitless + 1
            most_bytes = max(most_bytes, size_bytes)
            if fruitless >= limits.attempts:
                raise problem.error from problem
            wait_s = _wait_s(limits, fruitless, problem)
            console.note(
                f"   {problem}; {megabytes(size_bytes)} received so far; "
                f"trying again in {wait_s:g} s (failed attempt {fruitless} of {limits.attempts})"
            )
            time.sleep(wait_s)


def _transient_failure(transfer: _Transfer, client: httpx.Client) -> _TransientError | None:
    """Make one attempt; return the failure if a retry may succeed, or None if the attempt succeeded."""
    try:
        _attempt_translated(transfer, client)
    except _TransientError as problem:
        return problem
    return None


def _wait_s(limits: Limits, fruitless: int, problem: _TransientError) -> float:
    """Return the waiting time: exponential backoff or Retry-After, up to the limit."""
    return min(limits.longest_wait_s, max(limits.first_wait_s * 2.0**fruitless, problem.retry_after_s))


def _client(transfer: _Transfer) -> httpx.Client:
    limits = transfer.limits
    try:
        url = httpx.URL(transfer.url)
    except httpx.InvalidURL as problem:
        raise UsageError(f"{transfer.shown_url} is not a valid URL: {problem}") from problem
    if url.scheme not in {"http", "https"} or not url.host:
        raise UsageError(
            f"{transfer.shown_url}: only http:// and https:// URLs can be downloaded",
            tip="use an http:// or https:// URL, or a local file",
        )
    try:
        return httpx.Client(
            timeout=httpx.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s),
            follow_redirects=True,
            # Request the bytes as stored; otherwise some servers decompress a .gz file on the fly.
            headers={"Accept-Encoding": "identity", "User-Agent": f"mobiledet-runner/{__version__}"},
        )
    except (ValueError, httpx.InvalidURL, ImportError) as problem:
        raise UsageError(
            f"the proxy settings in the environment are invalid: {problem}",
            tip="check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY",
        ) from problem


def _attempt_translated(transfer: _Transfer, client: httpx.Client) -> None:
    try:
        transfer.attempt(client)
    except httpx.ConnectTimeout as problem:
        what = f"no connection within {transfer.limits.connect_timeout_s:g} s"
        raise transfer.retryable_error(
            what, "a firewall may block it; do you need a proxy (HTTPS_PROXY)?"
        ) from problem
    except httpx.TimeoutException as problem:
        what = f"no data for {transfer.limits.read_timeout_s:g} s"
        raise transfer.retryable_error(what) from problem
    except httpx.ProxyError as problem:
        what = f"the proxy answered {problem}"
        raise transfer.fail(
            what, TIPS[407] if what.startswith("the proxy answered 407") else None
        ) from problem
    except (httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.InvalidURL) as problem:
        what = f"following a redirect failed: {problem}"
        raise transfer.fail(what) from problem
    except httpx.TransportError as problem:
        if "CERTIFICATE_VERIFY_FAILED" in str(problem):
            what = f"the server's certificate is not trusted: {problem}"
            tip = "if a proxy in your network intercepts TLS, set SSL_CERT_FILE to its CA bundle"
            raise transfer.fail(what, tip) from problem
        what = f"the connection failed: {problem}"
        if "[Errno -" in what:  # negative codes come from getaddrinfo; its messages differ between systems
            what = f"the host name cannot be resolved, or there is no network ({problem})"
        raise transfer.retryable_error(what) from problem


def _total(response: httpx.Response, start: int) -> int | None:
    """Return the size of the whole file according to the server, or None."""
    of_range = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    if response.status_code == 206:
        return int(of_range[1]) if of_range else None
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _beginning(response: httpx.Response) -> bytes:
    for chunk in response.iter_raw(2048):
        return chunk
    return b""


def _retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
