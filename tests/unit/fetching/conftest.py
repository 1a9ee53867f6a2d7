"""A loopback server that answers as each test says, and a recipe as small as the checkpoint that fits it."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from runner.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.fetching.loopback import Answer, Serve

TINY = Path(__file__).resolve().parents[2] / "data" / "tiny_checkpoint"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the machine must not stand between the tests and their loopback servers."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that answer each GET by calling a function of the test; all end with the test."""
    with contextlib.ExitStack() as servers:

        def start(answer: Answer) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    # The client may hang up whenever it likes; what it makes of that is the test's matter.
                    with contextlib.suppress(ConnectionError):
                        answer(self)

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


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Recipe:
    """A recipe with one variant, whose published checkpoint is the tiny one."""
    data_dir = tmp_path / "recipe" / "fp32"
    data_dir.mkdir(parents=True)
    shutil.copy(TINY / "plain" / "tensors.tsv", data_dir)
    published = load_recipe()
    variant = replace(published.variants["fp32"], data_dir=data_dir)
    return replace(
        published,
        archive_url="http://127.0.0.1:9/tiny_model.tar.gz",
        variants=MappingProxyType({"fp32": variant}),
    )


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model directory with the tiny checkpoint, in the archive's layout."""
    folder = tmp_path / "models" / "tiny_model"
    shutil.copytree(TINY / "plain", folder / "fp32")
    (folder / "fp32" / "tensors.tsv").unlink()
    (folder / "fp32" / "pipeline.config").write_text("model {}\n")
    return folder


@pytest.fixture
def model_archive(model_dir: Path, tmp_path: Path) -> Path:
    """The model directory as the archive a zoo would offer."""
    archive = tmp_path / "offered" / "model.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(model_dir, arcname="tiny_model")
    return archive


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a download shall go; its folder is not there yet."""
    return tmp_path / "new folder" / "model.tar.gz"
