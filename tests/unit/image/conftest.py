"""Fixtures of the tests about pins, roads and the build context."""

from __future__ import annotations

import contextlib
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT
from tests.unit.image.small_project import TREE, Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.image.small_project import Answer, Serve


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "docker", root / "docker", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT_ROOT / "Dockerfile", root)
    shutil.copy(PROJECT_ROOT / ".dockerignore", root)
    project = Project(
        root=root,
        pin_file=root / "models-research-pin.txt",
        manifest=root / "docker/manifests/small.manifest",
    )
    project.pin(TREE)
    project.point_to()
    return project


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine needs to reach the network must not stand between the tests and their servers."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that answer GET and HEAD by calling a function of the test; all end with the test."""
    with contextlib.ExitStack() as servers:

        def start(answer: Answer) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    # The client may hang up whenever it likes; what it makes of that is the test's matter.
                    with contextlib.suppress(ConnectionError):
                        answer(self)

                do_HEAD = do_GET

                def log_message(self, *_: object) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            servers.callback(server.server_close)
            servers.callback(thread.join)
            servers.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield start
