"""Servers on loopback that answer each request by calling a function of a test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Request = BaseHTTPRequestHandler
Answer = Callable[[Request], None]
Serve = Callable[[Answer], str]


@contextlib.contextmanager
def running_server(answer: Answer) -> Iterator[str]:
    """Start a server for GET and HEAD, yield its address, and stop it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # The client may hang up whenever it likes; what it makes of that is the test's matter.
            with contextlib.suppress(ConnectionError):
                answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
